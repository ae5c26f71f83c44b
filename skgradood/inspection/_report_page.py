"""The HTML of a detection report. Everything that comes from data is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from skgradood.inspection._explanation import LayerEvidence
from skgradood.inspection._png import data_uri

if TYPE_CHECKING:
    from skgradood.inspection._report import DetectionReport

# Okabe and Ito's blue and vermilion: told apart by colour-blind readers.
_LOW, _HIGH, _GREY = "#0072B2", "#D55E00", "#b8b8b8"
_STRIP = (240, 46)  # width and height of the bars of all layers, in pixels
_LONGEST_BAR = 6.0  # normal scores; longer bars are cut, and the number beside them tells
_TOP_LAYERS = 3
_SUMMARY_LAYERS = 10
_SUMMARY_BAR = 260
_NORMAL_SHOWN = 8
_HISTOGRAM = (640, 150)
_BINS = 40
_LOW_SHARE = 0.02
_VALUES_SHOWN = 6
_STYLE = f"""
body {{ font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; margin-bottom: .2rem; }} h2 {{ font-size: 1.15rem; margin-top: 2rem; }}
.note {{ color: #555; font-size: .87rem; max-width: 46rem; }}
.cards {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(27rem, 1fr));
  gap: .8rem; }}
.card {{ display: flex; gap: .9rem; border: 1px solid #ddd; border-radius: 6px; padding: .7rem; }}
.card div {{ min-width: 0; }}
.name {{ font-weight: 600; overflow-wrap: anywhere; }}
.why {{ font-size: .82rem; overflow-wrap: anywhere; margin: .15rem 0; }}
img {{ width: 96px; height: 96px; object-fit: contain; image-rendering: pixelated;
  border: 1px solid #ccc; background: #eee; flex: none; }}
.normal {{ display: flex; flex-wrap: wrap; gap: .6rem; }}
.normal figure {{ margin: 0; width: 98px; }}
figcaption {{ font-size: .75rem; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; font-size: .87rem; }} td, th {{ padding: .15rem .7rem .15rem 0;
  text-align: left; }} td.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
svg {{ display: block; }} svg text {{ font: 11px system-ui, sans-serif; fill: #444; }}
.high {{ color: {_HIGH}; }} .low {{ color: {_LOW}; }}
"""


def render(report: DetectionReport, *, max_shown: int) -> str:
    """Write the whole page."""
    title = escape(report.title)
    sections = [_head(report, title), _histogram(report)]
    flagged = report.flagged_[:max_shown]
    if len(report.flagged_):
        sections += [_summary(report), _cards(report, flagged)]
    sections.append(_most_normal(report))
    # The policy makes sure of it: nothing is fetched, no script runs.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body>\n</html>\n"
    )


def _head(report: DetectionReport, title: str) -> str:
    n, n_flagged = len(report.scores), len(report.flagged_)
    expected = report.alpha * n
    return (
        f"<h1>{title}</h1>\n<p><b>{n_flagged} of {n}</b> samples are outliers at "
        f"&alpha; = {report.alpha:g}. Were all of them like the calibration samples, about "
        f"{expected:.1f} would be.</p>"
    )


def _histogram(report: DetectionReport) -> str:
    """Scores of the data over those of the calibration samples, as shares."""
    data, calibration = (s[np.isfinite(s)] for s in (report.scores, report.calibration_scores))
    if len(data) == 0 or len(calibration) == 0:
        return ""
    low, high = _range(data, calibration)
    edges = np.linspace(low, high, _BINS + 1)
    shares = [
        np.histogram(np.clip(s, low, high), bins=edges)[0] / len(s) for s in (calibration, data)
    ]
    largest = max(share.max() for share in shares)
    filled, outlined = f'fill="{_GREY}"', f'fill="none" stroke="{_HIGH}" stroke-width="1.5"'
    width, height = _HISTOGRAM
    steps = _steps(shares[0] / largest, filled) + _steps(shares[1] / largest, outlined)
    mark = width * float(np.clip((report.offset - low) / (high - low), 0, 1))
    told = [
        "Share of samples by score (higher is more normal): calibration samples filled, these data "
        '<span class="high">outlined</span>. Samples to the left of the dashed line are flagged.'
    ]
    if n_below := int((data < low).sum()):
        told.append(f"The first bar holds {n_below} samples below {low:.4g}.")
    if n_infinite := len(report.scores) - len(data):
        told.append(f"Left out: {n_infinite} without a finite score.")
    return (
        f'<h2>Scores</h2>\n<svg width="{width}" height="{height + 18}" role="img" '
        f'aria-label="Histogram of scores">{steps}'
        f'<line x1="{mark:.1f}" x2="{mark:.1f}" y2="{height}" stroke="#222" stroke-dasharray="4"/>'
        f'<text x="0" y="{height + 14}">{low:.4g}</text>'
        f'<text x="{width}" y="{height + 14}" text-anchor="end">{high:.4g}</text></svg>\n'
        f'<p class="note">{" ".join(told)}</p>'
    )


def _steps(heights: np.ndarray, look: str) -> str:
    """A histogram as one path; heights are shares of the whole."""
    width, height = _HISTOGRAM
    step = width / len(heights)
    tops = height * (1 - heights)
    path = "".join(f"V{y:.1f}H{(i + 1) * step:.1f}" for i, y in enumerate(tops))
    return f'<path d="M0 {height}{path}V{height}Z" {look}/>'


def _range(data: np.ndarray, calibration: np.ndarray) -> tuple[float, float]:
    """Ends of the axis: far outliers must not press all others into one bar."""
    lowest, middle = np.quantile(calibration, [_LOW_SHARE, 0.5])
    low = max(min(data.min(), calibration.min()), lowest - 2 * (middle - lowest))
    high = max(data.max(), calibration.max())
    return float(low), float(high if high > low else low + 1)


def _summary(report: DetectionReport) -> str:
    """Which layers are unusual over all flagged samples."""
    evidence = report.evidence
    if evidence is None:
        return (
            '<p class="note">This detector does not tell which layers speak against a sample.</p>'
        )
    n_flagged = min(len(report.flagged_), len(evidence.alone))
    finite = np.isfinite(evidence.alone[:n_flagged]).all(axis=1)
    scores = evidence.alone[:n_flagged][finite]
    if len(scores) == 0:
        return ""
    magnitude = np.abs(scores).mean(axis=0)
    top = np.argsort(-magnitude)[:_SUMMARY_LAYERS]
    rows = "".join(
        f"<tr><td>{escape(evidence.names[column])}</td>"
        f"<td>{_bar(magnitude[column], magnitude[top[0]], (scores[:, column] > 0).mean())}</td>"
        f'<td class="number">{magnitude[column]:.1f}</td>'
        f'<td class="number">{(scores[:, column] > 0).mean():.0%}</td></tr>'
        for column in top
    )
    return (
        "<h2>Layers that speak against the flagged samples</h2>\n<table><tr><th>layer</th><th></th>"
        f"<th>mean distance</th><th>too large</th></tr>{rows}</table>\n"
        f'<p class="note">Mean over {len(scores)} flagged samples of how far the layer by itself '
        "lies from in-distribution samples, in standard deviations (of a normal distribution with "
        "the same tail probability). Colours: the shares of samples whose value is <span "
        'class="high">too large</span> and <span class="low">too small</span>.</p>'
    )


def _bar(value: float, largest: float, share_high: float) -> str:
    length = _SUMMARY_BAR * value / largest if largest else 0.0
    high = length * share_high
    return (
        f'<svg width="{_SUMMARY_BAR}" height="12"><rect width="{high:.1f}" height="12" '
        f'fill="{_HIGH}"/><rect x="{high:.1f}" width="{length - high:.1f}" height="12" '
        f'fill="{_LOW}"/></svg>'
    )


def _cards(report: DetectionReport, flagged: np.ndarray) -> str:
    cards = "\n".join(_card(report, place, row) for place, row in enumerate(flagged))
    left = len(report.flagged_) - len(flagged)
    more = f'<p class="note">Not shown: {left} more flagged samples.</p>' if left > 0 else ""
    note = ""
    if report.evidence is not None:
        note = (
            '<p class="note">Bars are the layers in their order, up for larger, down for smaller '
            f"values than usual, cut at {_LONGEST_BAR:g} standard deviations.</p>"
        )
    return f'<h2>Flagged samples</h2>\n{note}<div class="cards">\n{cards}\n</div>\n{more}'


def _card(report: DetectionReport, place: int, row: int) -> str:
    why = ""
    if report.evidence is not None and place < len(report.evidence.alone):
        why = _why(report.evidence, place)
    return (
        f'<div class="card">{_picture(report.X[row])}<div>'
        f'<div class="name">{escape(report.names[row])}</div>'
        f"<div>score {report.scores[row]:.4g}, p = {report.p_values[row]:.3g}</div>"
        f"{why}</div></div>"
    )


def _why(evidence: LayerEvidence, place: int) -> str:
    alone = evidence.alone[place]
    if not np.isfinite(alone).all():
        return '<p class="why">Its features are not finite.</p>'
    lines = [_strip(alone), _top("by itself", alone, evidence.names)]
    if evidence.given_others is not None:
        lines.append(_top("given the other layers", evidence.given_others[place], evidence.names))
    return "".join(lines)


def _top(label: str, scores: np.ndarray, names: list[str]) -> str:
    top = np.argsort(-np.abs(scores))[:_TOP_LAYERS]
    told = ", ".join(
        f'{escape(names[column])}&nbsp;<span class="{"high" if scores[column] > 0 else "low"}">'
        f"{scores[column]:+.1f}</span>"
        for column in top
    )
    return f'<p class="why">{label}: {told}</p>'


def _strip(scores: np.ndarray) -> str:
    width, height = _STRIP
    step, middle = width / len(scores), height / 2
    heights = np.clip(scores, -_LONGEST_BAR, _LONGEST_BAR) * middle / _LONGEST_BAR
    bars = "".join(
        f'<rect x="{i * step:.2f}" y="{middle - max(h, 0):.1f}" width="{0.85 * step:.2f}" '
        f'height="{abs(h):.1f}" fill="{_HIGH if h > 0 else _LOW}"/>'
        for i, h in enumerate(heights)
    )
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="Layers">'
        f'<line x2="{width}" y1="{middle}" y2="{middle}" stroke="#999"/>{bars}</svg>'
    )


def _most_normal(report: DetectionReport) -> str:
    n = min(_NORMAL_SHOWN, len(report.scores) - len(report.flagged_))
    figures = "".join(
        f"<figure>{_picture(report.X[row])}<figcaption>{escape(report.names[row])}<br>"
        f"p = {report.p_values[row]:.2g}</figcaption></figure>"
        for row in report.order[::-1][:n]
    )
    if not figures:
        return ""
    return f'<h2>For comparison: the most normal samples</h2>\n<div class="normal">{figures}</div>'


def _picture(sample: np.ndarray) -> str:
    if sample.ndim == 3:
        return f'<img src="{data_uri(_as_bytes(sample))}" alt="">'
    values = ", ".join(f"{value:.4g}" for value in sample[:_VALUES_SHOWN])
    more = ", &hellip;" if len(sample) > _VALUES_SHOWN else ""
    return f'<p class="why">({values}{more})</p>'


def _as_bytes(image: np.ndarray) -> np.ndarray:
    """An image that can be shown: one or three channels of uint8."""
    shown = image if len(image) in (1, 3) else image[:1]
    if shown.dtype == np.uint8:
        return shown
    low, high = float(shown.min()), float(shown.max())
    return np.round(255 * (shown - low) / ((high - low) or 1.0)).astype(np.uint8)

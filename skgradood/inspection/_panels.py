"""What the figures of this room share: axes, colours, line styles, short titles."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from skgradood.utils.optional import import_extra

# Okabe and Ito's colours, told apart by colour-blind readers; line styles and markers repeat the
# distinction for print in grey. The first is that of in-distribution samples.
COLOURS = ("#444444", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = "o^sDvPX"

_MOST_COLUMNS = 3
_TITLE_HEAD, _TITLE_TAIL = 9, 20


def style(i: int) -> dict[str, Any]:
    """Colour and line style of the i-th curve; none recurs before there are 31."""
    return {"color": _colour(i), "linestyle": LINE_STYLES[i % len(LINE_STYLES)]}


def marker(i: int) -> dict[str, Any]:
    """Colour and marker of the i-th scatter; none recurs before there are 43."""
    return {"color": _colour(i), "marker": MARKERS[i % len(MARKERS)]}


def _colour(i: int) -> str:
    """The first colour is that of the first set alone."""
    return COLOURS[1 + (i - 1) % (len(COLOURS) - 1)] if i else COLOURS[0]


def panels(ax: Any, n: int, *, width: float = 3.2, height: float = 3.0) -> np.ndarray:
    """Axes for n panels: those given, or of a new figure.

    Parameters
    ----------
    ax : matplotlib.axes.Axes, sequence of them, or None
        Where to draw.
    n : int
        How many are needed.
    width, height : float
        Size of a panel in a new figure, in inches.

    Returns
    -------
    ndarray of shape (n,), object

    Raises
    ------
    ValueError
        If another number of axes is given.
    """
    if ax is None:
        return _new_panels(n, width, height)
    given = np.array([ax], dtype=object).ravel()
    if len(given) != n:
        raise ValueError(f"ax must hold {n} axes, one for each panel; got {len(given)}")
    return given


def _new_panels(n: int, width: float, height: float) -> np.ndarray:
    figures = import_extra("matplotlib.figure", extra="plot")
    n_rows = math.ceil(n / _MOST_COLUMNS)
    n_columns = math.ceil(n / n_rows)  # rows as even as can be
    figure = figures.Figure(figsize=(width * n_columns, height * n_rows), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)  # of titles from the labels above them
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for unused in axes[n:]:
        unused.set_axis_off()
    return axes[:n]


def short_title(name: str) -> str:
    """A layer's name, its middle left out if it does not fit over a panel."""
    if len(name) <= _TITLE_HEAD + _TITLE_TAIL + 1:
        return name
    return f"{name[:_TITLE_HEAD]}…{name[-_TITLE_TAIL:]}"


def chosen_columns(
    layers: Sequence[str | int] | None, names: Sequence[str], *, default: int
) -> list[int]:
    """Columns of the layers asked for, by name or number; evenly spaced ones by default.

    Raises
    ------
    ValueError
        If there is no such layer; the message holds the nearest names.
    """
    if layers is None:
        return np.unique(np.linspace(0, len(names) - 1, default).round().astype(int)).tolist()
    if isinstance(layers, str | int) or len(layers) == 0:
        raise ValueError(f"layers must be a list of at least one layer; got {layers!r}")
    return [_column(layer, list(names)) for layer in layers]


def _column(layer: str | int, names: list[str]) -> int:
    if layer in names:
        return names.index(str(layer))
    if isinstance(layer, int | np.integer) and -len(names) <= layer < len(names):
        return int(layer) % len(names)
    raise ValueError(unknown_layer(layer, names))


def unknown_layer(layer: Any, names: Sequence[str]) -> str:
    """Say that there is no such layer, and which ones are meant or there."""
    near = difflib.get_close_matches(str(layer), names) or list(names[:5])
    more = ", ..." if len(near) < len(names) else ""
    return f"there is no layer {layer!r}; there are {', '.join(map(repr, near))}{more}"

"""A likelihood ratio to a codec as fifth member of the recommended detector.

    python -m benchmarks.fifth_member --data-dir DIR --train fashion_mnist --model glow

takes the features of ``benchmarks/ood.py`` from its cache (run that first, with the same sizes),
adds the code lengths of the same images, and prints worst and mean AUROC of the recommended
detector, of the ratios, and of both by Fisher's method. Needs ``pip install skgradood[codecs]``.
"""

from __future__ import annotations

import numpy as np

from benchmarks.detectors import RECOMMENDED_TABLE
from benchmarks.features import argument_parser, extracted, trained
from benchmarks.images import load_division
from benchmarks.presets import PRESETS
from skgradood import ChiSquareJointDensity, CombinedDetector
from skgradood.complexity import code_lengths
from skgradood.detectors import on_columns, recommended_detector
from skgradood.metrics import auroc

CODECS = ("png", "zlib")


def main() -> None:
    """Measure what the command line asks for."""
    arguments = argument_parser(__doc__.splitlines()[0]).parse_args()
    division = load_division(
        arguments.data_dir,
        arguments.train,
        size=PRESETS[arguments.model].image_size[arguments.train],
        n_test=arguments.n_test,
        n_ood=arguments.n_ood,
        seed=arguments.seed,
    )
    net, _ = trained(division, arguments)
    features = extracted(net, division, arguments, RECOMMENDED_TABLE)
    parts = {"reference": division.reference, "test": division.test, **division.ood}
    tables = {name: _with_ratios(features.values[name], images) for name, images in parts.items()}
    members = _members(n_layers=(len(features.names) - 1) // 2, seed=arguments.seed)
    members.fit(tables["reference"])
    log_p = {name: members.member_scores(table) for name, table in tables.items()}
    print(report(log_p, members.detector_names_, list(division.ood)))


def _with_ratios(values: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Append log p(x) plus the length of x under each codec, nats."""
    ratios = [values[:, -1] + code_lengths(images, codec=codec) for codec in CODECS]
    return np.column_stack([values, *ratios])


def _members(n_layers: int, seed: int) -> CombinedDetector:
    """The recommended detector's members on their columns, and a ratio for each codec."""
    preconditioned = [*range(n_layers, 2 * n_layers), 2 * n_layers]
    own = recommended_detector(random_state=seed).detectors
    members = [(name, on_columns(preconditioned, detector)) for name, detector in own]
    members += [
        (codec, on_columns([2 * n_layers + 1 + k], ChiSquareJointDensity(tail="lower")))
        for k, codec in enumerate(CODECS)
    ]
    return CombinedDetector(members, random_state=seed)


def report(log_p: dict[str, np.ndarray], names: list[str], ood: list[str]) -> str:
    """A row for every combination; the order by Fisher's method is that of the sum of log p."""
    default = list(range(len(names) - len(CODECS)))
    rows = {"recommended": default}
    for column, codec in enumerate(CODECS, start=len(default)):
        rows[f"ratio to {codec}"] = [column]
        rows[f"recommended and ratio to {codec}"] = [*default, column]
    lines = ["| detector | worst / mean | " + " | ".join(ood), "|---|---|" + "---|" * len(ood)]
    for title, columns in rows.items():
        inliers = log_p["test"][:, columns].sum(1)
        areas = [auroc(inliers, log_p[name][:, columns].sum(1)) for name in ood]
        cells = [f"{min(areas):.3f} / {np.mean(areas):.3f}", *(f"{area:.3f}" for area in areas)]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""Result pages: the table, and everything that is needed to get it again."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from skgradood.evaluation import Comparison

_PACKAGES = ("scikit-learn", "torch", "skorch", "numpy", "scipy")
_METRICS = {
    "auroc": "AUROC (outliers against test images, 1 is best)",
    "fpr95": "False-positive rate where 95 % of the outliers are found (0 is best)",
    "detection_rate": "Share of outliers with p ≤ 0.05 (1 is best)",
}


@dataclass(frozen=True)
class Run:
    """What a result page says about how its numbers came about."""

    train: str
    model: str
    description: str
    seed: int
    n_layers: int
    bits_per_dim: float
    training_seconds: float
    images_per_second: float
    sizes: dict[str, int]
    n_ood: int


def write_results(run: Run, comparison: Comparison, folder: Path) -> str:
    """Write ``folder/ood-<train>-<model>.md`` and return its text."""
    text = "\n".join([*_header(run), *_tables(comparison), *_notes()])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"ood-{run.train}-{run.model}.md").write_text(text + "\n", encoding="utf-8")
    return text


def _header(run: Run) -> list[str]:
    sizes = ", ".join(f"{n} {name}" for name, n in run.sizes.items())
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    command = f"python -m benchmarks.ood --data-dir DIR --train {run.train} --model {run.model}"
    sizes_given = f"--n-test {run.sizes['test']} --n-ood {run.n_ood}"
    return [
        f"# {run.train}, {run.model}",
        "",
        f"```console\n{command} {sizes_given} --seed {run.seed}\n```",
        "",
        f"- Model: {run.description}; {run.bits_per_dim:.3f} bits/dim on test images; "
        f"trained in {run.training_seconds / 60:.0f} min.",
        f"- Features: logarithms of squared norms, diagonal and EKFAC statistics of "
        f"{run.n_layers} parameter tensors, and the log-likelihood. Those of the recommended "
        f"detector beside squared norms: {run.images_per_second:.0f} images/s.",
        f"- Images in-distribution: {sizes}, all disjoint from one another and from the model's "
        f"training images; up to {run.n_ood} of each other set.",
        f"- Machine: {platform.machine()}, {os.cpu_count()} cores. Versions: {versions}, "
        f"Python {platform.python_version()}.",
        "",
    ]


def _tables(comparison: Comparison) -> list[str]:
    lines = []
    for metric, title in _METRICS.items():
        lines += [f"## {title}", "", comparison.to_markdown(metric), ""]
    return lines


def _notes() -> list[str]:
    return [
        "## Notes",
        "",
        "One sample at a time (B = 1). The last row of each table is the false-positive rate on "
        "the test images at alpha = 0.05 after conformal calibration. All sets are on one pixel "
        "grid (0...255); those of another size are resized by PIL bilinear on uint8, and CelebA "
        "comes as JPEG, so low-level cues may do some of the detecting there.",
        "",
        "The control is the recommended detector on gradients of something that is no likelihood "
        "(the sum of the latent variables): what it finds is found without the score.",
    ]

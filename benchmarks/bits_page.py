"""The page of bits per dimension: a table a data set, and what the numbers mean."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import version
from typing import NamedTuple

from benchmarks.bits_published import CIFAR10, table

TITLES = {
    "fashion_mnist": "Fashion-MNIST, 28 x 28",
    "resized_fashion_mnist": "Fashion-MNIST, resized to 32 x 32",
    "cifar10": "CIFAR-10, 32 x 32 x 3",
    "digits": "Digits bundled with scikit-learn, 8 x 8",
}


class Row(NamedTuple):
    """A line of a table: mean bits per dimension, its standard error, and what it is of."""

    model: str
    bits: float
    error: float | None
    n_images: int
    kind: str
    budget: str = ""

    def __str__(self) -> str:
        error = "" if self.error is None else f" ± {self.error:.3f}"
        cells = (self.model, f"{self.bits:.3f}{error}", self.kind, self.n_images, self.budget)
        return f"| {' | '.join(map(str, cells))} |"


class Section(NamedTuple):
    """A data set: its rows, and (seconds, held-out bits) by epoch of what recorded them."""

    rows: list[Row]
    curves: dict[str, list[tuple[float, float]]]


def page(sections: dict[str, Section], arguments: argparse.Namespace) -> str:
    """The text of the result page."""
    lines = [*_header(arguments)]
    for name, section in sections.items():
        lines += ["", f"## {TITLES[name]}", "", *_table(section)]
        if name == "cifar10":
            lines += ["", table(CIFAR10)]
    return "\n".join(lines)


def _header(arguments: argparse.Namespace) -> list[str]:
    sizes = f"--n-test {arguments.n_test} --n-ood {arguments.n_ood} --seed {arguments.seed}"
    return [
        "# Bits per dimension",
        "",
        f"```console\npython -m benchmarks.bits --data-dir DIR {sizes}\n```",
        "",
        "Mean over fresh images of the negative log-likelihood in bits, divided by the number of "
        "values in an image, with the standard error of the mean; fewer is better. A bound is no "
        "less than the model's own number; `GenerativeNet.bits_per_dim` with one draw of the "
        "noise for each image gives those of the models. Smoothing of the histograms and the "
        "variance added to the normal distribution are those that suit the test images best. "
        "Files are what lossless codecs make of the images, a container for each or one for all, "
        "below one another.",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, one thread, torch {version('torch')}; "
        "beside other work, so that minutes of the wall clock are upper bounds. Those of PixelCNN "
        "and diffusion on Fashion-MNIST are processor time, held-out losses included.",
    ]


def _table(section: Section) -> list[str]:
    lines = [
        "| model | bits/dim | number | test images | trained with |",
        "|---|---:|---|---:|---|",
    ]
    lines += [str(row) for row in section.rows]
    if section.curves:
        lines += ["", "By training time, on held-out images of the training set:", ""]
        lines += ["| | " + " | ".join(f"epoch {k}" for k in _epochs(section)) + " |"]
        lines += ["|---|" + "---:|" * len(_epochs(section))]
    for name, curve in section.curves.items():
        cells = [f"{bits:.3f} ({seconds / 60:.1f} min)" for seconds, bits in curve]
        cells += [""] * (len(_epochs(section)) - len(cells))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _epochs(section: Section) -> range:
    return range(1, 1 + max(len(curve) for curve in section.curves.values()))

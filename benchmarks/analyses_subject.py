"""What the analyses look at, and how they print what they find."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.images import Division
from skgradood import GenerativeNet
from skgradood.inspection import RankCorrelationDisplay, SweepDisplay

N_REFERENCE = 1000  # images that detectors are fitted on


@dataclass(frozen=True)
class Subject:
    """A trained model, and the images that it is looked at with."""

    net: GenerativeNet
    division: Division
    arguments: argparse.Namespace

    @property
    def sets(self) -> dict[str, np.ndarray]:
        """Test images first, then the other sets."""
        return {"Fashion-MNIST": self.division.test, **self.division.ood}

    @cached_property
    def log_likelihoods(self) -> dict[str, np.ndarray]:
        """Nats, for every set."""
        return {name: self.net.score_samples(images) for name, images in self.sets.items()}

    @property
    def groups(self) -> np.ndarray:
        """The set of each image, one set after another."""
        return np.concatenate([np.repeat(name, len(X)) for name, X in self.sets.items()])

    @property
    def reference(self) -> np.ndarray:
        """What detectors are fitted on."""
        return self.division.reference[:N_REFERENCE]


def report(header: tuple[str, ...], rows: list[tuple]) -> None:
    """Print a table in Markdown."""
    print(f"\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for name, *values in rows:
        print(f"| {name} | {' | '.join(map(_cell, values))} |")
    print(flush=True)


def report_sweep(display: SweepDisplay) -> None:
    """Print means and spreads, a column a curve."""
    rows = [
        (
            f"{value:g}",
            *(
                x
                for name in display.results
                for x in (display.mean_[name][i], display.spread_[name][i])
            ),
        )
        for i, value in enumerate(display.values)
    ]
    columns = [x for name in display.results for x in (name, "±")]
    report((display.value_name, *columns), rows)


def report_correlations(display: RankCorrelationDisplay) -> None:
    """Print all correlations, a line for each group and row."""
    matrices = {"all samples": display.correlations_, **display.by_group_}
    rows = [
        (f"{group}: {row}", *values)
        for group, matrix in matrices.items()
        for row, values in zip(display.rows, matrix, strict=True)
    ]
    report(("rank correlation", *display.columns), rows)


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"

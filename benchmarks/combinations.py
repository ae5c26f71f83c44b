"""Every combination of detectors by Fisher's method, on every benchmark that has been run.

    python -m benchmarks.combinations --runs fashion_mnist-vae cifar10-glow

reads the tables of features of ``benchmarks/ood.py`` from its cache, fits 17 detectors on each
(four on each of four statistics, and typicality), and ranks all combinations of at most four
by the mean over runs of two figures: the worst AUROC over a run's sets, and the mean AUROC.
It shows how far the recommended detector is from the best that a search on these very sets could
have found.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from benchmarks.detectors import PAPERS_TABLE, RECOMMENDED_TABLE
from benchmarks.features import ROOT, latest
from skgradood import ChiSquareJointDensity, CombinedDetector, ScoreTestDetector
from skgradood.detectors import on_columns

_OWN_PARTS = ("reference", "calibration", "test")
STATISTICS = ("identity", "diagonal", "EKFAC", "EKFAC, power 2")
DEFAULT = (
    "sum of EKFAC, power 2",
    "sum given the likelihood of EKFAC, power 2",
    "joint density of EKFAC, power 2",
    "typicality",
)


class Evidence(NamedTuple):
    """Log p-values (n, K) of all detectors, for test images and for every other set."""

    names: list[str]
    test: np.ndarray
    ood: dict[str, np.ndarray]


class Outcome(NamedTuple):
    """A combination, and (worst, mean) AUROC over the sets of every run."""

    members: tuple[str, ...]
    areas: list[tuple[float, float]]

    @property
    def merit(self) -> float:
        """What combinations are ranked by."""
        return float(np.mean(self.areas))


def main() -> None:
    """Rank the combinations, and print the best and the default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", default=["fashion_mnist-vae", "fashion_mnist-glow"])
    parser.add_argument("--n-best", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache-dir", type=Path, default=ROOT / "benchmarks" / "cache")
    arguments = parser.parse_args()
    runs = [evidence(run, arguments.cache_dir, arguments.seed) for run in arguments.runs]
    ranked = sorted(outcomes(runs), key=lambda outcome: -outcome.merit)
    print(report(ranked, arguments.runs, arguments.n_best))


def evidence(run: str, cache_dir: Path, seed: int) -> Evidence:
    """Fit all detectors on half of the reference, and refer them to the other half."""
    train, model = run.split("-")
    papers = latest(train, model, PAPERS_TABLE, cache_dir)
    recommended = latest(train, model, RECOMMENDED_TABLE, cache_dir)
    n_layers = (len(recommended.names) - 1) // 2
    rows = {
        part: np.hstack(
            [
                recommended.values[part][:, :n_layers],
                papers.values[part][:, : 2 * n_layers],
                recommended.values[part][:, n_layers:],
            ]
        )
        for part in recommended.values
    }
    members = CombinedDetector(detectors(n_layers), random_state=seed)
    members.fit(rows["reference"])
    return Evidence(
        members.detector_names_,
        members.member_scores(rows["test"]),
        {name: members.member_scores(rows[name]) for name in rows if name not in _OWN_PARTS},
    )


def detectors(n_layers: int) -> list[tuple[str, Any]]:
    """Every detector of every statistic, and typicality.

    Columns are n_layers for each of `STATISTICS`, and the log-likelihood.
    """
    likelihood = [len(STATISTICS) * n_layers]
    members: list[tuple[str, Any]] = []
    for k, statistic in enumerate(STATISTICS):
        columns = list(range(k * n_layers, (k + 1) * n_layers))
        both = columns + likelihood
        members += [
            (f"sum of {statistic}", on_columns(columns, ScoreTestDetector(input="log"))),
            (
                f"sum given the likelihood of {statistic}",
                on_columns(both, ScoreTestDetector(input="log", given=-1)),
            ),
            (
                f"joint density of {statistic}",
                on_columns(columns, ChiSquareJointDensity(marginal="normal")),
            ),
            (
                f"one-class SVM of {statistic}",
                on_columns(columns, StandardScaler(), OneClassSVM(nu=0.1)),
            ),
        ]
    typicality = on_columns(likelihood, ChiSquareJointDensity(tail="two-sided"))
    return [*members, ("typicality", typicality)]


def outcomes(runs: list[Evidence]) -> Iterable[Outcome]:
    """All combinations of one to four detectors, whose order by Fisher's method is Σ log p."""
    names = runs[0].names
    for size in range(1, 5):
        for chosen in combinations(range(len(names)), size):
            columns = list(chosen)
            areas = []
            for run in runs:
                inliers = np.sort(run.test[:, columns].sum(1))
                own = [_area(inliers, log_p[:, columns].sum(1)) for log_p in run.ood.values()]
                areas.append((min(own), float(np.mean(own))))
            yield Outcome(tuple(names[k] for k in chosen), areas)


def _area(sorted_inliers: np.ndarray, outliers: np.ndarray) -> float:
    """AUROC; `skgradood.metrics.auroc` would sort the inliers again, 100 000 times."""
    below = np.searchsorted(sorted_inliers, outliers, "left")
    upto = np.searchsorted(sorted_inliers, outliers, "right")
    return 1 - float((below + upto).mean()) / (2 * len(sorted_inliers))


def report(ranked: list[Outcome], runs: list[str], n_best: int) -> str:
    """A table of the best combinations, and where the default stands."""
    lines = [f"| rank | combination | {' | '.join(runs)} |", "|---:|---" + "|---" * len(runs) + "|"]
    for rank, outcome in enumerate(ranked, start=1):
        is_default = set(outcome.members) == set(DEFAULT)
        if rank <= n_best or is_default:
            cells = [f"{worst:.3f} / {mean:.3f}" for worst, mean in outcome.areas]
            title = "; ".join(outcome.members) + (" (**default**)" if is_default else "")
            lines.append(f"| {rank} | {title} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{len(ranked)} combinations."])


if __name__ == "__main__":
    main()

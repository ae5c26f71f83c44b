"""The detectors that the benchmark on rows compares, and their combinations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import OneClassSVM

from skgradood import (
    ChiSquareJointDensity,
    CombinedDetector,
    RoseDetector,
    ScoreTestDetector,
)
from skgradood.metrics import auroc

ROWS = "rows"
LIKELIHOOD = "log-likelihood"
NORMS, DIAGONAL, EKFAC, EKFAC_2 = (
    "identity, power 1", "diagonal, power 1", "ekfac, power 1", "ekfac, power 2",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Scaled rows, and what the flow says of them, by part.

    ``statistics[part][kind]`` are quadratic forms, a column a layer, or the log-likelihood.
    """

    rows: dict[str, np.ndarray]
    statistics: dict[str, dict[str, np.ndarray]]

    def wide(self, part: str) -> tuple[np.ndarray, dict[str, slice]]:
        """All columns of a part side by side, and where those of each kind are."""
        blocks = {ROWS: self.rows[part], **self.statistics[part]}
        ends = np.cumsum([block.shape[1] for block in blocks.values()])
        starts = [0, *ends[:-1]]
        columns = {k: slice(a, b) for k, a, b in zip(blocks, starts, ends, strict=True)}
        return np.hstack(list(blocks.values())), columns


class NeighbourDistance(OutlierMixin, BaseEstimator):
    """The mean distance to the nearest training rows.

    Parameters
    ----------
    n_neighbors : int, default=5
    """

    def __init__(self, n_neighbors: int = 5):
        self.n_neighbors = n_neighbors

    def fit(self, X: Any, y: Any = None) -> NeighbourDistance:
        """Remember the training rows."""
        self.index_ = NearestNeighbors(n_neighbors=min(self.n_neighbors, len(X))).fit(X)
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Minus the mean distance, (n,)."""
        return -self.index_.kneighbors(X)[0].mean(axis=1)


def _published_density(seed: int) -> Any:
    return ChiSquareJointDensity(marginal="lognormal", dependence="independent")


def _joint_density(seed: int) -> Any:
    return ChiSquareJointDensity(marginal="lognormal", dependence="gaussian")


Make = Callable[[int], Any]
# The columns that a detector takes, and the detector, from a seed.
OF_ROWS: dict[str, tuple[str, Make]] = {
    "isolation forest": (ROWS, lambda seed: IsolationForest(random_state=seed)),
    "LOF": (ROWS, lambda seed: LocalOutlierFactor(novelty=True)),
    "one-class SVM": (ROWS, lambda seed: OneClassSVM(nu=0.05)),
    "5 nearest neighbours": (ROWS, lambda seed: NeighbourDistance()),
}
OF_FLOW: dict[str, tuple[str, Make]] = {
    "log-likelihood": (LIKELIHOOD, lambda seed: ChiSquareJointDensity(tail="lower")),
    "typicality": (LIKELIHOOD, lambda seed: ChiSquareJointDensity(tail="two-sided")),
    "joint density, published": (NORMS, _published_density),
    "joint density, log norms": (NORMS, _joint_density),
    "joint density, log EKFAC": (EKFAC, _joint_density),
    "score test, diagonal": (DIAGONAL, lambda seed: ScoreTestDetector()),
    "score test, EKFAC": (EKFAC, lambda seed: ScoreTestDetector()),
    "score test, EKFAC, power 2": (EKFAC_2, lambda seed: ScoreTestDetector()),
    "ROSE, EKFAC": (EKFAC, lambda seed: RoseDetector()),
}
_SHORT = {
    "likelihood": "log-likelihood",
    "score test": "score test, EKFAC",
    "score test (power 2)": "score test, EKFAC, power 2",
    "joint density": "joint density, log EKFAC",
    "LOF": "LOF",
    "neighbours": "5 nearest neighbours",
}
COMBINED = (
    "score test + likelihood",
    "score test (power 2) + likelihood",
    "score test + likelihood + joint density",
    "likelihood + LOF",
    "likelihood + neighbours",
    "likelihood + LOF + neighbours",
    "score test + LOF",
    "score test + likelihood + LOF",
    "score test (power 2) + likelihood + LOF",
    "score test + likelihood + neighbours",
    "score test + likelihood + joint density + LOF",
)


def compared(table: Table, seed: int) -> dict[str, float]:
    """AUROC of every detector, and of combinations by Fisher's method.

    Alone, a detector of rows is fitted on all training rows. In a combination it is fitted on
    the rows that the flow is trained on, and the others are for reference.
    """
    parts = {part: table.wide(part)[0] for part in table.rows}
    columns = table.wide("fit")[1]

    def fitted(name: str, X: np.ndarray) -> Pipeline:
        kind, make = (OF_ROWS | OF_FLOW)[name]
        selection = ColumnTransformer([("selected", "passthrough", columns[kind])])
        return make_pipeline(selection, make(seed)).fit(X)

    members = {name: fitted(name, parts["fit"]) for name in OF_ROWS | OF_FLOW}
    everything = np.concatenate([parts["fit"], parts["reference"]])
    detectors: dict[str, Any] = {name: fitted(name, everything) for name in OF_ROWS}
    detectors |= {name: members[name] for name in OF_FLOW}
    for name in COMBINED:
        chosen = [(short, members[_SHORT[short]]) for short in name.split(" + ")]
        combined = CombinedDetector(chosen, method="fisher", reference="prefit")
        detectors[name] = combined.fit(parts["reference"])
    return {
        name: auroc(
            detector.score_samples(parts["test"]), detector.score_samples(parts["anomalies"])
        )
        for name, detector in detectors.items()
    }

"""Warnings of a detector point at the line that called it, whatever lies between."""

import warnings

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skgradood.detectors import (
    ChiSquareJointDensity,
    CombinedDetector,
    ConformalDetector,
    RoseDetector,
    ScoreTestDetector,
)

X = np.random.default_rng(0).chisquare(5, size=(200, 3))
X[:, 1] = 1.0
MEMBERS = [
    ("scaled", make_pipeline(StandardScaler(), ChiSquareJointDensity())),
    ("rose", RoseDetector()),
]


@pytest.mark.parametrize(
    "detector",
    [
        ChiSquareJointDensity(),
        make_pipeline(StandardScaler(), RoseDetector()),
        CombinedDetector(MEMBERS, random_state=0),
        ConformalDetector(CombinedDetector(MEMBERS, random_state=0), random_state=0),
        ConformalDetector(ScoreTestDetector(), alpha=0.001, random_state=0),
    ],
    ids=["detector", "pipeline", "combined", "nested", "conformal"],
)
def test_the_line_is_the_users(detector):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        detector.fit(X)
    assert told
    assert {warning.filename for warning in told} == {__file__}


def test_through_the_tools_of_scikit_learn():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        cross_val_score(RoseDetector(), X, cv=2, scoring=lambda detector, X: 0.0)
    assert {warning.filename for warning in told} == {__file__}

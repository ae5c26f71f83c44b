"""The recommended detector on a table of Fisher-preconditioned statistics."""

from __future__ import annotations

from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline, make_pipeline

from skgradood.detectors._combined import CombinedDetector
from skgradood.detectors._joint_density import ChiSquareJointDensity
from skgradood.detectors._score_test import ScoreTestDetector

_LOG_LIKELIHOOD = slice(-1, None)
_STATISTICS = slice(0, -1)


def recommended_detector(
    *, contamination: float | str = "auto", random_state: Any = None
) -> CombinedDetector:
    """Make the detector that `skgradood.make_detector` recommends, without its features.

    It takes logarithms of per-layer statistics, gᵀ F^(-power) g, in all columns but the last,
    which is the log-likelihood.

    Parameters
    ----------
    contamination, random_state
        See `CombinedDetector`.

    Returns
    -------
    CombinedDetector
        By Fisher's method, of

        - "score_test": the sum of the statistics, large values being abnormal;
        - "score_test_given_likelihood": the same, compared at equal log-likelihoods;
        - "joint_density": the statistics as jointly log-normal;
        - "typicality": large and small log-likelihoods are abnormal.
    """
    members = [
        ("score_test", on_columns(_STATISTICS, ScoreTestDetector(input="log"))),
        ("score_test_given_likelihood", ScoreTestDetector(input="log", given=-1)),
        ("joint_density", on_columns(_STATISTICS, ChiSquareJointDensity(marginal="normal"))),
        ("typicality", on_columns(_LOG_LIKELIHOOD, ChiSquareJointDensity(tail="two-sided"))),
    ]
    return CombinedDetector(members, contamination=contamination, random_state=random_state)


def on_columns(columns: slice | list[int], *steps: Any) -> Pipeline:
    """Make a pipeline that begins with a choice of columns."""
    return make_pipeline(ColumnTransformer([("selected", "passthrough", columns)]), *steps)

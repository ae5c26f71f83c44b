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

DATA = ("images", "rows")


def recommended_detector(
    *,
    data: str = "images",
    contamination: float | str = "auto",
    random_state: Any = None,
) -> CombinedDetector:
    """Make the detector that `skgradood.make_detector` recommends, without its features.

    It takes logarithms of per-layer statistics, gᵀ F^(-power) g, in all columns but the last,
    which is the log-likelihood.

    Parameters
    ----------
    data : {"images", "rows"}, default="images"
        What the likelihood models. On rows a small likelihood is evidence, and a large one is not.
    contamination, random_state
        See `CombinedDetector`.

    Returns
    -------
    CombinedDetector
        By Fisher's method, of

        - "score_test": the sum of the statistics, large values being abnormal;
        - "joint_density": the statistics as jointly log-normal;
        - for images "score_test_given_likelihood", the sum compared at equal log-likelihoods, and
          "typicality": large and small log-likelihoods are abnormal;
        - for rows "likelihood": small log-likelihoods are abnormal.

    Raises
    ------
    ValueError
        For other data.
    """
    if data not in DATA:
        raise ValueError(f"data must be one of {list(DATA)}; got {data!r}")
    members = [
        ("score_test", on_columns(_STATISTICS, ScoreTestDetector(input="log"))),
        ("joint_density", on_columns(_STATISTICS, ChiSquareJointDensity(marginal="normal"))),
    ]
    if data == "images":
        typicality = ChiSquareJointDensity(tail="two-sided")
        members += [
            ("score_test_given_likelihood", ScoreTestDetector(input="log", given=-1)),
            ("typicality", on_columns(_LOG_LIKELIHOOD, typicality)),
        ]
    else:
        likelihood = ChiSquareJointDensity(tail="lower")
        members.append(("likelihood", on_columns(_LOG_LIKELIHOOD, likelihood)))
    return CombinedDetector(members, contamination=contamination, random_state=random_state)


def on_columns(columns: slice | list[int], *steps: Any) -> Pipeline:
    """Make a pipeline that begins with a choice of columns.

    Parameters
    ----------
    columns : slice or list of int
        Of the table that the pipeline takes. They keep their names.
    *steps : estimator
        What follows, the last of them usually a detector.

    Returns
    -------
    Pipeline
    """
    selection = ColumnTransformer(
        [("selected", "passthrough", columns)], verbose_feature_names_out=False
    )
    return make_pipeline(selection, *steps)

"""The detectors that demo and benchmark compare, on one table of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import OneClassSVM

from skgradood.detectors import ChiSquareJointDensity

OURS = "joint density (ours)"


def baseline_detectors(feature_names: Sequence[str], *, random_state: Any = None) -> dict[str, Any]:
    """Make unfitted detectors of one feature table, from likelihood alone to our default.

    The table has log squared norms in all columns but the last, which is the log-likelihood:
    ``GradientNormTransformer(estimator, output="log", log_likelihood_column=True)``.

    Parameters
    ----------
    feature_names : sequence of L + 1 str
        Names of the columns; the last must be "log_likelihood".
    random_state : int, RandomState or None, default=None
        Seed of the isolation forest.

    Returns
    -------
    dict from str to estimator
        - "log-likelihood": small values are outliers;
        - "two-sided likelihood": small and large values are (the typicality test at B = 1 [1]_);
        - "joint density (published)": independent log-normal squared norms [2]_, no
          log-likelihood;
        - "one-class SVM" and "isolation forest": on the log squared norms [2]_;
        - "joint density (ours)": covariance-aware, on log squared norms and log-likelihood.

    Raises
    ------
    ValueError
        If the last column is not the log-likelihood, or is the only one.

    References
    ----------
    .. [1] Nalisnick, Matsukawa, Teh and Lakshminarayanan, "Detecting Out-of-Distribution Inputs to
       Deep Generative Models Using Typicality", 2019.
    .. [2] Dauncey, Holmes, Williams and Falck, "Approximations to the Fisher Information Metric of
       Deep Generative Models for Out-Of-Distribution Detection", TMLR 2024.
    """
    names = list(feature_names)
    if len(names) < 2 or names[-1] != "log_likelihood":
        raise ValueError(
            "the columns must be log squared norms and, last, 'log_likelihood'; got "
            f"{names[-3:]}. Use GradientNormTransformer(output='log', log_likelihood_column=True)."
        )
    norms, likelihood = slice(0, len(names) - 1), slice(len(names) - 1, len(names))
    return {
        "log-likelihood": make_pipeline(
            _select(likelihood), ChiSquareJointDensity(marginal="normal", tail="lower")
        ),
        "two-sided likelihood": make_pipeline(
            _select(likelihood), ChiSquareJointDensity(marginal="normal", tail="two-sided")
        ),
        "joint density (published)": make_pipeline(
            _select(norms),
            FunctionTransformer(np.exp),  # the published density is one of the norms themselves
            ChiSquareJointDensity(marginal="lognormal", dependence="independent"),
        ),
        "one-class SVM": _on_scaled_norms(norms, OneClassSVM(nu=0.05)),
        "isolation forest": _on_scaled_norms(norms, IsolationForest(random_state=random_state)),
        OURS: make_pipeline(ChiSquareJointDensity(marginal="normal", dependence="gaussian")),
    }


def _on_scaled_norms(norms: slice, detector: Any) -> Pipeline:
    return make_pipeline(_select(norms), StandardScaler(), detector)


def _select(columns: slice) -> ColumnTransformer:
    return ColumnTransformer([("selected", "passthrough", columns)])

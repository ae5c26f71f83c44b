"""The detectors that demo and benchmark compare, on one table of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import OneClassSVM

from skgradood.detectors import ChiSquareJointDensity, on_columns, recommended_detector

RECOMMENDED = "recommended"
_NORMS, _PRECONDITIONED = "__identity", "__ekfac"


def baseline_detectors(feature_names: Sequence[str], *, random_state: Any = None) -> dict[str, Any]:
    """Make unfitted detectors of one feature table, from likelihood alone to our recommendation.

    The table is that of ``FisherPreconditioner(estimator, approximation=("identity", "ekfac"),
    power=2, output="log", log_likelihood_column=True)``: one backward pass for all of them.

    Parameters
    ----------
    feature_names : sequence of 2 L + 1 str
        Names of the columns.
    random_state : int, RandomState or None, default=None
        Seed of the isolation forest and of our recommendation.

    Returns
    -------
    dict from str to estimator
        - "log-likelihood": small values are outliers;
        - "two-sided likelihood": small and large values are (the typicality test at B = 1 [1]_);
        - "joint density (published)": independent log-normal squared norms [2]_, no
          log-likelihood;
        - "one-class SVM" and "isolation forest": on the log squared norms [2]_;
        - "joint density (dependent)": covariance-aware, on log squared norms and log-likelihood;
        - "recommended": what `skgradood.make_detector` makes, on the preconditioned columns.

    Raises
    ------
    ValueError
        If the columns are not those of that table.

    References
    ----------
    .. [1] Nalisnick, Matsukawa, Teh and Lakshminarayanan, "Detecting Out-of-Distribution Inputs to
       Deep Generative Models Using Typicality", 2019.
    .. [2] Dauncey, Holmes, Williams and Falck, "Approximations to the Fisher Information Metric of
       Deep Generative Models for Out-Of-Distribution Detection", TMLR 2024.
    """
    norms, preconditioned, likelihood = _columns(list(feature_names))
    return {
        "log-likelihood": on_columns(likelihood, ChiSquareJointDensity(tail="lower")),
        "two-sided likelihood": on_columns(likelihood, ChiSquareJointDensity(tail="two-sided")),
        "joint density (published)": on_columns(
            norms,
            # The published density is one of the norms themselves.
            FunctionTransformer(np.exp, feature_names_out="one-to-one"),
            ChiSquareJointDensity(marginal="lognormal", dependence="independent"),
        ),
        "one-class SVM": on_columns(norms, StandardScaler(), OneClassSVM(nu=0.05)),
        "isolation forest": on_columns(
            norms, StandardScaler(), IsolationForest(random_state=random_state)
        ),
        "joint density (dependent)": on_columns([*norms, *likelihood], ChiSquareJointDensity()),
        RECOMMENDED: on_columns(
            [*preconditioned, *likelihood], recommended_detector(random_state=random_state)
        ),
    }


def _columns(names: list[str]) -> tuple[list[int], list[int], list[int]]:
    """Find the columns of norms, of preconditioned statistics, and of the log-likelihood."""
    norms = [k for k, name in enumerate(names) if name.endswith(_NORMS)]
    preconditioned = [k for k, name in enumerate(names) if name.endswith(_PRECONDITIONED)]
    likelihood = [k for k, name in enumerate(names) if name == "log_likelihood"]
    if not (norms and preconditioned and len(likelihood) == 1):
        raise ValueError(
            f"the columns must be '<layer>{_NORMS}', '<layer>{_PRECONDITIONED}' and "
            f"'log_likelihood'; got {names[:2]} to {names[-2:]}. Use FisherPreconditioner("
            "approximation=('identity', 'ekfac'), power=2, output='log', "
            "log_likelihood_column=True)."
        )
    return norms, preconditioned, likelihood

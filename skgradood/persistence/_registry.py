"""What a saved detector may be made of.

Names from a file are looked up here and nowhere else; they are never imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np

from skgradood.objectives import kl_to_uniform, predicted_label_log_prob

# Classes of scikit-learn whose fitted state is numbers, strings and arrays.
_SKLEARN = {
    "sklearn.compose": ("ColumnTransformer",),
    "sklearn.covariance": ("EllipticEnvelope", "EmpiricalCovariance", "LedoitWolf", "MinCovDet"),
    "sklearn.decomposition": ("PCA",),
    "sklearn.ensemble": ("IsolationForest",),
    "sklearn.frozen": ("FrozenEstimator",),
    "sklearn.mixture": ("GaussianMixture",),
    "sklearn.neighbors": ("LocalOutlierFactor",),
    "sklearn.pipeline": ("FeatureUnion", "Pipeline"),
    "sklearn.preprocessing": (
        "FunctionTransformer", "MinMaxScaler", "PowerTransformer", "QuantileTransformer",
        "RobustScaler", "StandardScaler",
    ),
    "sklearn.svm": ("OneClassSVM",),
}  # fmt: skip
_OPTIMIZERS = {"torch.optim": ("Adam", "AdamW", "Adamax", "RAdam", "NAdam", "RMSprop", "SGD")}
_INTERNAL = {
    "skgradood.fisher.approximation": ("FisherOptions",),
    "skgradood.fisher.basis": ("KroneckerBasis",),
    "skgradood.fisher.diagonal": ("Diagonal", "Identity"),
    "skgradood.fisher.estimate": ("FisherEstimate",),
    "skgradood.fisher.halves": ("Halves",),
    "skgradood.fisher.kronecker": ("EKFAC", "KFAC", "Block"),
    "skgradood.fisher.sketch": ("Sketch",),
    "skgradood.models._fitted": ("LikelihoodModel",),
}
_TABLE = _SKLEARN | _OPTIMIZERS | _INTERNAL
# Every public class of these rooms can be saved.
_ROOMS = ("skgradood.detectors", "skgradood.features", "skgradood.models")
_FUNCTIONS: dict[str, Callable] = {
    f"numpy.{function.__name__}": function
    for function in (np.exp, np.expm1, np.log, np.log1p, np.sqrt, np.abs)
} | {
    f"{function.__module__}.{function.__name__}": function
    for function in (kl_to_uniform, predicted_label_log_prob)
}


def find_class(name: str) -> type | None:
    """Return the known class of this public name, or None."""
    module, _, attribute = name.rpartition(".")
    if attribute not in _public_names(module):
        return None
    found = getattr(importlib.import_module(module), attribute)
    return found if isinstance(found, type) else None


def class_name(cls: type) -> str | None:
    """Return the public name under which a class is known, or None."""
    for module in (*_TABLE, *_ROOMS):
        name = f"{module}.{cls.__name__}"
        if cls.__module__.startswith(module) and find_class(name) is cls:
            return name
    return None


def find_function(name: str) -> Callable | None:
    """Return the known function of this name, or None."""
    return _FUNCTIONS.get(name)


def function_name(function: Callable) -> str | None:
    """Return the name under which a function is known, or None."""
    return next((name for name, known in _FUNCTIONS.items() if known is function), None)


def _public_names(module: str) -> tuple[str, ...]:
    if module in _ROOMS:
        return tuple(importlib.import_module(module).__all__)
    return _TABLE.get(module, ())

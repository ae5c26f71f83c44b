"""Per-layer features of several sets of samples, checked, or measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from skgradood.features import GradientNormTransformer
from skgradood.models import GenerativeNet


def frozen(estimator: Any) -> Any:
    """Keep a fitted GenerativeNet from being cloned and trained anew; others pass as they are."""
    if isinstance(estimator, GenerativeNet):
        check_is_fitted(estimator)
        return FrozenEstimator(estimator)
    return estimator


def measure(
    estimator: Any, sets: Mapping[str, Any], *, output: str, **options: Any
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Measure the gradient norms of several sets.

    Parameters
    ----------
    estimator : GenerativeNet, FrozenEstimator or nn.Module
        A fitted likelihood model.
    sets : mapping of str to array-like
        Samples by the name of their set.
    output : {"squared_norm", "log"}
        What to return.
    **options
        Other options of `GradientNormTransformer`.

    Returns
    -------
    features : dict of str to ndarray of shape (n, L)
        By the name of the set.
    names : list of str
        Of the L columns.
    """
    if not isinstance(sets, Mapping) or not sets:
        raise ValueError(f"expected a mapping from names to samples, not empty; got {sets!r}")
    transformer = GradientNormTransformer(frozen(estimator), output=output, **options)
    transformer.fit(next(iter(sets.values())))
    features = {name: transformer.transform(X) for name, X in sets.items()}
    return features, list(transformer.get_feature_names_out())


def check_sets(
    features: Mapping[str, Any], layer_names: Sequence[str] | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Check features of several sets: finite, and of the same layers.

    Parameters
    ----------
    features : mapping of str to array-like of shape (n, L)
        By the name of the set.
    layer_names : sequence of str or None
        Names of the L columns; the columns of a DataFrame, or numbers, if None.

    Returns
    -------
    features : dict of str to ndarray of shape (n, L), float64
    names : list of str

    Raises
    ------
    ValueError
        If a set is not a finite matrix, or sets or names differ in the number of layers.
    """
    if not isinstance(features, Mapping) or not features:
        raise ValueError(
            f"features must be a mapping from names of sets to arrays (n, L), not empty; got "
            f"{type(features).__name__}"
        )
    first = next(iter(features.values()))
    arrays = {
        str(name): check_array(X, dtype=np.float64, input_name=f"features[{name!r}]")
        for name, X in features.items()
    }
    widths = {name: array.shape[1] for name, array in arrays.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"all sets must have the same layers as columns; their numbers: {widths}")
    n_layers = next(iter(widths.values()))
    names = list(map(str, getattr(first, "columns", range(n_layers))))
    if layer_names is not None:
        names = list(map(str, layer_names))
    if len(names) != n_layers:
        raise ValueError(f"the features have {n_layers} columns, but layer_names has {len(names)}")
    return arrays, names

"""Models trained earlier, as a start for training or to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn


def pretrained_module(model: Any, name: str) -> nn.Module:
    """The module of a fitted model, not copied.

    Parameters
    ----------
    model : GenerativeNet, FrozenEstimator or nn.Module
        A fitted net, as it is or inside ``sklearn.frozen.FrozenEstimator``, or a module.
    name : str
        What error messages call the option.

    Raises
    ------
    TypeError
        If it is something else, or has no ``log_prob``.
    NotFittedError
        If the net has not been fitted.
    """
    estimator = module = _thawed(model)
    if not isinstance(estimator, nn.Module) and hasattr(estimator, "bits_per_dim"):
        check_is_fitted(
            estimator,
            msg=f"{name} must be fitted, but this %(name)s is not. Put a fitted one inside "
            "sklearn.frozen.FrozenEstimator: clone() and cross-validation then leave it as it is.",
        )
        module = estimator.module_
    if not isinstance(module, nn.Module) or not callable(getattr(module, "log_prob", None)):
        raise TypeError(
            f"{name} must be a fitted GenerativeNet, such a one inside "
            "sklearn.frozen.FrozenEstimator, or a torch.nn.Module with log_prob(X) -> (n,); got "
            f"{type(estimator).__name__}"
        )
    return module


def pretrained_names(model: Any) -> Sequence[str] | None:
    """Names of the columns that such a model was fitted on, if they had any."""
    return getattr(_thawed(model), "feature_names_in_", None)


def copy_weights(model: Any, module: nn.Module) -> None:
    """Give ``module`` the parameters and buffers of a fitted model.

    Parameters
    ----------
    model : GenerativeNet, FrozenEstimator or nn.Module
        As for `pretrained_module`. Not changed.
    module : nn.Module
        Changed in place; keeps its own dtype. With ``adapted(state) -> state`` it can take the
        state of a somewhat different one.

    Raises
    ------
    ValueError
        If the two do not have the same tensors.
    """
    source = pretrained_module(model, "initial_model").state_dict()
    if hasattr(module, "adapted"):
        source = cast("Callable[..., Any]", module.adapted)(source)
    target = module.state_dict()
    different = sorted(
        key
        for key in source.keys() | target.keys()
        if getattr(source.get(key), "shape", None) != getattr(target.get(key), "shape", None)
    )
    if different:
        raise ValueError(
            f"the weights of initial_model do not fit this {type(module).__name__}: "
            f"{', '.join(different[:5])} {'and others are' if different[5:] else 'is or are'} "
            "missing in one of the two, or of another shape. Use the same module, arguments and "
            "size of samples."
        )
    module.load_state_dict(source)


def _thawed(model: Any) -> Any:
    return model.estimator if isinstance(model, FrozenEstimator) else model

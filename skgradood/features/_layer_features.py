"""What the transformers from samples to one column a layer have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from skgradood.gradients import ENGINES, GradientEngine, layer_layout
from skgradood.gradients.layers import LayerLayout, Layers, check_layers
from skgradood.gradients.precision import AUTOCAST
from skgradood.models._batches import resolve_device
from skgradood.models._fitted import LikelihoodModel, fit_likelihood
from skgradood.models._portable import PortableState
from skgradood.utils.groups import split_groups
from skgradood.utils.seeds import fixed_seed
from skgradood.utils.validation import check_and_remember_samples

LOG_LIKELIHOOD = "log_likelihood"

# The least squared norm that has a logarithm: a layer of zeros stays a constant, finite column.
_LEAST_NORM = np.finfo(np.float64).tiny


class LayerFeatures(PortableState, TransformerMixin, BaseEstimator):
    """Base of the transformers around a likelihood model whose columns belong to layers.

    A subclass has the parameters that `_parameter_constraints` lists here among its own.
    """

    estimator: Any
    layers: Layers
    log_likelihood: str | Callable
    log_likelihood_column: bool
    engine: str
    batch_size: int | str
    device: str | torch.device
    verify: bool
    random_state: Any
    grouped: bool
    autocast: str | None
    likelihood_model_: LikelihoodModel
    layer_names_: list[str]
    n_parameters_: np.ndarray

    _parameter_constraints: ClassVar[dict[str, list]] = {
        "estimator": [object],
        "layers": [str, re.Pattern, callable, Mapping],
        "log_likelihood": [str, callable],
        "log_likelihood_column": ["boolean"],
        "engine": [StrOptions(set(ENGINES))],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "verify": ["boolean"],
        "random_state": ["random_state"],
        "grouped": ["boolean"],
        "autocast": [StrOptions(set(AUTOCAST)), None],
    }

    def _fit_model(self, X: Any) -> Tensor:
        """Fit the likelihood model and the layers; return its input for X, (n, ...)."""
        check_layers(self.layers)  # before the model is trained
        resolve_device(self.device)
        X, n_groups, group_size = self._split(X)
        samples = check_and_remember_samples(self, X, reset=True)
        self.likelihood_model_ = fit_likelihood(
            self.estimator,
            X,
            log_likelihood=self.log_likelihood,
            feature_names=getattr(self, "feature_names_in_", None),
        )
        inputs = self.likelihood_model_.prepare(samples, reset=True)
        layout = self._layout()
        self.layer_names_ = layout.names
        self.n_parameters_ = np.array(layout.n_parameters, dtype=np.int64)
        self._seed = fixed_seed(self.random_state)
        return self._in_groups(inputs, n_groups, group_size)

    def _model_inputs(self, X: Any) -> Tensor:
        """The fitted model's input for X, (n, ...) or (n_groups, B, ...)."""
        X, n_groups, group_size = self._split(X)
        samples = check_and_remember_samples(self, X, reset=False)
        inputs = self.likelihood_model_.prepare(samples)
        return self._in_groups(inputs, n_groups, group_size)

    def _layout(self) -> LayerLayout:
        return layer_layout(self.likelihood_model_.module, self.layers)

    def _gradient_engine(self, *, grouped: bool) -> GradientEngine:
        return GradientEngine(
            self.likelihood_model_.module,
            log_likelihood=self.log_likelihood,
            engine=self.engine,
            batch_size=self.batch_size,
            verify=self.verify,
            device=resolve_device(self.device),
            random_state=self._seed,
            grouped=grouped,
            parameters=self._layout().slots,
            autocast=self.autocast,
        )

    def _table(self, features: np.ndarray, log_likelihoods: np.ndarray, log: bool) -> np.ndarray:
        """Features or their logarithms, and the log-likelihood if it was asked for."""
        if log:
            features = np.log(np.maximum(features, _LEAST_NORM))
        if self.log_likelihood_column:
            features = np.column_stack([features, log_likelihoods])
        return features

    def _names(self, names: list[str]) -> np.ndarray:
        extra = [LOG_LIKELIHOOD] if self.log_likelihood_column else []
        return np.array([*names, *extra], dtype=object)

    def _split(self, X: Any) -> tuple[Any, int, int]:
        """Samples, and how many groups of how many they make."""
        return split_groups(X) if self.grouped else (X, 0, 1)

    def _in_groups(self, inputs: Tensor, n_groups: int, group_size: int) -> Tensor:
        return inputs.unflatten(0, (n_groups, group_size)) if self.grouped else inputs

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

"""What a trained module says of samples, and the samples that it draws."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from numbers import Integral
from typing import Any, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skgradood.gradients import LogLikelihood
from skgradood.gradients.state import isolated_rng
from skgradood.models._batches import draw_seed, evaluate_in_batches, sample_in_batches
from skgradood.models._classes import encode_labels
from skgradood.models._inputs import as_module_input
from skgradood.models._row_noise import with_row_noise


def _knows_classes(estimator: Any) -> bool:
    return hasattr(estimator, "classes_")


class TrainedModule(BaseEstimator):
    """Mixin of an estimator that holds a trained module in ``module_``."""

    module_: nn.Module
    classes_: np.ndarray
    batch_size: int
    n_features_in_: int

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-likelihood of every sample.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray of shape (n,), float64
            Nats, summed over the dimensions of a sample.
        """
        check_is_fitted(self)
        return self._evaluate(cast("Callable[[Tensor], Tensor]", self.module_.log_prob), X)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-likelihood in nats.

        Parameters
        ----------
        X : array-like
            As in `fit`.
        y : ignored
            Part of scikit-learn's convention.

        Returns
        -------
        float
        """
        return float(self.score_samples(X).mean())

    def bits_per_dim(self, X: Any, *, n_draws: int | None = 1, random_state: int = 0) -> np.ndarray:
        """Negative log-likelihood in bits, divided by the number of dimensions.

        A module may bound the log-likelihood of discrete images through noise: ``elbo(X,
        generator)`` of `Glow` is the density under uniform dequantisation, that of `VAE` the bound
        with a draw from the posterior. Published bits per dimension are means of such bounds, and
        so are these: on average no fewer than those of the log-likelihood. `score_samples` is free
        of noise, at a point where the density may be larger. Other modules have but one number.

        Parameters
        ----------
        X : array-like
            As in `fit`.
        n_draws : int or None, default=1
            Draws of the noise to average over; more make each image's number less noisy. None:
            the noise-free ``log_prob``, which is no bound.
        random_state : int, default=0
            Seeds the noise, together with each sample's own content.

        Returns
        -------
        ndarray of shape (n,), float64

        Raises
        ------
        ValueError
            If n_draws is neither a positive integer nor None.
        """
        check_is_fitted(self)
        if n_draws is not None and (not isinstance(n_draws, Integral) or n_draws < 1):
            raise ValueError(f"n_draws must be a positive integer or None; got {n_draws!r}")
        if n_draws is None or not callable(getattr(self.module_, "elbo", None)):
            nats = self.score_samples(X)
        else:
            nats = self._mean_bounds(X, int(n_draws), random_state)
        return -nats / (self.n_features_in_ * math.log(2))

    def _mean_bounds(self, X: Any, n_draws: int, random_state: int) -> np.ndarray:
        """The mean of the module's ``elbo`` over draws of noise that belong to the sample, (n,)."""
        bound = LogLikelihood("elbo", random_state)

        def mean_bound(module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
            return torch.stack([bound(module, X, generator) for _ in range(n_draws)]).mean(dim=0)

        with isolated_rng():
            return self._evaluate(
                lambda batch: with_row_noise(mean_bound, self.module_, batch, bound.row_seeds), X
            )

    def sample(self, n: int, random_state: Any = None, *, label: Any = None) -> np.ndarray:
        """Draw samples from the model.

        Parameters
        ----------
        n : int
            How many.
        random_state : int, RandomState or None, default=None
            Seed of the draw.
        label : label or None, default=None
            One of ``classes_``, to draw from it alone.

        Returns
        -------
        ndarray of shape (n, ...)
            uint8 from a model of images, the module's floating dtype from one of rows.

        Raises
        ------
        AttributeError
            If the module has no ``sample`` method.
        ValueError
            If the label is none of the classes.
        """
        check_is_fitted(self)
        return sample_in_batches(
            self.module_,
            n,
            batch_size=self.batch_size,
            seed=draw_seed(random_state),
            **self._sampled_class(label),
        )

    @available_if(_knows_classes)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes given samples; after training with labels.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray of shape (n, n_classes), float64
            Columns in the order of ``classes_``.
        """
        return self._evaluate(cast("Callable[[Tensor], Tensor]", self.module_.class_posterior), X)

    def _evaluate(self, function: Callable[[Tensor], Tensor], X: Any) -> np.ndarray:
        return evaluate_in_batches(
            function,
            as_module_input(self._check_samples(X, reset=False), self.module_),
            batch_size=self.batch_size,
            device=next(self.module_.parameters()).device,
        )

    @abstractmethod
    def _check_samples(self, X: Any, *, reset: bool) -> np.ndarray:
        """Validate samples, and remember their shape on ``reset``."""

    def _sampled_class(self, label: Any) -> dict[str, int]:
        """What a module's ``sample`` is told of a label."""
        if label is None:
            return {}
        if not _knows_classes(self):
            raise ValueError(f"label={label!r} was asked for, but the model has no classes")
        (number,) = encode_labels([label], self.classes_, 1, self.module_)
        return {"label": int(number)}

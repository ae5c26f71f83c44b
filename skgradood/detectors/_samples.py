"""What detectors share that take images or rows themselves, not features of them."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions

from skgradood.detectors._base import CONTAMINATION_CONSTRAINT, Detector
from skgradood.models._evaluation import log_likelihoods
from skgradood.models._fitted import LikelihoodModel, check_likelihood, fit_likelihood
from skgradood.models._portable import PortableState
from skgradood.utils.groups import split_groups
from skgradood.utils.seeds import fixed_seed
from skgradood.utils.validation import check_and_remember_samples

SAMPLE_CONSTRAINTS: dict[str, list] = {
    "contamination": CONTAMINATION_CONSTRAINT,
    "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "device": [str, torch.device],
    "random_state": ["random_state"],
    "grouped": ["boolean"],
}


class SampleDetector(PortableState, Detector):
    """Base of detectors of images or rows, or of groups of them.

    A subclass has the options of `SAMPLE_CONSTRAINTS`.
    """

    contamination: float | str
    batch_size: int | str
    device: str | torch.device
    random_state: Any
    grouped: bool

    def _take(self, X: Any, *, reset: bool) -> tuple[np.ndarray, int]:
        """Checked samples one after another, and how many of them make a row of X."""
        group_size = 1
        if self.grouped:
            X, _, group_size = split_groups(X)
        if reset:
            self._seed = fixed_seed(self.random_state)
        return check_and_remember_samples(self, X, reset=reset), group_size

    def _fit_model(
        self, estimator: Any, samples: np.ndarray, log_likelihood: str | Callable = "log_prob"
    ) -> LikelihoodModel:
        """A likelihood model, trained if it is not, that takes samples like these."""
        model = fit_likelihood(
            estimator,
            samples,
            log_likelihood=log_likelihood,
            feature_names=getattr(self, "feature_names_in_", None),
        )
        model.prepare(samples[:1], reset=True)
        return model

    def _check_model(self, estimator: Any, name: str, log_likelihood: str | Callable) -> None:
        """Refuse what `_fit_model` would refuse, by the name that the user knows."""
        check_likelihood(
            estimator,
            name=name,
            log_likelihood=log_likelihood,
            feature_names=getattr(self, "feature_names_in_", None),
        )

    def _log_likelihoods(
        self, model: LikelihoodModel, samples: np.ndarray, log_likelihood: str | Callable
    ) -> np.ndarray:
        """Log-likelihoods in nats, (n,), as the model gives them."""
        return log_likelihoods(
            model,
            samples,
            log_likelihood=log_likelihood,
            batch_size=self.batch_size,
            device=self.device,
            random_state=self._seed,
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def or_impossible(log_likelihoods: np.ndarray) -> np.ndarray:
    """Log-likelihoods in which NaN and +inf, a model's numerical breakdown, count as -inf."""
    return np.where(np.isfinite(log_likelihoods), log_likelihoods, -np.inf)


def group_means(values: np.ndarray, group_size: int) -> np.ndarray:
    """Mean over each group of consecutive values, (n * group_size,) to (n,)."""
    # Shares are added, so that values near the largest number do not overflow.
    return (values.reshape(-1, group_size) / group_size).sum(axis=1)

"""The transformer from samples to their log-likelihood."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skgradood.features._layer_features import LOG_LIKELIHOOD
from skgradood.models._batches import resolve_device
from skgradood.models._evaluation import log_likelihood_contributions, log_likelihoods
from skgradood.models._fitted import fit_likelihood
from skgradood.models._portable import PortableState
from skgradood.utils.atomic import untouched_by_failure
from skgradood.utils.groups import split_groups
from skgradood.utils.seeds import fixed_seed
from skgradood.utils.validation import check_and_remember_samples


class LogLikelihoodTransformer(PortableState, TransformerMixin, BaseEstimator):
    """Turn images or rows into their log-likelihood, or into what a flow's parts contribute to it.

    The values are those of the log-likelihood column of `GradientNormTransformer`, without its
    gradients. Two-sided deviations of one column are the typicality test at B = 1:
    ``make_pipeline(LogLikelihoodTransformer(net), ChiSquareJointDensity(tail="two-sided"))``.

    Parameters
    ----------
    estimator : GenerativeNet, FrozenEstimator or nn.Module
        The likelihood model. An unfitted `GenerativeNet` is cloned and fitted in ``fit``; one
        inside ``sklearn.frozen.FrozenEstimator``, and a module, are used as they are.
    contributions : bool, default=False
        Whether to give, in place of the log-likelihood, the S columns of the module's
        ``log_prob_contributions(X) -> (n, S)``, which sum to it. For `Glow`: one a scale, finest
        first, the log-density of the latent variables that leave there and the log-determinants
        of its steps. For `RealNVP`: log-density of the latent variables, log-determinant.
    log_likelihood : str or callable, default="log_prob"
        The name of a method of the module, or a callable ``(module, X, generator) -> (n,)``. Must
        be "log_prob" for contributions.
    batch_size : int or "auto", default="auto"
        Samples a pass.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is CUDA where there is one, else the CPU.
    random_state : int, RandomState or None, default=None
        Seed of whatever noise the log-likelihood draws; None is a fixed seed, too. Each sample's
        noise depends on the seed and its own content alone, and is that of
        `GradientNormTransformer` for the same seed.
    grouped : bool, default=False
        Whether X holds groups of samples, (n, B, ...), as `skgradood.utils.make_groups` makes
        them: values are summed over a group.

    Attributes
    ----------
    likelihood_model_ : LikelihoodModel
        The fitted model.
    n_columns_ : int
        1, or the number S of contributions.
    n_features_in_ : int
        Values in a sample.
    feature_names_in_ : ndarray of str
        Names of the input's columns, if X was a DataFrame.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood import GenerativeNet
    >>> from skgradood.features import LogLikelihoodTransformer
    >>> from skgradood.models import RealNVP
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> net = GenerativeNet(RealNVP, max_epochs=1, random_state=0)
    >>> LogLikelihoodTransformer(net).fit_transform(X).shape
    (200, 1)
    >>> LogLikelihoodTransformer(net, contributions=True).fit_transform(X).shape
    (200, 2)
    """

    _parameter_constraints: dict[str, list] = {
        "estimator": [object],
        "contributions": ["boolean"],
        "log_likelihood": [str, callable],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "grouped": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        contributions: bool = False,
        log_likelihood: str | Callable = "log_prob",
        batch_size: int | str = "auto",
        device: str | torch.device = "auto",
        random_state: Any = None,
        grouped: bool = False,
    ) -> None:
        self.estimator = estimator
        self.contributions = contributions
        self.log_likelihood = log_likelihood
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.grouped = grouped

    # The inner estimator validates its own parameters when it is fitted.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> LogLikelihoodTransformer:
        """Fit the likelihood model, unless it comes fitted.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, H, W), (n, C, H, W) or (n, H, W, C)
            Rows, or uint8 images; groups of them, (n, B, ...), under ``grouped=True``.
        y : ignored
            Part of scikit-learn's convention.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If ``estimator`` is none of what is expected, or has no such log-likelihood or no
            contributions.
        ValueError
            If X is not what the model takes, or contributions of another log-likelihood than
            "log_prob" are asked for.
        """
        if self.contributions and self.log_likelihood != "log_prob":
            raise ValueError(
                "contributions=True gives the parts of log_prob(X); leave log_likelihood at "
                f'"log_prob"; got {self.log_likelihood!r}'
            )
        with untouched_by_failure(self):
            resolve_device(self.device)  # before the model is trained
            samples, _ = self._samples(X, reset=True)
            model = fit_likelihood(
                self.estimator,
                self._ungrouped(X)[0],
                log_likelihood=self.log_likelihood,
                feature_names=getattr(self, "feature_names_in_", None),
            )
            model.prepare(samples[:1], reset=True)
            self._seed = fixed_seed(self.random_state)
            self.likelihood_model_ = model
            self.n_columns_ = self._contributions(samples[:1]).shape[1] if self.contributions else 1
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Compute the log-likelihood of samples, or its contributions.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray of shape (n, 1) or (n, S), float64
            Nats; -inf, inf and NaN as the model returned them.

        Raises
        ------
        ValueError
            If X is not what the model takes.
        """
        check_is_fitted(self)
        samples, group_size = self._samples(X, reset=False)
        if self.contributions:
            parts = self._contributions(samples)
            return parts.reshape(-1, group_size, parts.shape[1]).sum(axis=1)
        return log_likelihoods(
            self.likelihood_model_,
            samples,
            log_likelihood=self.log_likelihood,
            batch_size=self.batch_size,
            device=self.device,
            random_state=self._seed,
            group_size=group_size if self.grouped else None,
        )[:, None]

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns.

        Parameters
        ----------
        input_features : ignored
            Part of scikit-learn's convention.

        Returns
        -------
        ndarray of str
        """
        check_is_fitted(self)
        if not self.contributions:
            return np.array([LOG_LIKELIHOOD], dtype=object)
        names = [f"{LOG_LIKELIHOOD}_contribution{i}" for i in range(self.n_columns_)]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _ungrouped(self, X: Any) -> tuple[Any, int]:
        """Samples, and how many of them make a group."""
        if not self.grouped:
            return X, 1
        samples, _, group_size = split_groups(X)
        return samples, group_size

    def _samples(self, X: Any, *, reset: bool) -> tuple[np.ndarray, int]:
        X, group_size = self._ungrouped(X)
        return check_and_remember_samples(self, X, reset=reset), group_size

    def _contributions(self, samples: np.ndarray) -> np.ndarray:
        return log_likelihood_contributions(
            self.likelihood_model_, samples, batch_size=self.batch_size, device=self.device
        )

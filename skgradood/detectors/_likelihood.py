"""Detectors by the log-likelihood alone: small values, or values unlike those of inliers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skgradood.detectors._base import contamination_offset
from skgradood.detectors._reference import two_sided_log_p
from skgradood.detectors._samples import (
    SAMPLE_CONSTRAINTS,
    SampleDetector,
    group_means,
    or_impossible,
)
from skgradood.utils.atomic import untouched_by_failure
from skgradood.utils.warn import warn_user


class LogLikelihoodDetector(SampleDetector):
    """Call samples outliers that the model finds improbable.

    The score of a sample is its log-likelihood. As a detector of foreign images it is known to
    fail: models often find simpler images more probable than those they were trained on [1]_. It
    is here to be compared with, and as a member of combinations.

    Parameters
    ----------
    estimator : GenerativeNet, FrozenEstimator or nn.Module
        The likelihood model. An unfitted `GenerativeNet` is cloned and fitted in ``fit``; one
        inside ``sklearn.frozen.FrozenEstimator``, and a module, are used as they are.
    log_likelihood : str or callable, default="log_prob"
        The name of a method of the module, or a callable ``(module, X, generator) -> (n,)``.
    contamination : "auto" or float in (0, 0.5], default="auto"
        Share of the training samples that ``predict`` calls outliers; "auto" is 0.05. Use
        `ConformalDetector` where the false-positive rate matters.
    batch_size : int or "auto", default="auto"
        Samples a pass.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is CUDA where there is one, else the CPU.
    random_state : int, RandomState or None, default=None
        Seed of whatever noise the log-likelihood draws; None is a fixed seed, too. Each sample's
        noise depends on the seed and its own content alone.
    grouped : bool, default=False
        Whether X holds groups of samples, (n, B, ...), as `skgradood.utils.make_groups` makes
        them. The score of a group is the mean over its samples.

    Attributes
    ----------
    likelihood_model_ : LikelihoodModel
        The fitted model.
    offset_ : float
        Samples that score below it are outliers.
    n_features_in_ : int
        Values in a sample.
    feature_names_in_ : ndarray of str
        Names of the input's columns, if X was a DataFrame.

    Notes
    -----
    A sample whose log-likelihood is not finite scores -inf, a certain outlier.

    References
    ----------
    .. [1] E. Nalisnick, A. Matsukawa, Y. W. Teh, D. Gorur, B. Lakshminarayanan, "Do deep
       generative models know what they don't know?", ICLR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood import GenerativeNet, LogLikelihoodDetector
    >>> from skgradood.models import DiagonalGaussian
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> net = GenerativeNet(DiagonalGaussian, max_epochs=2, random_state=0)
    >>> LogLikelihoodDetector(net).fit(X).predict([[0.0, 0.0], [9.0, -9.0]])
    array([ 1, -1])
    """

    _parameter_constraints: dict[str, list] = {
        "estimator": [object],
        "log_likelihood": [str, callable],
        **SAMPLE_CONSTRAINTS,
    }

    def __init__(
        self,
        estimator: Any,
        *,
        log_likelihood: str | Callable = "log_prob",
        contamination: float | str = "auto",
        batch_size: int | str = "auto",
        device: str | torch.device = "auto",
        random_state: Any = None,
        grouped: bool = False,
    ) -> None:
        self.estimator = estimator
        self.log_likelihood = log_likelihood
        self.contamination = contamination
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.grouped = grouped

    # The inner estimator validates its own parameters when it is fitted.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> LogLikelihoodDetector:
        """Fit the likelihood model, unless it comes fitted, and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, H, W), (n, C, H, W) or (n, H, W, C)
            Inliers: rows, or uint8 images; groups of them under ``grouped=True``.
        y : None
            Ignored, exists for compatibility.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If ``estimator`` is none of what is expected, or has no such log-likelihood.
        ValueError
            If X is not what the model takes.
        """
        with untouched_by_failure(self):
            samples, group_size = self._take(X, reset=True)
            self.likelihood_model_ = self._fit_model(self.estimator, samples, self.log_likelihood)
            self.offset_ = contamination_offset(
                self._scores(samples, group_size), self.contamination
            )
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Compute the log-likelihood of each sample, or its mean over each group.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n,), float64
            Nats, higher is more normal; -inf where it is not finite.
        """
        check_is_fitted(self)
        return self._scores(*self._take(X, reset=False))

    def _scores(self, samples: np.ndarray, group_size: int) -> np.ndarray:
        values = self._log_likelihoods(self.likelihood_model_, samples, self.log_likelihood)
        return group_means(or_impossible(values), group_size)


class TypicalityDetector(SampleDetector):
    """Call samples outliers whose log-likelihood is unlike that of inliers, on either side.

    Most of the probability of a high-dimensional distribution lies where the log-likelihood is
    close to its mean (the typical set), not where it is largest [1]_. The score of a sample, or
    of a group of B of them, is

        -abs((1/B) sum_b log p(x_b) - E log p),

    with the expectation estimated by the mean over the training samples [1]_, equation (4).

    Parameters
    ----------
    estimator : GenerativeNet, FrozenEstimator or nn.Module
        The likelihood model, as in `LogLikelihoodDetector`.
    statistic : {"distance", "p_value"}, default="distance"
        "distance": the published statistic. "p_value": the log of the two-sided p-value
        2 min(F, 1 - F), with F the empirical distribution of the training samples' (or groups')
        log-likelihoods, continued smoothly beyond the last of them. The two sides then count
        alike, also if the distribution is skewed.
    log_likelihood, contamination, batch_size, device, random_state
        As in `LogLikelihoodDetector`.
    grouped : bool, default=False
        Whether X holds groups of samples, (n, B, ...), as `skgradood.utils.make_groups` makes
        them: the group test of [1]_.

    Attributes
    ----------
    likelihood_model_ : LikelihoodModel
        The fitted model.
    mean_ : float
        Mean log-likelihood of the training samples, in nats: minus the estimated entropy.
    reference_ : ndarray of shape (n,)
        Log-likelihoods of the training samples, or their means over the training groups,
        ascending.
    offset_ : float
        Samples that score below it are outliers.
    n_features_in_ : int
        Values in a sample.
    feature_names_in_ : ndarray of str
        Names of the input's columns, if X was a DataFrame.

    Notes
    -----
    A sample whose log-likelihood is not finite scores -inf, a certain outlier; training samples
    (or groups) of this kind are left out of mean and reference, with a warning. An unfitted
    estimator is trained on the samples that set the reference, and finds these more probable than
    fresh ones: train it on others where data allow, and pass it in a FrozenEstimator.

    References
    ----------
    .. [1] E. Nalisnick, A. Matsukawa, Y. W. Teh, B. Lakshminarayanan, "Detecting
       out-of-distribution inputs to deep generative models using typicality", 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood import GenerativeNet, TypicalityDetector
    >>> from skgradood.models import DiagonalGaussian
    >>> X = np.random.default_rng(0).normal(size=(200, 50))
    >>> net = GenerativeNet(DiagonalGaussian, max_epochs=2, random_state=0)
    >>> TypicalityDetector(net).fit(X).predict(np.zeros((1, 50)))  # the most probable row
    array([-1])
    """

    _parameter_constraints: dict[str, list] = {
        "estimator": [object],
        "statistic": [StrOptions({"distance", "p_value"})],
        "log_likelihood": [str, callable],
        **SAMPLE_CONSTRAINTS,
    }

    def __init__(
        self,
        estimator: Any,
        *,
        statistic: str = "distance",
        log_likelihood: str | Callable = "log_prob",
        contamination: float | str = "auto",
        batch_size: int | str = "auto",
        device: str | torch.device = "auto",
        random_state: Any = None,
        grouped: bool = False,
    ) -> None:
        self.estimator = estimator
        self.statistic = statistic
        self.log_likelihood = log_likelihood
        self.contamination = contamination
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.grouped = grouped

    # The inner estimator validates its own parameters when it is fitted.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> TypicalityDetector:
        """Fit the likelihood model, unless it comes fitted, and measure what is typical.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, H, W), (n, C, H, W) or (n, H, W, C)
            Inliers: rows, or uint8 images; groups of them under ``grouped=True``.
        y : None
            Ignored, exists for compatibility.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If ``estimator`` is none of what is expected, or has no such log-likelihood.
        ValueError
            If X is not what the model takes, or no log-likelihood is finite.
        """
        with untouched_by_failure(self):
            samples, group_size = self._take(X, reset=True)
            self.likelihood_model_ = self._fit_model(self.estimator, samples, self.log_likelihood)
            values = self._values(samples, group_size)
            finite = np.isfinite(values)
            if not finite.any():
                raise ValueError(
                    f"none of the {len(values)} training samples has a finite log-likelihood: the "
                    "model does not fit these data"
                )
            if not finite.all():
                warn_user(
                    f"{int((~finite).sum())} of {len(values)} training samples have no finite "
                    "log-likelihood and were left out of the reference."
                )
            self.reference_ = np.sort(values[finite])
            self.mean_ = float(self.reference_.mean())
            self.offset_ = contamination_offset(self._scores(values), self.contamination)
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Compute how typical the log-likelihood of each sample, or group, is.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n,), float64
            At most 0, higher is more normal: minus a distance in nats, or a log p-value.
        """
        check_is_fitted(self)
        return self._scores(self._values(*self._take(X, reset=False)))

    def p_values(self, X: Any) -> np.ndarray:
        """Compute two-sided p-values, whatever ``statistic`` is.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n,), float64
            In [0, 1]; small for outliers. Relative to the training samples: for p-values that
            are valid on fresh samples use `ConformalDetector`.
        """
        check_is_fitted(self)
        values = self._values(*self._take(X, reset=False))
        return np.exp(two_sided_log_p(values, self.reference_))

    def _values(self, samples: np.ndarray, group_size: int) -> np.ndarray:
        values = self._log_likelihoods(self.likelihood_model_, samples, self.log_likelihood)
        return group_means(or_impossible(values), group_size)

    def _scores(self, values: np.ndarray) -> np.ndarray:
        if self.statistic == "p_value":
            return two_sided_log_p(values, self.reference_)
        return -np.abs(values - self.mean_)

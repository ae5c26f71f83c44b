"""The widely applicable information criterion of an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import _fit_context, clone
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from skgradood.detectors._base import contamination_offset
from skgradood.detectors._samples import (
    SAMPLE_CONSTRAINTS,
    SampleDetector,
    group_means,
    or_impossible,
)
from skgradood.models import GenerativeNet
from skgradood.utils.atomic import untouched_by_failure


class WaicDetector(SampleDetector):
    """Judge samples by the log-likelihoods of an ensemble, and by how much its members agree.

    Models that were trained from different seeds agree on what they have seen, and not on what
    they have not. The score is [1]_

        mean log p_k(x) - var log p_k(x)

    over the members k, in nats and their square, with the unbiased estimate of the variance.

    Parameters
    ----------
    estimators : GenerativeNet, or sequence of GenerativeNet, FrozenEstimator or nn.Module
        One unfitted `GenerativeNet`, of which ``n_estimators`` clones are fitted in ``fit``, each
        from a seed of its own; or the members themselves, two or more, of which the unfitted ones
        are cloned and fitted as they are.
    n_estimators : int, default=5
        Members that are made of one `GenerativeNet`, at least 2.
    log_likelihood : str or callable, default="log_prob"
        The name of a method of the modules, or a callable ``(module, X, generator) -> (n,)``.
    contamination, batch_size, device
        As in `LogLikelihoodDetector`.
    random_state : int, RandomState or None, default=None
        From it come the members' seeds and that of whatever noise the log-likelihood draws; None
        is a fixed seed, too.
    grouped : bool, default=False
        As in `LogLikelihoodDetector`.

    Attributes
    ----------
    likelihood_models_ : list of LikelihoodModel
        The fitted members.
    offset_ : float
        Samples that score below it are outliers.
    n_features_in_ : int
        Values in a sample.
    feature_names_in_ : ndarray of str
        Names of the input's columns, if X was a DataFrame.

    Notes
    -----
    A sample to which any member gives a log-likelihood that is not finite scores -inf, a certain
    outlier.

    References
    ----------
    .. [1] H. Choi, E. Jang, A. A. Alemi, "WAIC, but why? Generative ensembles for robust anomaly
       detection", 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood import GenerativeNet, WaicDetector
    >>> from skgradood.models import RealNVP
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> net = GenerativeNet(RealNVP, max_epochs=2)
    >>> WaicDetector(net, n_estimators=3).fit(X).predict([[0.0, 0.0], [9.0, -9.0]])
    array([ 1, -1])
    """

    _parameter_constraints: dict[str, list] = {
        "estimators": [object],
        "n_estimators": [Interval(Integral, 2, None, closed="left")],
        "log_likelihood": [str, callable],
        **SAMPLE_CONSTRAINTS,
    }

    def __init__(
        self,
        estimators: Any,
        *,
        n_estimators: int = 5,
        log_likelihood: str | Callable = "log_prob",
        contamination: float | str = "auto",
        batch_size: int | str = "auto",
        device: str | torch.device = "auto",
        random_state: Any = None,
        grouped: bool = False,
    ) -> None:
        self.estimators = estimators
        self.n_estimators = n_estimators
        self.log_likelihood = log_likelihood
        self.contamination = contamination
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.grouped = grouped

    # The members validate their own parameters when they are fitted.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> WaicDetector:
        """Fit the members that do not come fitted, and set the threshold.

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
            If ``estimators`` is none of what is expected, or one has no such log-likelihood.
        ValueError
            If X is not what the models take, or there are fewer than two members.
        """
        with untouched_by_failure(self):
            samples, group_size = self._take(X, reset=True)
            members = self._members()
            for i, member in enumerate(members):  # before any of them is trained
                self._check_model(member, f"estimators[{i}]", self.log_likelihood)
            self.likelihood_models_ = [
                self._fit_model(member, samples, self.log_likelihood) for member in members
            ]
            self.offset_ = contamination_offset(
                self._scores(samples, group_size), self.contamination
            )
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Compute the criterion of each sample, or its mean over each group.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n,), float64
            Higher is more normal; -inf where a log-likelihood is not finite.
        """
        check_is_fitted(self)
        return self._scores(*self._take(X, reset=False))

    def _members(self) -> list[Any]:
        if isinstance(self.estimators, GenerativeNet):
            seeds = np.random.SeedSequence(self._seed).generate_state(self.n_estimators)
            return [
                clone(self.estimators).set_params(random_state=int(seed >> 1)) for seed in seeds
            ]
        if not isinstance(self.estimators, Sequence) or isinstance(self.estimators, str):
            raise TypeError(
                "estimators must be an unfitted GenerativeNet, of which clones are trained, or a "
                f"list of members; got {self.estimators!r}"
            )
        if len(self.estimators) < 2:
            raise ValueError(
                f"the variance over an ensemble needs at least 2 members; got "
                f"{len(self.estimators)}. Pass one GenerativeNet, not in a list, to have "
                "n_estimators clones of it trained."
            )
        return list(self.estimators)

    def _scores(self, samples: np.ndarray, group_size: int) -> np.ndarray:
        values = np.array(
            [
                self._log_likelihoods(model, samples, self.log_likelihood)
                for model in self.likelihood_models_
            ]
        )
        scores = np.full(values.shape[1], -np.inf)
        finite = np.isfinite(values).all(axis=0)
        # Where squares overflow, the variance is infinite (or inf - inf, for means that do too).
        with np.errstate(over="ignore", invalid="ignore"):
            variance = values[:, finite].var(axis=0, ddof=1)
            scores[finite] = or_impossible(values[:, finite].mean(axis=0) - variance)
        return group_means(scores, group_size)

"""Maximum mean discrepancy with the Fisher kernel, between groups of samples and inliers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skgradood.detectors._base import contamination_offset
from skgradood.detectors._fisher_kernel import (
    STATISTICS,
    Scores,
    Shifted,
    check_group_size,
    form_of,
    spread_of_pairs,
    totals,
)
from skgradood.detectors._samples import SAMPLE_CONSTRAINTS, SampleDetector, or_impossible
from skgradood.fisher import APPROXIMATIONS
from skgradood.fisher.halves import Halves
from skgradood.gradients.alignment import MeanGradients
from skgradood.gradients.reducers import Both
from skgradood.utils.atomic import untouched_by_failure


class FisherMMDDetector(SampleDetector):
    """Judge groups of samples by the distance of their mean score from that of inliers.

    With the score g(x) = ∂ log p(x) / ∂θ, and an approximation F of the Fisher information, the
    Fisher kernel is k(x, y) = g(x)ᵀ F⁻¹ g(y) [1]_. The squared maximum mean discrepancy [2]_ of a
    group x_1, ..., x_B and reference samples y_1, ..., y_m is then

        MMD² = (1/B²) Σ_ij k(x_i, x_j) + (1/m²) Σ_ij k(y_i, y_j) - (2/Bm) Σ_ij k(x_i, y_j)
             = (ḡ_x - ḡ_y)ᵀ F⁻¹ (ḡ_x - ḡ_y),

    with ḡ_x and ḡ_y the mean scores: one gradient a group, and no kernel between samples. The
    detector's score is minus that. As a group test of generative models it is the MMD of [3]_.

    What ḡ_y and F are estimated from is biased evidence on the same samples. So ``fit`` estimates
    two references, on disjoint halves of the rows; rows of the first half, recognised by their
    content, are measured with the second, and all others with the first.

    Parameters
    ----------
    estimator : GenerativeNet, FrozenEstimator or nn.Module
        The likelihood model. An unfitted `GenerativeNet` is cloned and fitted in ``fit``; one
        inside ``sklearn.frozen.FrozenEstimator``, and a module, are used as they are.
    approximation : str, default="diagonal"
        Of the Fisher information: "identity", "diagonal", "kfac", "ekfac", "block" or "sketch",
        see `FisherPreconditioner`. Every parameter tensor has a matrix of its own.
    statistic : {"biased", "unbiased"}, default="biased"
        "biased": the square above, at least 0. "unbiased": the mean over pairs of different
        samples, whose expectation is 0 for inliers; it takes groups of two or more.
    reference : {"data", "model"}, default="data"
        Where the mean score of inliers comes from: the rows of ``fit``, or the model itself, under
        which the score has the mean 0. With the latter MMD² is 1/B of Rao's statistic.
    damping : float or "auto", default="auto"
        Added to every eigenvalue of F before it is inverted, as a multiple of the tensor's mean
        eigenvalue; "auto" is 0.003.
    log_likelihood, contamination, batch_size, device
        As in `LogLikelihoodDetector`.
    random_state : int, RandomState or None, default=None
        Seed of whatever noise the log-likelihood draws, of the division into halves and of
        "sketch"; None is a fixed seed, too.
    grouped : bool, default=False
        Whether X holds groups of samples, (n, B, ...), as `skgradood.utils.make_groups` makes
        them. Without it every sample is a group of one.

    Attributes
    ----------
    likelihood_model_ : LikelihoodModel
        The fitted model.
    references_ : list of dict
        One for fresh rows, and one for the rows of the former. "fisher": `FisherEstimate`;
        "mean_scores": dict of str to ndarray, empty where they are 0; "spread": float, what the
        unbiased statistic leaves out of the reference's own term.
    halves_ : Halves
        Which rows are those of the first reference.
    offset_ : float
        Rows that score below it are outliers.
    n_features_in_ : int
        Values in a sample.
    feature_names_in_ : ndarray of str
        Names of the input's columns, if X was a DataFrame.

    See Also
    --------
    SteinDiscrepancyDetector : Compares with the model's density, not with samples.
    skgradood.FisherPreconditioner : The score statistics layer by layer.

    References
    ----------
    .. [1] T. Jaakkola, D. Haussler, "Exploiting generative models in discriminative classifiers",
       NeurIPS 1998.
    .. [2] A. Gretton, K. Borgwardt, M. Rasch, B. Schölkopf, A. Smola, "A kernel two-sample test",
       Journal of Machine Learning Research 13, 2012.
    .. [3] E. Nalisnick, A. Matsukawa, Y. W. Teh, B. Lakshminarayanan, "Detecting
       out-of-distribution inputs to deep generative models using typicality", 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood import GenerativeNet
    >>> from skgradood.detectors import FisherMMDDetector
    >>> from skgradood.models import DiagonalGaussian
    >>> from skgradood.utils import make_groups
    >>> X = np.random.default_rng(0).normal(size=(400, 2))
    >>> net = GenerativeNet(DiagonalGaussian, max_epochs=2, random_state=0)
    >>> groups = make_groups(X, 20, random_state=0)
    >>> detector = FisherMMDDetector(net, grouped=True).fit(groups)
    >>> detector.predict(groups[:1] + 1.0)
    array([-1])
    """

    _parameter_constraints: dict[str, list] = {
        "estimator": [object],
        "approximation": [StrOptions(set(APPROXIMATIONS))],
        "statistic": [StrOptions(set(STATISTICS))],
        "reference": [StrOptions({"data", "model"})],
        "damping": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "log_likelihood": [str, callable],
        **SAMPLE_CONSTRAINTS,
    }

    def __init__(
        self,
        estimator: Any,
        *,
        approximation: str = "diagonal",
        statistic: str = "biased",
        reference: str = "data",
        damping: float | str = "auto",
        log_likelihood: str | Callable = "log_prob",
        contamination: float | str = "auto",
        batch_size: int | str = "auto",
        device: str | torch.device = "auto",
        random_state: Any = None,
        grouped: bool = False,
    ) -> None:
        self.estimator = estimator
        self.approximation = approximation
        self.statistic = statistic
        self.reference = reference
        self.damping = damping
        self.log_likelihood = log_likelihood
        self.contamination = contamination
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.grouped = grouped

    # The inner estimator validates its own parameters when it is fitted.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> FisherMMDDetector:
        """Fit the likelihood model, unless it comes fitted, its Fisher matrices and mean scores.

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
            If X is not what the model takes, a gradient is not finite, or groups of one are to
            have the unbiased statistic.
        """
        with untouched_by_failure(self):
            samples, group_size = self._take(X, reset=True)
            check_group_size(self.statistic, group_size)
            self.likelihood_model_ = self._fit_model(self.estimator, samples, self.log_likelihood)
            groups = self._groups(samples, group_size)
            self.halves_ = Halves(self._seed, grouped=self.grouped)
            parts = self.halves_.divide(groups, [None, None] if len(groups) > 1 else [None])
            self.references_ = [
                self._reference(groups[torch.from_numpy(rows)].flatten(0, 1))
                for rows in parts
                if len(rows)
            ]
            self.offset_ = contamination_offset(self._scores(groups), self.contamination)
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Compute minus the squared discrepancy of each sample or group.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            As in `fit`; groups may have another size.

        Returns
        -------
        ndarray of shape (n,), float64
            Higher is more normal, without unit; at most 0 if biased. -inf where the score is not
            finite.

        Raises
        ------
        ValueError
            If X is not what the model takes, or groups of one are to have the unbiased statistic.
        """
        check_is_fitted(self)
        samples, group_size = self._take(X, reset=False)
        check_group_size(self.statistic, group_size)
        return self._scores(self._groups(samples, group_size))

    def _groups(self, samples: np.ndarray, group_size: int) -> Tensor:
        return self.likelihood_model_.prepare(samples).unflatten(0, (-1, group_size))

    def _model_scores(self) -> Scores:
        return Scores(
            self.likelihood_model_,
            log_likelihood=self.log_likelihood,
            batch_size=self.batch_size,
            device=self.device,
            random_state=self._seed,
        )

    def _reference(self, samples: Tensor) -> dict[str, Any]:
        """What rows of the other half are compared with."""
        scores = self._model_scores()
        fisher = scores.fisher(samples, self.approximation, self.damping)
        if self.reference == "model":
            return {"fisher": fisher, "mean_scores": {}, "spread": 0.0}
        mean, forms = MeanGradients(scores.layout), scores.forms(fisher)
        scores.stream(samples, Both(mean, forms), grouped=False)
        excess = totals(forms).mean() - form_of(mean.result(), scores.forms(fisher))
        spread = float(excess) / max(1, len(samples) - 1)
        return {"fisher": fisher, "mean_scores": mean.result(), "spread": spread}

    def _scores(self, groups: Tensor) -> np.ndarray:
        values = np.empty(len(groups))
        known = self.halves_.in_first(groups)
        for mask, reference in zip((~known, known), self.references_, strict=False):
            if mask.any():
                values[mask] = -self._discrepancies(groups[torch.from_numpy(mask)], reference)
        return or_impossible(values)

    def _discrepancies(self, groups: Tensor, reference: Mapping[str, Any]) -> np.ndarray:
        scores, fisher = self._model_scores(), reference["fisher"]
        group_size = groups.shape[1]
        apart = scores.forms(fisher)
        shifted = Shifted(apart, reference["mean_scores"], group_size)
        if self.statistic == "biased":
            scores.stream(groups, shifted, grouped=True)
            return totals(apart) / group_size**2
        together, single = scores.forms(fisher), scores.forms(fisher)
        scores.stream(groups, Both(shifted, together), grouped=True)
        scores.stream(groups.flatten(0, 1), single, grouped=False)
        spread = spread_of_pairs(totals(together), totals(single)) + reference["spread"]
        return totals(apart) / group_size**2 - spread

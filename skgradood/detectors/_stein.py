"""Kernelised Stein discrepancy between groups of samples and a model's density."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skgradood.detectors._base import contamination_offset
from skgradood.detectors._fisher_kernel import (
    STATISTICS,
    Scores,
    check_group_size,
    spread_of_pairs,
    totals,
)
from skgradood.detectors._input_scores import InputScores, flat
from skgradood.detectors._samples import SAMPLE_CONSTRAINTS, SampleDetector, or_impossible
from skgradood.detectors._stein_kernels import RADIAL, median_distance, stein_matrix
from skgradood.fisher import FisherEstimate
from skgradood.gradients import LogLikelihood
from skgradood.models._evaluation import evaluation_batch_size, module_at_rest
from skgradood.models._inputs import parameter_dtype
from skgradood.utils.atomic import untouched_by_failure

_FISHER = "fisher"


class SteinDiscrepancyDetector(SampleDetector):
    """Judge groups of samples by the kernelised Stein discrepancy from the model's density.

    With the input score s(x) = ∂ log p(x) / ∂x, a kernel k has the Stein kernel [1]_ [2]_

        u(x, y) = s(x)ᵀs(y) k(x, y) + s(x)ᵀ ∂k/∂y + s(y)ᵀ ∂k/∂x + tr ∂²k/∂x∂y,

    whose expectation over x ~ p is 0 for every y. The squared discrepancy of a group x_1, ..., x_B
    is KSD² = (1/B²) Σ_ij u(x_i, x_j); the score is minus that. It needs neither the constant of
    normalisation of p nor samples of inliers to compare with.

    The kernel is one on samples, or the Fisher kernel k(x, y) = g(x)ᵀ F⁻¹ g(y), with g the score
    ∂ log p(x) / ∂θ, as in [3]_. For the latter, with x in D dimensions and ∂_d = ∂/∂x_d,

        KSD² = Σ_d h̄_dᵀ F⁻¹ h̄_d,    h_d(x) = s_d(x) g(x) + ∂_d g(x),

    h̄_d the mean over the group: D gradients a group, and no kernel between samples.

    Parameters
    ----------
    estimator : GenerativeNet, FrozenEstimator or nn.Module
        The likelihood model, with a density of continuous values. An unfitted `GenerativeNet` is
        cloned and fitted in ``fit``; one inside ``sklearn.frozen.FrozenEstimator``, and a module,
        are used as they are. Of a model of images the log-likelihood must be a smooth function of
        the pixel values 0...255 as real numbers (`skgradood.models.Glow`); ``fit`` makes sure.
    kernel : {"imq", "rbf", "fisher"}, default="imq"
        "imq": (1 + r²)^(-1/2) with r = ‖x - y‖ / bandwidth, whose discrepancy tells from p whatever
        differs from it [4]_; "rbf": exp(-r²/2), which in many dimensions may not; "fisher": the
        Fisher kernel with the diagonal of F, for rows of a few dimensions.
    bandwidth : "median" or float, default="median"
        Of "imq" and "rbf", in the unit of the samples; "median" is the median distance between
        training samples.
    statistic : {"biased", "unbiased"}, default="biased"
        "biased": the mean over all pairs, at least 0. "unbiased": that over pairs of different
        samples, whose expectation under p is 0; it takes groups of two or more.
    log_likelihood, contamination, batch_size, device
        As in `LogLikelihoodDetector`.
    random_state : int, RandomState or None, default=None
        Seed of whatever noise the log-likelihood draws, and of the samples that the median is
        taken over; None is a fixed seed, too.
    grouped : bool, default=False
        Whether X holds groups of samples, (n, B, ...), as `skgradood.utils.make_groups` makes
        them. Without it every sample is a group of one: with "imq" and "rbf" the discrepancy is
        ‖s(x)‖² but for a constant.

    Attributes
    ----------
    likelihood_model_ : LikelihoodModel
        The fitted model.
    bandwidth_ : float or None
        Of the kernel; None for "fisher".
    fisher_ : FisherEstimate or None
        Of "fisher", from the training samples.
    offset_ : float
        Rows that score below it are outliers.
    n_features_in_ : int
        Values in a sample.
    feature_names_in_ : ndarray of str
        Names of the input's columns, if X was a DataFrame.

    See Also
    --------
    FisherMMDDetector : Compares with samples, in the Fisher kernel.

    References
    ----------
    .. [1] Q. Liu, J. Lee, M. Jordan, "A kernelized Stein discrepancy for goodness-of-fit tests",
       ICML 2016.
    .. [2] K. Chwialkowski, H. Strathmann, A. Gretton, "A kernel test of goodness of fit", ICML
       2016.
    .. [3] E. Nalisnick, A. Matsukawa, Y. W. Teh, B. Lakshminarayanan, "Detecting
       out-of-distribution inputs to deep generative models using typicality", 2019.
    .. [4] J. Gorham, L. Mackey, "Measuring sample quality with kernels", ICML 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood import GenerativeNet
    >>> from skgradood.detectors import SteinDiscrepancyDetector
    >>> from skgradood.models import DiagonalGaussian
    >>> from skgradood.utils import make_groups
    >>> X = np.random.default_rng(0).normal(size=(400, 2))
    >>> net = GenerativeNet(DiagonalGaussian, max_epochs=2, random_state=0)
    >>> groups = make_groups(X, 20, random_state=0)
    >>> detector = SteinDiscrepancyDetector(net, grouped=True).fit(groups)
    >>> detector.predict(groups[:1] + 1.0)
    array([-1])
    """

    _parameter_constraints: dict[str, list] = {
        "estimator": [object],
        "kernel": [StrOptions({*RADIAL, _FISHER})],
        "bandwidth": [StrOptions({"median"}), Interval(Real, 0, None, closed="neither")],
        "statistic": [StrOptions(set(STATISTICS))],
        "log_likelihood": [str, callable],
        **SAMPLE_CONSTRAINTS,
    }

    def __init__(
        self,
        estimator: Any,
        *,
        kernel: str = "imq",
        bandwidth: float | str = "median",
        statistic: str = "biased",
        log_likelihood: str | Callable = "log_prob",
        contamination: float | str = "auto",
        batch_size: int | str = "auto",
        device: str | torch.device = "auto",
        random_state: Any = None,
        grouped: bool = False,
    ) -> None:
        self.estimator = estimator
        self.kernel = kernel
        self.bandwidth = bandwidth
        self.statistic = statistic
        self.log_likelihood = log_likelihood
        self.contamination = contamination
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.grouped = grouped

    # The inner estimator validates its own parameters when it is fitted.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> SteinDiscrepancyDetector:
        """Fit the likelihood model, unless it comes fitted, and the kernel; set the threshold.

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
            If ``estimator`` is none of what is expected, has no such log-likelihood, or one that
            is not smooth in the sample.
        ValueError
            If X is not what the model takes, groups of one are to have the unbiased statistic, or
            the gradient with respect to a sample is not finite.
        """
        with untouched_by_failure(self):
            samples, group_size = self._take(X, reset=True)
            check_group_size(self.statistic, group_size)
            self.likelihood_model_ = self._fit_model(self.estimator, samples, self.log_likelihood)
            inputs = self._inputs(samples)
            with module_at_rest(self.likelihood_model_, self.device) as (module, home):
                self._input_scores(module).check(inputs[:2].to(home))
            self.bandwidth_: float | None = None
            self.fisher_: FisherEstimate | None = None
            if self.kernel == _FISHER:
                scores = self._model_scores(self.log_likelihood)
                self.fisher_ = scores.fisher(inputs, "diagonal", "auto")
            elif self.bandwidth == "median":
                self.bandwidth_ = median_distance(flat(inputs), self._seed)
            else:
                self.bandwidth_ = float(self.bandwidth)
            self.offset_ = contamination_offset(
                self._scores(inputs, group_size), self.contamination
            )
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
            Higher is more normal; in the inverse square of the samples' unit. At most 0 if biased;
            -inf where it is not finite.

        Raises
        ------
        ValueError
            If X is not what the model takes, or groups of one are to have the unbiased statistic.
        """
        check_is_fitted(self)
        samples, group_size = self._take(X, reset=False)
        check_group_size(self.statistic, group_size)
        return self._scores(self._inputs(samples), group_size)

    def _inputs(self, samples: np.ndarray) -> Tensor:
        model = self.likelihood_model_
        return model.prepare(samples).to(parameter_dtype(model.module))

    def _input_scores(self, module: nn.Module) -> InputScores:
        return InputScores(module, self.log_likelihood, self._seed)

    def _model_scores(self, log_likelihood: str | Callable, **options: Any) -> Scores:
        return Scores(
            self.likelihood_model_,
            log_likelihood=log_likelihood,
            batch_size=self.batch_size,
            device=self.device,
            random_state=self._seed,
            **options,
        )

    def _scores(self, inputs: Tensor, group_size: int) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # such a sample is an outlier
            if self.fisher_ is not None:
                values = self._by_fisher(inputs, group_size, self.fisher_)
            elif self.bandwidth_ is not None:
                values = self._by_distance(inputs, group_size, self.bandwidth_)
            return or_impossible(-values)

    def _by_distance(self, inputs: Tensor, group_size: int, bandwidth: float) -> np.ndarray:
        size = evaluation_batch_size(inputs, self.batch_size)
        with module_at_rest(self.likelihood_model_, self.device) as (module, home):
            input_scores = self._input_scores(module)
            found = [flat(input_scores(batch.to(home))) for batch in inputs.split(size)]
        shape = (-1, group_size, inputs[0].numel())
        groups, of_groups = flat(inputs).reshape(shape), np.concatenate(found).reshape(shape)
        matrices = (
            stein_matrix(self.kernel, x, s, bandwidth)
            for x, s in zip(groups, of_groups, strict=True)
        )
        return np.array([self._mean_over_pairs(matrix) for matrix in matrices])

    def _mean_over_pairs(self, matrix: np.ndarray) -> float:
        if self.statistic == "biased":
            return float(matrix.mean())
        n = len(matrix)
        return float((matrix.sum() - np.trace(matrix)) / (n * (n - 1)))

    def _by_fisher(self, inputs: Tensor, group_size: int, fisher: FisherEstimate) -> np.ndarray:
        scores = self._model_scores(SteinObjective(self.log_likelihood), engine="func")
        together = scores.forms(fisher)
        groups = inputs.unflatten(0, (-1, group_size))
        scores.stream(with_directions(groups), together, grouped=True)
        of_sums = totals(together).reshape(len(groups), -1).sum(axis=1)
        if self.statistic == "biased":
            return of_sums / group_size**2
        single = scores.forms(fisher)
        scores.stream(with_directions(groups.flatten(0, 1)[:, None]), single, grouped=True)
        of_samples = totals(single).reshape(len(inputs), -1).sum(axis=1)
        return of_sums / group_size**2 - spread_of_pairs(of_sums, of_samples)


class SteinObjective:
    """A function of (x, v) whose gradient with respect to the parameters is Σ_d v_d h_d(x).

    That is (vᵀs) log p + vᵀs, with v and the first vᵀs constant, s = ∂ log p(x) / ∂x.

    Parameters
    ----------
    log_likelihood : str or callable
        See `LogLikelihood`.
    """

    def __init__(self, log_likelihood: str | Callable) -> None:
        self.log_likelihood = LogLikelihood(log_likelihood)

    def __call__(self, module: nn.Module, pairs: Tensor, generator: torch.Generator) -> Tensor:
        """Values (n,) of pairs (n, 2, ...)."""
        samples, directions = pairs[:, 0], pairs[:, 1]

        def total(samples: Tensor) -> tuple[Tensor, Tensor]:
            values = self.log_likelihood(module, samples, generator)
            return values.sum(), values

        input_scores, values = torch.func.grad(total, has_aux=True)(samples)
        slopes = (input_scores * directions).flatten(1).sum(dim=1)
        return slopes.detach() * values + slopes


def with_directions(groups: Tensor) -> Tensor:
    """Every sample with every axis, (n, B, ...) to (n * D, B, 2, ...), axes running faster."""
    n, group_size, shape = len(groups), groups.shape[1], groups.shape[2:]
    n_axes = groups[0, 0].numel()
    axes = torch.eye(n_axes, dtype=groups.dtype, device=groups.device).reshape(n_axes, 1, *shape)
    samples = groups.repeat_interleave(n_axes, dim=0)
    return torch.stack([samples, axes.repeat(n, group_size, *[1] * len(shape))], dim=2)

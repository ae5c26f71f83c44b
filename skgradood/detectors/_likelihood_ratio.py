"""The likelihood ratio of a model to a background."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, _fit_context, clone, is_outlier_detector
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skgradood.complexity import CODECS, check_codec, code_lengths
from skgradood.detectors._base import contamination_offset
from skgradood.detectors._mutation import PERTURBATIONS, mutate
from skgradood.detectors._samples import SAMPLE_CONSTRAINTS, SampleDetector, group_means
from skgradood.models import GenerativeNet
from skgradood.models._evaluation import log_likelihood_contributions
from skgradood.models._fitted import LikelihoodModel
from skgradood.utils.atomic import untouched_by_failure
from skgradood.utils.validation import check_samples

PERTURBED = "perturbed"
# What is possible under the model and impossible under the background; two add up without overflow.
_BEST_SCORE = np.finfo(np.float64).max / 2


class LikelihoodRatioDetector(SampleDetector):
    """Judge samples by how much more probable they are than under a background model.

    The likelihood of an image is dominated by what all images share: smoothness, backgrounds,
    complexity. The ratio to a model of just that cancels it. The score is

        log p(x) - log p_background(x)

    in nats, whatever the background is.

    Parameters
    ----------
    estimator : GenerativeNet, FrozenEstimator or nn.Module
        The model of the inliers. An unfitted `GenerativeNet` is cloned and fitted in ``fit``; one
        inside ``sklearn.frozen.FrozenEstimator``, and a module, are used as they are.
    background : GenerativeNet, density estimator, FrozenEstimator, nn.Module or str
        What the model is compared with.

        - An estimator: a model of a more general distribution [1]_. An unfitted `GenerativeNet`
          is cloned and fitted on ``background_data``.
        - Any other density estimator of scikit-learn's kind, with ``score_samples`` in nats, such
          as `skgradood.models.PixelDifferenceModel`, which knows neighbouring pixels alone. It is
          cloned and fitted on ``background_data``, or without them on what `fit` is given. Flat
          rows of a model of images are images for one that takes no rows.
        - "png", "jpeg2000", "jpegxl", "webp" or "zlib": input complexity [2]_. Minus the length
          of the image under the lossless codec, in nats (`skgradood.complexity.code_lengths`),
          stands for the background's log-likelihood. For images, dtype uint8.
        - "perturbed": a clone of ``estimator``, which must be a `GenerativeNet` (or one in a
          FrozenEstimator), fitted on randomly mutated training samples [3]_.
    background_data : array-like of shape (m, ...) or None, default=None
        Samples of the more general distribution, which an unfitted `GenerativeNet` as
        ``background`` needs.
    perturbation : {"replace", "add_mod_256"}, default="replace"
        How a value is mutated under ``background="perturbed"``. "replace": by any of the 255
        other values for uint8 data, by the value of the same column in a random training row for
        other numbers. "add_mod_256": 0...255, drawn uniformly, is added modulo 256; uint8 only.
    mutation_rate : float in [0, 1], default=0.1
        Probability with which a value is mutated, independently of all others; mu
        in the paper.
    contributions : "last", int, sequence of int or None, default=None
        Which of a flow's contributions to compare, for example those of its last scale alone
        [1]_. Both modules must have ``log_prob_contributions(X) -> (n, S)``, as
        `skgradood.models.Glow` has with its finest scale first. None compares log-likelihoods.
    log_likelihood : str or callable, default="log_prob"
        The name of a method of the modules, or a callable ``(module, X, generator) -> (n,)``.
        Not used with ``contributions``.
    contamination, batch_size, device
        As in `LogLikelihoodDetector`.
    random_state : int, RandomState or None, default=None
        Seed of the mutations and of whatever noise the log-likelihoods draw; None is a fixed
        seed, too.
    grouped : bool, default=False
        As in `LogLikelihoodDetector`.

    Attributes
    ----------
    likelihood_model_ : LikelihoodModel
        The fitted model of the inliers.
    background_model_ : LikelihoodModel, density estimator or None
        The fitted background; None for input complexity.
    offset_ : float
        Samples that score below it are outliers.
    n_features_in_ : int
        Values in a sample.
    feature_names_in_ : ndarray of str
        Names of the input's columns, if X was a DataFrame.

    Notes
    -----
    What is not finite is settled before the difference is taken. A sample that is impossible
    under the model (log-likelihood -inf) scores -inf, a certain outlier, whatever the background;
    so does one for which either model breaks down (NaN or +inf). A sample that is impossible
    under the background alone is no outlier: it gets the largest score, 8.9e307.

    Published code of input complexity subtracts a length in bits from a log-likelihood in nats,
    which gives the complexity 1.44 times its weight; see the page on published code.

    References
    ----------
    .. [1] R. Schirrmeister, Y. Zhou, T. Ball, D. Zhang, "Understanding anomaly detection with deep
       invertible networks through hierarchies of distributions and features", NeurIPS 2020.
    .. [2] J. Serra, D. Alvarez, V. Gomez, O. Slizovskaia, J. Nunez, J. Luque, "Input complexity and
       out-of-distribution detection with likelihood-based generative models", ICLR 2020.
    .. [3] J. Ren, P. Liu, E. Fertig, J. Snoek, R. Poplin, M. DePristo, J. Dillon,
       B. Lakshminarayanan, "Likelihood ratios for out-of-distribution detection", NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood import GenerativeNet, LikelihoodRatioDetector
    >>> from skgradood.models import DiagonalGaussian
    >>> rng = np.random.default_rng(0)
    >>> X, anything = rng.normal(size=(200, 2)), 5 * rng.normal(size=(200, 2))
    >>> net = GenerativeNet(DiagonalGaussian, max_epochs=2, random_state=0)
    >>> detector = LikelihoodRatioDetector(net, net, background_data=anything).fit(X)
    >>> detector.predict([[0.0, 0.0], [9.0, -9.0]])
    array([ 1, -1])
    """

    _parameter_constraints: dict[str, list] = {
        "estimator": [object],
        "background": [object],
        "background_data": [object],
        "perturbation": [StrOptions(set(PERTURBATIONS))],
        "mutation_rate": [Interval(Real, 0, 1, closed="both")],
        "contributions": [StrOptions({"last"}), Integral, "array-like", None],
        "log_likelihood": [str, callable],
        **SAMPLE_CONSTRAINTS,
    }

    def __init__(
        self,
        estimator: Any,
        background: Any,
        *,
        background_data: Any = None,
        perturbation: str = "replace",
        mutation_rate: float = 0.1,
        contributions: Any = None,
        log_likelihood: str | Callable = "log_prob",
        contamination: float | str = "auto",
        batch_size: int | str = "auto",
        device: str | torch.device = "auto",
        random_state: Any = None,
        grouped: bool = False,
    ) -> None:
        self.estimator = estimator
        self.background = background
        self.background_data = background_data
        self.perturbation = perturbation
        self.mutation_rate = mutation_rate
        self.contributions = contributions
        self.log_likelihood = log_likelihood
        self.contamination = contamination
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.grouped = grouped

    # The inner estimators validate their own parameters when they are fitted.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> LikelihoodRatioDetector:
        """Fit both models, unless they come fitted, and set the threshold.

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
            If ``estimator`` or ``background`` is none of what is expected, or a module lacks what
            is asked of it.
        ValueError
            If X is not what the models take, or the options do not fit together.
        ImportError
            If the codec is not installed.
        """
        with untouched_by_failure(self):
            samples, group_size = self._take(X, reset=True)
            self._check_background()  # before a model is trained
            self.likelihood_model_ = self._fit_model(self.estimator, samples, self.log_likelihood)
            self.background_model_ = self._fit_background(samples)
            self.offset_ = contamination_offset(
                self._scores(samples, group_size), self.contamination
            )
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Compute the log-likelihood ratio of each sample, or its mean over each group.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n,), float64
            Nats, higher is more normal; -inf for what is impossible under the model.
        """
        check_is_fitted(self)
        return self._scores(*self._take(X, reset=False))

    def _scores(self, samples: np.ndarray, group_size: int) -> np.ndarray:
        ratios = log_ratio(
            self._of_model(self.likelihood_model_, samples), self._of_background(samples)
        )
        return group_means(ratios, group_size)

    def _of_model(self, model: LikelihoodModel, samples: np.ndarray) -> np.ndarray:
        if self.contributions is None:
            return self._log_likelihoods(model, samples, self.log_likelihood)
        parts = log_likelihood_contributions(
            model, samples, batch_size=self.batch_size, device=self.device
        )
        return parts[:, self._chosen(parts.shape[1])].sum(axis=1)

    def _of_background(self, samples: np.ndarray) -> np.ndarray:
        if isinstance(self.background_model_, LikelihoodModel):
            return self._of_model(self.background_model_, samples)
        if self.background_model_ is not None:
            return self.background_model_.score_samples(self._for_density(samples))
        return -code_lengths(self._in_shape(samples), codec=self.background)

    def _chosen(self, n_parts: int) -> np.ndarray:
        chosen = np.atleast_1d(n_parts - 1 if self.contributions == "last" else self.contributions)
        is_index = np.issubdtype(chosen.dtype, np.integer) and chosen.ndim == 1 and chosen.size > 0
        if not is_index or chosen.min() < -n_parts or chosen.max() >= n_parts:
            raise ValueError(
                f"contributions={self.contributions!r} must be 'last' or numbers of some of the "
                f"{n_parts} contributions, 0...{n_parts - 1}"
            )
        return chosen

    def _check_background(self) -> None:
        if isinstance(self.background, str):
            self._check_named_background()
        elif _is_other_density(self.background):
            self._refuse_contributions()
            if isinstance(self.background, FrozenEstimator):
                check_is_fitted(self.background)
        elif isinstance(self.background, GenerativeNet) and self.background_data is None:
            raise ValueError(
                "an unfitted GenerativeNet as background needs background_data=, samples of a "
                "more general distribution to fit it on. Pass a fitted one inside "
                "sklearn.frozen.FrozenEstimator, or background='perturbed' to fit a clone of "
                "the estimator on mutated training samples."
            )
        else:
            self._check_model(self.background, "background", self.log_likelihood)

    def _check_named_background(self) -> None:
        if self.background == PERTURBED:
            self._trainable()
        elif self.background in CODECS:
            self._refuse_contributions()
            check_codec(self.background)
        else:
            raise ValueError(
                f"background must be an estimator, {PERTURBED!r} or a codec, one of "
                f"{sorted(CODECS)}; got {self.background!r}"
            )

    def _refuse_contributions(self) -> None:
        if self.contributions is not None:
            raise ValueError(
                f"the background {self.background!r} judges whole samples, which cannot be "
                "compared with some contributions to a log-likelihood: use contributions=None, or "
                "a flow as the background"
            )

    def _fit_background(self, samples: np.ndarray) -> LikelihoodModel | Any | None:
        if self.background == PERTURBED:
            rng = np.random.RandomState(self._seed)
            mutated = mutate(samples, self.perturbation, self.mutation_rate, rng)
            return self._fit_model(clone(self._trainable()), mutated, self.log_likelihood)
        if isinstance(self.background, str):
            return None
        data = samples if self.background_data is None else check_samples(self.background_data)
        if _is_other_density(self.background):
            return clone(self.background).fit(self._for_density(data), None)
        return self._fit_model(self.background, data, self.log_likelihood)

    def _for_density(self, samples: np.ndarray) -> np.ndarray:
        """Flat rows as images, for a density estimator that takes images alone."""
        takes_rows = get_tags(self.background).input_tags.two_d_array
        return samples if takes_rows or samples.ndim != 2 else self._in_shape(samples)

    def _in_shape(self, samples: np.ndarray) -> np.ndarray:
        """Samples in the shape that the model takes them in."""
        return check_samples(samples, input_shape=self.likelihood_model_.input_shape)

    def _trainable(self) -> GenerativeNet:
        """The estimator whose clone learns the background."""
        estimator = self.estimator
        if isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        if not isinstance(estimator, GenerativeNet):
            raise TypeError(
                f"background={PERTURBED!r} trains a clone of the estimator, which must be a "
                f"GenerativeNet, or one inside sklearn.frozen.FrozenEstimator; got {estimator!r}"
            )
        return estimator


def _is_other_density(estimator: Any) -> bool:
    """Whether it is a density estimator of scikit-learn's kind, but none with a module."""
    inner = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
    return (
        isinstance(inner, BaseEstimator)
        and not isinstance(inner, GenerativeNet)
        and not is_outlier_detector(inner)
        and hasattr(inner, "score_samples")
    )


def log_ratio(model: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Difference of log-likelihoods, non-finite ones settled first; see LikelihoodRatioDetector."""
    impossible = ~np.isfinite(model) | np.isnan(background)
    with np.errstate(over="ignore"):
        difference = np.where(impossible, 0.0, model) - np.where(impossible, 0.0, background)
    return np.where(impossible, -np.inf, np.minimum(difference, _BEST_SCORE))

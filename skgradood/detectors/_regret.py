"""Likelihood regret: what a posterior of its own would gain a sample."""

from __future__ import annotations

import logging
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skgradood.detectors._base import contamination_offset
from skgradood.detectors._samples import SAMPLE_CONSTRAINTS, SampleDetector, group_means
from skgradood.gradients import LogLikelihood
from skgradood.gradients.errors import is_out_of_memory
from skgradood.gradients.precision import in_float64
from skgradood.models._batches import empty_cache
from skgradood.models._evaluation import module_at_rest
from skgradood.models._inputs import parameter_dtype
from skgradood.models._refinement import (
    OVER,
    VariationalModule,
    bounds_before_and_after,
    check_variational,
    chunk_size,
)
from skgradood.models._training import OPTIMIZERS
from skgradood.utils.atomic import untouched_by_failure

_LOGGER = logging.getLogger("skgradood")


class LikelihoodRegretDetector(SampleDetector):
    """Judge samples by how much a posterior optimised for them alone raises their bound.

    A variational autoencoder encodes what it was trained on nearly as well as it can be encoded.
    For foreign samples a posterior that is optimised for the sample finds much more [1]_. With L
    the evidence lower bound and the decoder fixed, the regret is

        max_q L(x; q) - L(x; q_encoder),

    in nats, the maximum being approached by ``n_steps`` steps from the encoder's own posterior;
    the largest bound on the way counts, so that no regret is negative. The score is minus that.

    Parameters
    ----------
    estimator : GenerativeNet, FrozenEstimator or nn.Module
        The likelihood model. Its module must offer ``encode(X) -> (mean, log_variance)`` and
        ``bound(X, mean, log_variance, noise=None) -> (n,)``, as `skgradood.models.VAE` does. An
        unfitted `GenerativeNet` is cloned and fitted in ``fit``; one inside
        ``sklearn.frozen.FrozenEstimator``, and a module, are used as they are.
    over : {"encoder", "posterior"}, default="encoder"
        What is optimised. "encoder": the encoder's parameters, a copy for every sample, as in the
        paper. "posterior": mean and log-variance of the latent variables, which takes a larger
        ``lr`` and costs much less.
    n_steps : int, default=100
        Steps for every sample.
    lr : float, default=1e-4
        Learning rate.
    optimizer : {"adam", "adamax", "adamw", "sgd"}, default="adam"
        How variables are updated; every sample has a state of its own.
    n_draws : int, default=0
        Draws from the posterior over which the bound is averaged, the same in every step and
        from a generator of the sample's own. 0: the bound is evaluated at the posterior's mean,
        free of noise.
    n_threshold_samples : int or None, default=512
        Training samples (or groups), drawn at random, on which the threshold is set: each of them
        has to be optimised. None: all.
    contamination : "auto" or float in (0, 0.5], default="auto"
        Share of these samples that ``predict`` calls outliers; "auto" is 0.05. Use
        `ConformalDetector` where the false-positive rate matters.
    batch_size : int or "auto", default="auto"
        Samples that are optimised at once, at most; fewer if their copies of the encoder do not
        fit into memory.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is CUDA where there is one, else the CPU.
    random_state : int, RandomState or None, default=None
        Seed of the draws; None is a fixed seed, too.
    grouped : bool, default=False
        As in `LogLikelihoodDetector`.

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
    A sample whose bound or regret is not finite scores -inf, a certain outlier.

    References
    ----------
    .. [1] Z. Xiao, Q. Yan, Y. Amit, "Likelihood regret: an out-of-distribution detection score for
       variational auto-encoder", NeurIPS 2020.

    Examples
    --------
    >>> from skgradood import GenerativeNet, LikelihoodRegretDetector
    >>> from skgradood.datasets import load_digits_ood
    >>> from skgradood.models import VAE
    >>> digits = load_digits_ood(random_state=0)
    >>> vae = GenerativeNet(VAE, module__width=4, max_epochs=1, random_state=0)
    >>> detector = LikelihoodRegretDetector(vae, n_steps=3).fit(digits.train[:100])
    >>> bool((detector.score_samples(digits.test[:5]) <= 0).all())
    True
    """

    _parameter_constraints: dict[str, list] = {
        "estimator": [object],
        "over": [StrOptions(set(OVER))],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "n_draws": [Interval(Integral, 0, None, closed="left")],
        "n_threshold_samples": [Interval(Integral, 1, None, closed="left"), None],
        **SAMPLE_CONSTRAINTS,
    }

    def __init__(
        self,
        estimator: Any,
        *,
        over: str = "encoder",
        n_steps: int = 100,
        lr: float = 1e-4,
        optimizer: str = "adam",
        n_draws: int = 0,
        n_threshold_samples: int | None = 512,
        contamination: float | str = "auto",
        batch_size: int | str = "auto",
        device: str | torch.device = "auto",
        random_state: Any = None,
        grouped: bool = False,
    ) -> None:
        self.estimator = estimator
        self.over = over
        self.n_steps = n_steps
        self.lr = lr
        self.optimizer = optimizer
        self.n_draws = n_draws
        self.n_threshold_samples = n_threshold_samples
        self.contamination = contamination
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.grouped = grouped

    # The inner estimator validates its own parameters when it is fitted.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> LikelihoodRegretDetector:
        """Fit the autoencoder, unless it comes fitted, and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, H, W), (n, C, H, W) or (n, H, W, C)
            Inliers: uint8 images, or what else the autoencoder takes; groups of them under
            ``grouped=True``.
        y : None
            Ignored, exists for compatibility.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If ``estimator`` is none of what is expected, or its module is no autoencoder with the
            methods that are needed.
        ValueError
            If X is not what the model takes.
        """
        with untouched_by_failure(self):
            samples, group_size = self._take(X, reset=True)
            self.likelihood_model_ = self._fit_model(self.estimator, samples)
            check_variational(self.likelihood_model_.module)
            scores = self._scores(self._for_threshold(samples, group_size), group_size)
            self.offset_ = contamination_offset(scores, self.contamination)
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Compute minus the regret of each sample, or its mean over each group.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n,), float64
            At most 0, in nats, higher is more normal.
        """
        check_is_fitted(self)
        return self._scores(*self._take(X, reset=False))

    def _for_threshold(self, samples: np.ndarray, group_size: int) -> np.ndarray:
        n = len(samples) // group_size
        if self.n_threshold_samples is None or n <= self.n_threshold_samples:
            return samples
        order = np.random.default_rng(self._seed).permutation(n)
        chosen = np.sort(order[: self.n_threshold_samples])
        groups = samples.reshape(n, group_size, *samples.shape[1:])
        return groups[chosen].reshape(-1, *samples.shape[1:])

    def _scores(self, samples: np.ndarray, group_size: int) -> np.ndarray:
        inputs = self.likelihood_model_.prepare(samples)
        regrets = []
        start = 0
        with module_at_rest(self.likelihood_model_, self.device) as (module, home):
            size = chunk_size(module, inputs[:1].to(home), self.over, self.batch_size)
            while start < len(inputs):
                chunk = inputs[start : start + size].to(home)
                try:
                    regrets.append(self._regrets(module, chunk).cpu().numpy())
                except RuntimeError as error:
                    if size == 1 or not is_out_of_memory(error):
                        raise
                    size = max(1, size // 2)
                    _LOGGER.warning("out of GPU memory: going on with %d samples at once", size)
                    empty_cache(home)
                else:
                    start += len(chunk)
        scores = -np.concatenate(regrets)
        return group_means(np.where(np.isfinite(scores), scores, -np.inf), group_size)

    def _regrets(self, module: nn.Module, X: Tensor) -> Tensor:
        with torch.enable_grad():
            before, after = bounds_before_and_after(
                module,
                X,
                over=self.over,
                n_steps=self.n_steps,
                lr=self.lr,
                optimizer=self.optimizer,
                noise=self._noise(module, X),
            )
        return in_float64(after) - in_float64(before)

    def _noise(self, module: nn.Module, X: Tensor) -> Tensor | None:
        """Draws of the rows' own generators, (n_draws, n, L)."""
        if self.n_draws == 0:
            return None
        with torch.no_grad():
            n_latent = cast("VariationalModule", module).encode(X[:1])[0].shape[1]
        dtype, device = parameter_dtype(module), X.device
        draws = [
            torch.randn(
                self.n_draws,
                n_latent,
                generator=torch.Generator(device=device).manual_seed(seed),
                dtype=dtype,
                device=device,
            )
            for seed in LogLikelihood(random_state=self._seed).row_seeds(X)
        ]
        return torch.stack(draws, dim=1)

"""Random network distillation, with blurred copies of the training images as its opposite."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skgradood.datasets import perturb
from skgradood.detectors._base import contamination_offset
from skgradood.detectors._distillation import Distillation
from skgradood.detectors._samples import (
    SAMPLE_CONSTRAINTS,
    SampleDetector,
    group_means,
    or_impossible,
)
from skgradood.gradients.state import isolated_rng
from skgradood.models._batches import evaluate_in_batches, resolve_device
from skgradood.models._pixels import to_unit
from skgradood.utils.atomic import untouched_by_failure

# Rows are standardised; a constant column is given some width.
_SMALLEST_DEVIATION = 1e-6
# Images that are blurred at once, in float64.
_CHUNK = 4096


class RandomNetworkDistillationDetector(SampleDetector):
    """Judge samples by how well a network has learnt, on inliers, what a random one does.

    A predictor f is trained to give the same features as a fixed random network g_0 on the
    training samples. Elsewhere it has no reason to. The score is -||f(x) - g_0(x)||^2 [1]_.

    Simple, smooth images are learnt along with the others. So copies of the training images that
    have been blurred in K degrees are given targets g_1, ..., g_K of their own, which f has to
    learn as well [2]_:

        min_f  E ||f(x) - g_0(x)||^2 + sum_k E ||f(blur_k(x)) - g_k(blur_k(x))||^2.

    Parameters
    ----------
    blur : {"svd", "dct", "gaussian", "random"} or None, default="svd"
        How copies are blurred: small singular values removed, high cosine frequencies removed, a
        Gaussian filter, or (a control that blurs nothing in particular) columns projected onto a
        random subspace. None: no copies, the detector of [1]_. Only uint8 images can be blurred.
        The first three are kinds of blurring in [2]_; what "random" projects and how is ours, and
        need not be what the paper means by the word.
    severity : float, sequence of float or None, default=None
        Degree of every blurred copy: for "gaussian" the standard deviation in pixels (None: 1),
        for the others the share of singular values, frequencies or dimensions that is removed
        (None: 0.5). The defaults are ours.
    n_features : int, default=64
        Length of what the networks put out.
    width : int, default=16
        Channels of their first convolution, of three; rows get hidden layers of 4 times as many.
    max_epochs : int, default=30
        Passes over the training samples.
    lr : float, default=1e-3
        Learning rate of Adam.
    contamination : "auto" or float in (0, 0.5], default="auto"
        Share of the training samples that ``predict`` calls outliers; "auto" is 0.05. Training
        samples score higher than fresh ones: use `ConformalDetector` where the false-positive
        rate matters.
    batch_size : int or "auto", default="auto"
        Samples a pass, in training and evaluation; "auto" is 64.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is CUDA where there is one, else the CPU.
    random_state : int, RandomState or None, default=None
        Seed of the networks, the order of the samples and the random blur; None is a fixed seed,
        too.
    grouped : bool, default=False
        As in `LogLikelihoodDetector`.

    Attributes
    ----------
    weights_ : dict of str to ndarray
        Of the predictor and the targets.
    input_shape_ : tuple of int
        Shape of one sample: ``(d,)`` or ``(C, H, W)``.
    location_, scale_ : ndarray
        Moments that standardise floating-point samples.
    offset_ : float
        Samples that score below it are outliers.
    n_features_in_ : int
        Values in a sample.
    feature_names_in_ : ndarray of str
        Names of the input's columns, if X was a DataFrame.

    References
    ----------
    .. [1] Y. Burda, H. Edwards, A. Storkey, O. Klimov, "Exploration by random network
       distillation", ICLR 2019.
    .. [2] S. Choi, S.-Y. Chung, "Novelty detection via blurring", ICLR 2020.

    Examples
    --------
    >>> from skgradood import RandomNetworkDistillationDetector
    >>> from skgradood.datasets import load_digits_ood
    >>> digits = load_digits_ood(random_state=0)
    >>> detector = RandomNetworkDistillationDetector(max_epochs=2, random_state=0)
    >>> detector.fit(digits.train[:200]).score_samples(digits.test[:5]).shape
    (5,)
    """

    _parameter_constraints: dict[str, list] = {
        "blur": [StrOptions({"svd", "dct", "gaussian", "random"}), None],
        "severity": [Interval(Real, 0, None, closed="left"), "array-like", None],
        "n_features": [Interval(Integral, 1, None, closed="left")],
        "width": [Interval(Integral, 1, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        **SAMPLE_CONSTRAINTS,
    }

    def __init__(
        self,
        *,
        blur: str | None = "svd",
        severity: Any = None,
        n_features: int = 64,
        width: int = 16,
        max_epochs: int = 30,
        lr: float = 1e-3,
        contamination: float | str = "auto",
        batch_size: int | str = "auto",
        device: str | torch.device = "auto",
        random_state: Any = None,
        grouped: bool = False,
    ) -> None:
        self.blur = blur
        self.severity = severity
        self.n_features = n_features
        self.width = width
        self.max_epochs = max_epochs
        self.lr = lr
        self.contamination = contamination
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.grouped = grouped

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> RandomNetworkDistillationDetector:
        """Train the predictor and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, H, W), (n, C, H, W) or (n, H, W, C)
            Inliers: uint8 images, or rows if ``blur=None``; groups of them under ``grouped=True``.
        y : None
            Ignored, exists for compatibility.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X holds no images that can be blurred, or a severity is out of range.
        RuntimeError
            If training diverges.
        """
        with untouched_by_failure(self):
            samples, group_size = self._take(X, reset=True)
            sets = [samples, *self._blurred(samples)]
            self.input_shape_ = samples.shape[1:]
            self._is_bytes = samples.ndim == 4 and samples.dtype == np.uint8
            self.location_ = samples.mean(axis=0, dtype=np.float64)
            self.scale_ = np.maximum(samples.std(axis=0, dtype=np.float64), _SMALLEST_DEVIATION)
            device = resolve_device(self.device)
            with isolated_rng(self._seed):
                networks = Distillation(self.input_shape_, len(sets), self.n_features, self.width)
            networks.to(device, self._dtype).learn(
                sets,
                lambda chosen: self._as_input(chosen).to(device),
                max_epochs=self.max_epochs,
                lr=self.lr,
                batch_size=self._batch_size,
                generator=torch.Generator().manual_seed(self._seed),
            )
            self.weights_ = networks.to_arrays()
            self._n_targets = len(sets)
            self.offset_ = contamination_offset(
                self._scores(samples, group_size), self.contamination
            )
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Compute minus the squared distance of prediction and target, or its mean over a group.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n,), float64
            At most 0, higher is more normal; -inf where it overflows.
        """
        check_is_fitted(self)
        return self._scores(*self._take(X, reset=False))

    @property
    def _batch_size(self) -> int:
        return 64 if self.batch_size == "auto" else int(self.batch_size)

    @property
    def _dtype(self) -> torch.dtype:
        return torch.float32 if len(self.input_shape_) == 3 else torch.float64

    def _scores(self, samples: np.ndarray, group_size: int) -> np.ndarray:
        self._check_like_training(samples)
        device = resolve_device(self.device)
        with isolated_rng():  # initialisation draws numbers, which the weights then replace
            networks = Distillation(self.input_shape_, self._n_targets, self.n_features, self.width)
        networks.to(self._dtype).from_arrays(self.weights_).to(device)
        distances = evaluate_in_batches(
            networks.distance,
            self._as_input(samples),
            batch_size=self._batch_size,
            device=device,
        )
        return group_means(or_impossible(-distances), group_size)

    def _as_input(self, samples: np.ndarray) -> Tensor:
        if self._is_bytes:
            return to_unit(torch.tensor(np.ascontiguousarray(samples)), self._dtype)
        with np.errstate(over="ignore"):
            standardised = (samples - self.location_) / self.scale_
        return torch.tensor(standardised, dtype=self._dtype)

    def _check_like_training(self, samples: np.ndarray) -> None:
        if samples.shape[1:] != self.input_shape_:
            raise ValueError(
                f"X holds samples of shape {samples.shape[1:]} (channels first), but the detector "
                f"was fitted on samples of shape {self.input_shape_}."
            )
        if len(self.input_shape_) == 3 and (samples.dtype == np.uint8) != self._is_bytes:
            fitted_on = "uint8" if self._is_bytes else "floating-point"
            raise ValueError(
                f"the detector was fitted on {fitted_on} images, but X has dtype {samples.dtype}"
            )

    def _blurred(self, samples: np.ndarray) -> list[np.ndarray]:
        if self.blur is None:
            return []
        if samples.ndim != 4 or samples.dtype != np.uint8:
            raise ValueError(
                f"blur={self.blur!r} needs images of dtype uint8, but X has shape {samples.shape} "
                f"and dtype {samples.dtype}; for other data use blur=None"
            )
        degrees = _DEFAULT_SEVERITIES[self.blur] if self.severity is None else self.severity
        return [
            _BLURS[self.blur](samples, severity, self._seed)
            for severity in np.atleast_1d(degrees).tolist()
        ]


def _perturbed(kind: str) -> Callable[[np.ndarray, float, int], np.ndarray]:
    def blur(images: np.ndarray, severity: float, seed: int) -> np.ndarray:
        chunks = [
            perturb(images[start : start + _CHUNK], kind, severity=severity)
            for start in range(0, len(images), _CHUNK)
        ]
        return np.concatenate(chunks)

    return blur


def project_randomly(images: np.ndarray, severity: float, seed: int) -> np.ndarray:
    """Images whose columns are projected onto one random subspace, rounded and clipped.

    Parameters
    ----------
    images : ndarray of shape (n, C, H, W), uint8
    severity : float in [0, 1]
        Share of the H dimensions that is removed, at most all but one.
    seed : int
        Of the subspace.
    """
    if not 0 <= severity <= 1:
        raise ValueError(f"severity must lie in [0, 1] for this kind; got {severity}")
    height = images.shape[2]
    directions = np.random.default_rng(seed).standard_normal((height, height))
    kept = np.linalg.qr(directions)[0][:, : max(1, round((1 - severity) * height))]
    projected = kept @ (kept.T @ images.astype(np.float64))
    return np.clip(np.rint(projected), 0, 255).astype(np.uint8)


_DEFAULT_SEVERITIES = {"svd": 0.5, "dct": 0.5, "gaussian": 1.0, "random": 0.5}
_BLURS: dict[str, Callable[[np.ndarray, float, int], np.ndarray]] = {
    "svd": _perturbed("svd_blur"),
    "dct": _perturbed("dct_blur"),
    "gaussian": _perturbed("gaussian_blur"),
    "random": project_randomly,
}

"""``skgradood fit``: from data to a saved, calibrated detector."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skgradood.cli._console import complain, say
from skgradood.cli._data import Samples, check_destination, read_samples
from skgradood.detectors import ConformalDetector
from skgradood.models import (
    VAE,
    GaussianDiffusion,
    GenerativeNet,
    Glow,
    NeuralSplineFlow,
    PixelCNN,
    RealNVP,
)
from skgradood.persistence import save
from skgradood.pipeline import make_detector
from skgradood.utils.validation import check_samples

_MODULES: dict[str, Any] = {
    "vae": VAE,
    "glow": Glow,
    "pixelcnn": PixelCNN,
    "diffusion": GaussianDiffusion,
    "real_nvp": RealNVP,
    "spline_flow": NeuralSplineFlow,
}
# Where a module's own defaults are not what a detector wants.
_PRESETS: dict[Any, dict[str, Any]] = {
    # The same noise for every image: what differs between images is then not the noise.
    GaussianDiffusion: {"module__noise": "shared"},
    # In units of the standardised columns: the flow then does not chase single training rows.
    RealNVP: {"module__noise": 0.1},
    NeuralSplineFlow: {"module__noise": 0.1},
}
# The least height and width, and the factor of both. Other modules take all images.
_SIDES: dict[Any, tuple[int, int]] = {VAE: (8, 1), Glow: (4, 4)}
_MODEL_SHARE = 0.6  # the rest is halved: for the density, and for calibration
_FEWEST_SAMPLES = 20
_FEW_REFERENCE = 100  # fewer rows leave a covariance of dozens of layers mostly to shrinkage
_MANY_PARAMETERS = 1_000_000
_PARAMETERS_A_ROW = 1_000
_LARGEST = 1e150  # the squares of larger numbers, of which scales are made, are infinite


def fit(
    *,
    train: str,
    out: str,
    model: str,
    alpha: float,
    size: list[int] | None,
    on_error: str,
    seed: int,
    **net: Any,
) -> None:
    """Train, calibrate and save a detector.

    Parameters
    ----------
    train : str
        Path of the in-distribution data.
    out : str
        Path of the detector.
    model : {"auto", "vae", "glow", "pixelcnn", "diffusion", "real_nvp", "spline_flow"}
        The likelihood model.
    alpha : float
        The false-positive rate.
    size : [H, W] or None
        Size of all images.
    on_error : {"raise", "skip"}
        What to do with image files that cannot be read.
    seed : int
        Seed of everything random.
    **net
        ``epochs``, ``batch_size``, ``lr`` and ``device`` of the training.
    """
    destination = check_destination(out, train)
    samples = read_samples(train, size=size, on_error=on_error)
    if not samples.are_images:
        _check_rows(samples.X)  # an error names a row of the file, before rows are shuffled
    module = _choose_module(model, samples)
    _check_sides(module, samples, train)
    training, reference, calibration = _divide(samples.X, seed)
    if not samples.are_images:
        _warn_of_size(module, samples.shape, len(training))
    say(
        f"{len(samples.names)} samples of shape {samples.X.shape[1:]}: {len(training)} train "
        f"{module.__name__}, {len(reference)} fit the density, {len(calibration)} calibrate"
    )
    scaler = None if samples.are_images else FrozenEstimator(StandardScaler().fit(training))
    estimator = _make_net(module, seed, **net).fit(_scaled(scaler, training))
    kind = "images" if samples.are_images else "rows"
    detector = make_detector(FrozenEstimator(estimator), data=kind, random_state=seed)
    if scaler is not None:
        detector = make_pipeline(scaler, detector)
    detector.fit(reference)
    calibrated = ConformalDetector(detector, alpha=alpha, calibration="prefit").fit(calibration)
    save(calibrated, destination)
    _report_likelihood(estimator, _scaled(scaler, calibration), samples.are_images)
    _report_rate(alpha, len(calibration))
    say(f"saved {out} ({destination.stat().st_size / 2**20:.1f} MiB)")


def _check_rows(X: Any) -> None:
    """Refuse rows that cannot be standardised."""
    too_large = np.abs(check_samples(X)) > _LARGEST
    if too_large.any():
        row, column = np.argwhere(too_large)[0]
        names = getattr(X, "columns", range(too_large.shape[1]))
        raise ValueError(
            f"column {names[column]!r} holds {np.asarray(X)[row, column]:g} in data row {row}, too "
            "large to be standardised; correct or remove what is no measurement"
        )


def _choose_module(model: str, samples: Samples) -> Any:
    if model == "auto":
        return VAE if samples.are_images else RealNVP
    module = _MODULES[model]
    if (module.input_kind == "image") != samples.are_images:
        kind = "images" if samples.are_images else "rows"
        raise ValueError(
            f"--model {model} does not fit the data, which are {kind}; use --model auto"
        )
    return module


def _check_sides(module: Any, samples: Samples, train: str) -> None:
    """Refuse images whose height or width the module does not take."""
    if module not in _SIDES:
        return
    least, factor = _SIDES[module]
    sides = samples.shape[1:]
    fitting = [max(math.ceil(side / factor) * factor, least) for side in sides]
    if list(sides) != fitting:
        multiples = f", in multiples of {factor}" if factor > 1 else ""
        raise ValueError(
            f"{module.__name__} takes images with a height and width from {least} on{multiples}; "
            f"those in {train} have {sides[0]} x {sides[1]} pixels: resize them with --size "
            f"{fitting[0]} {fitting[1]}, or take another --model"
        )


def _divide(X: Any, seed: int) -> tuple[Any, Any, Any]:
    """Divide at random: for the model, for the density, for calibration."""
    if len(X) < _FEWEST_SAMPLES:
        raise ValueError(f"at least {_FEWEST_SAMPLES} samples are needed; got {len(X)}")
    training, held_out = train_test_split(X, train_size=_MODEL_SHARE, random_state=seed)
    reference, calibration = train_test_split(held_out, test_size=0.5, random_state=seed)
    if len(reference) < _FEW_REFERENCE:
        complain(
            f"warning: {len(reference)} samples are few to fit the density; give more training data"
        )
    return training, reference, calibration


def _warn_of_size(module: Any, shape: tuple[int, ...], n_training: int) -> None:
    """Tell of a model with far more parameters than rows can determine: it grows as columns²."""
    with torch.device("meta"):
        n_parameters = sum(p.numel() for p in module(input_shape=shape).parameters())
    if n_parameters > max(_MANY_PARAMETERS, _PARAMETERS_A_ROW * n_training):
        complain(
            f"warning: {module.__name__} of {shape[0]} columns has {n_parameters / 1e6:.1f} "
            f"million parameters for {n_training} training rows: it will know these by heart, take "
            "long to fit and much space to save; give fewer columns (a selection, principal "
            "components), or more rows"
        )


def _make_net(module: Any, seed: int, *, epochs: int, **options: Any) -> GenerativeNet:
    options |= _PRESETS.get(module, {})
    return GenerativeNet(module, max_epochs=epochs, random_state=seed, verbose=1, **options)


def _scaled(scaler: FrozenEstimator | None, X: Any) -> Any:
    return X if scaler is None else scaler.transform(X)


def _report_likelihood(estimator: GenerativeNet, held_out: Any, are_images: bool) -> None:
    if are_images:
        say(f"held-out {np.mean(estimator.bits_per_dim(held_out)):.3f} bits/dim")
    else:
        say(f"held-out log-likelihood {estimator.score(held_out):.3f} nats (standardised columns)")


def _report_rate(alpha: float, n_calibration: int) -> None:
    """Tell the false-positive rate that ranks among the calibration samples can reach."""
    reachable = math.floor(alpha * (n_calibration + 1)) / (n_calibration + 1)
    say(f"expected false-positive rate {reachable:.4f} (asked for: at most {alpha:g})")

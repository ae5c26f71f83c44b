"""``skgradood demo``: the whole method on bundled digits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator

from skgradood.baselines import RECOMMENDED, baseline_detectors
from skgradood.cli._console import complain, say
from skgradood.cli._data import check_folder
from skgradood.datasets import load_digits_ood
from skgradood.evaluation import Comparison, compare_detectors
from skgradood.features import FisherPreconditioner
from skgradood.inspection import ComparisonDisplay
from skgradood.models import VAE, GenerativeNet
from skgradood.utils.files import replacing

_DETECTORS = (
    "log-likelihood",
    "two-sided likelihood",
    "joint density (published)",
    "joint density (dependent)",
    RECOMMENDED,
)
_ALPHA = 0.05
_VAE: dict[str, Any] = {"module__latent_dim": 16, "module__width": 16, "lr": 2e-3}
_PARTS = ("reference", "calibration", "test")


def demo(*, out: str, epochs: int, seed: int) -> None:
    """Train on digits, compare detectors, print a table and save a figure.

    Parameters
    ----------
    out : str
        Folder of the figure; made if missing.
    epochs : int
        Passes over the training digits.
    seed : int
        Seed of everything random.
    """
    folder = check_folder(out)
    start = time.perf_counter()
    digits = load_digits_ood(random_state=seed)
    complain(f"training a VAE on {len(digits.train)} digits of 8 x 8 pixels")
    with _one_thread():
        vae = GenerativeNet(VAE, **_VAE, max_epochs=epochs, random_state=seed, verbose=1)
        vae.fit(digits.train)
        complain(f"computing features: {_describe(digits)}")
        transformer, features = _compute_features(vae, digits, seed)
    comparison = _compare(transformer, features, digits, seed)
    say(
        "AUROC of out-of-distribution sets (rows) against test digits, by detector (columns); "
        f"last row: false-positive rate on test digits at the promised {_ALPHA:.0%}."
    )
    say("")
    say(comparison.to_markdown("auroc"))
    say("")
    _save_figure(comparison, folder)
    complain(f"took {time.perf_counter() - start:.0f} s")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: at 8 x 8 pixels several spend their time waiting for each other."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def _describe(digits: Any) -> str:
    n = sum(len(digits[part]) for part in _PARTS) + sum(map(len, digits.ood.values()))
    return f"{n} images, of which {len(digits.ood)} sets are out of distribution"


def _compute_features(
    vae: GenerativeNet, digits: Any, seed: int
) -> tuple[Any, dict[str, np.ndarray]]:
    transformer = FisherPreconditioner(
        FrozenEstimator(vae),
        approximation=("identity", "ekfac"),
        power=2.0,
        output="log",
        log_likelihood_column=True,
        random_state=seed,
    ).fit(digits.reference)
    images = {part: digits[part] for part in _PARTS} | digits.ood
    return transformer, {name: transformer.transform(X) for name, X in images.items()}


def _compare(
    transformer: Any, features: dict[str, np.ndarray], digits: Any, seed: int
) -> Comparison:
    detectors = baseline_detectors(transformer.get_feature_names_out(), random_state=seed)
    return compare_detectors(
        {name: detectors[name] for name in _DETECTORS},
        features["reference"],
        features["test"],
        {name: features[name] for name in digits.ood},
        alpha=_ALPHA,
        X_calibration=features["calibration"],
        random_state=seed,
    )


def _save_figure(comparison: Comparison, folder: Path) -> None:
    try:
        display = ComparisonDisplay(comparison.metrics["auroc"]).plot(
            title="Digits against what is foreign to them"
        )
    except ImportError as error:
        say(f"No figure: {error}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "detectors.png"
    with replacing(path) as stream:
        display.figure_.savefig(stream, dpi=150, format="png")
    say(f"Figure: {path}")

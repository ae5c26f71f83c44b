"""Test bits per dimension of the benchmarks' models, beside simple models and published numbers.

    python -m benchmarks.bits --data-dir DIR

takes the models of ``benchmarks.ood`` from the cache, trains what is missing (a PixelCNN and a
diffusion model of Fashion-MNIST, models of the bundled digits), measures all of them on fresh
images, and writes ``docs/results/bits.md``. What has been measured is kept in the cache, too.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.utils import shuffle

from benchmarks.bits_models import DIGITS, SECONDS, diffusion, pixel_cnn
from benchmarks.bits_page import Row, Section, page
from benchmarks.bits_simple import (
    CODECS,
    N_CODED,
    code_bits,
    gaussian_bits,
    histogram_bits,
    joint_code_bits,
    neighbour_bits,
    pooled_histogram_bits,
)
from benchmarks.features import argument_parser, fitted, trained
from benchmarks.images import Division, load_division
from benchmarks.presets import PRESETS
from skgradood.features import LogLikelihoodTransformer
from skgradood.models import VAE, GaussianDiffusion, GenerativeNet, Glow

# As many of the other models' training images as a PixelCNN sees some times in ten minutes.
N_TRAIN = 10_000
N_DIGITS = 1297
# The most test images of what takes long.
N_DIFFUSED, N_WEIGHTED = 500, 500
N_DRAWS = 16
SIMPLE: dict[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], str]] = {
    "histogram for each pixel and channel": (histogram_bits, "exact"),
    "one histogram for all": (pooled_histogram_bits, "exact"),
    "normal distribution, full covariance": (gaussian_bits, "bound, dequantised"),
    "differences of neighbouring pixels": (neighbour_bits, "exact"),
}
KINDS = {VAE: "bound, one draw", Glow: "bound, dequantised", GaussianDiffusion: "bound"}


class Training(NamedTuple):
    """What a model was trained with."""

    n_images: int
    epochs: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.n_images} images, {self.epochs} epochs, {self.seconds / 60:.1f} min"


def main() -> None:
    """Measure, print and write the page."""
    arguments = argument_parser(__doc__.splitlines()[0]).parse_args()
    sections = {}
    for name, measure in SECTIONS.items():
        numbers = f"{arguments.n_test}-{arguments.n_ood}-{arguments.seed}"
        path = arguments.cache_dir / f"bits-{name}-{numbers}.joblib"
        if not path.exists():
            joblib.dump(measure(arguments), path)
            print(f"measured {name}", flush=True)
        sections[name] = joblib.load(path)
    text = page(sections, arguments)
    (arguments.results_dir / "bits.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def fashion_mnist(arguments: argparse.Namespace) -> Section:
    """Glow, PixelCNN and diffusion of images of 28 x 28."""
    division = _division("fashion_mnist", "glow", arguments)
    rows, curves = [*_of_preset("fashion_mnist", "glow", division, arguments)], {}
    images = division.model[:N_TRAIN]
    for name, make in {"PixelCNN": pixel_cnn, "diffusion": diffusion}.items():
        prefix = arguments.cache_dir / f"fashion_mnist-{make.__name__}"
        net, _ = fitted(make(arguments.seed), images, prefix)
        training = Training(len(images), net.max_epochs, net.history_[-1][SECONDS])
        rows += _of_model(name, net, division.test, training)
        curves[name] = [
            (epoch[SECONDS], epoch["valid_loss"] / (net.n_features_in_ * math.log(2)))
            for epoch in net.history_
        ]
    return Section([*rows, *_simple(division.model, division.test)], curves)


def resized_fashion_mnist(arguments: argparse.Namespace) -> Section:
    """The VAE's images, 32 x 32."""
    division = _division("fashion_mnist", "vae", arguments)
    rows = _of_preset("fashion_mnist", "vae", division, arguments)
    return Section([*rows, *_simple(division.model, division.test)], {})


def cifar10(arguments: argparse.Namespace) -> Section:
    """VAE and Glow of 32 x 32 x 3."""
    division = _division("cifar10", "glow", arguments)
    rows = [
        row
        for model in ("vae", "glow")
        for row in _of_preset("cifar10", model, division, arguments)
    ]
    return Section([*rows, *_simple(division.model, division.test)], {})


def digits(arguments: argparse.Namespace) -> Section:
    """The models of the slow tests, and other Glows."""
    images = shuffle(load_digits().images.astype(np.uint8), random_state=0)
    train, test = images[:N_DIGITS], images[N_DIGITS:]
    rows = []
    for name, net in DIGITS.items():
        prefix = f"digits-{name.lower().replace(', ', '-')}"
        net, seconds = fitted(net, train, arguments.cache_dir / prefix)
        rows += _of_model(name, net, test, Training(len(train), net.max_epochs, seconds))
    return Section([*rows, *_simple(train, test)], {})


SECTIONS: dict[str, Callable[[argparse.Namespace], Section]] = {
    "fashion_mnist": fashion_mnist,
    "resized_fashion_mnist": resized_fashion_mnist,
    "cifar10": cifar10,
    "digits": digits,
}


def _division(train: str, model: str, arguments: argparse.Namespace) -> Division:
    return load_division(
        arguments.data_dir,
        train,
        size=PRESETS[model].image_size[train],
        n_test=arguments.n_test,
        n_ood=arguments.n_ood,
        seed=arguments.seed,
    )


def _of_preset(
    train: str, model: str, division: Division, arguments: argparse.Namespace
) -> Iterator[Row]:
    own = argparse.Namespace(**vars(arguments) | {"train": train, "model": model})
    net, seconds = trained(division, own)
    training = Training(len(division.model), PRESETS[model].epochs[train], seconds)
    yield from _of_model({"vae": "VAE", "glow": "Glow"}[model], net, division.test, training)


def _of_model(name: str, net: GenerativeNet, test: np.ndarray, training: Training) -> Iterator[Row]:
    """Its bits per dimension, and those of a tighter bound where there is one."""
    n_parameters = sum(p.numel() for p in net.module_.parameters())
    budget = f"{n_parameters} parameters, {training}"
    if net.module is GaussianDiffusion:
        test = test[:N_DIFFUSED]
    yield _row(name, net.bits_per_dim(test), KINDS.get(net.module, "exact"), budget)
    if net.module is VAE:
        bits = _weighted_bits(net, test[:N_WEIGHTED])
        yield _row(name, bits, f"bound, importance-weighted, {N_DRAWS} draws", "the same")


def _weighted_bits(net: GenerativeNet, test: np.ndarray) -> np.ndarray:
    """Importance-weighted bound of a VAE, bits per dimension of every image."""

    def bound(module: Any, X: Any, generator: Any) -> Any:
        return module.log_prob_iw(X, generator, N_DRAWS)

    column = LogLikelihoodTransformer(FrozenEstimator(net), log_likelihood=bound)
    nats = column.fit(test).transform(test)[:, 0]
    return -nats / (net.n_features_in_ * math.log(2))


def _simple(train: np.ndarray, test: np.ndarray) -> Iterator[Row]:
    for name, (bits, kind) in SIMPLE.items():
        yield _row(name, bits(train, test), kind)
    few = test[:N_CODED]
    for codec, title in CODECS.items():
        yield _row(f"{title}, a file for each image", code_bits(few, codec), "length")
        together = joint_code_bits(few, codec)
        yield Row(f"{title}, one file for {len(few)}", together, None, len(few), "length")


def _row(name: str, bits: np.ndarray, kind: str, budget: str = "") -> Row:
    error = float(bits.std(ddof=1) / math.sqrt(len(bits)))
    return Row(name, float(bits.mean()), error, len(bits), kind, budget)


if __name__ == "__main__":
    main()

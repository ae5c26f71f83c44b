"""Real image data sets, on one pixel grid and of one size, and their division into parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skgradood.datasets import load_images

TEST_FILES = {
    "MNIST": "mnist_test.npz",
    "KMNIST": "kmnist_test.npz",
    "Fashion-MNIST": "fashion_mnist_test.npz",
    "notMNIST": "notmnist_10k.npz",
    "Omniglot": "omniglot_eval.npz",
    "CIFAR-10": "cifar10_test5k.npz",
    "SVHN": "svhn_test6k.npz",
    "CelebA": "celeba_3k.npz",
}
_COLOURED = ("CIFAR-10", "SVHN", "CelebA")


@dataclass(frozen=True)
class Training:
    """A set to train on: its file, its test set, its colour, and the sizes of held-out parts."""

    file: str
    test: str
    mode: str
    n_reference: int = 5000
    n_calibration: int = 5000


TRAININGS = {
    "fashion_mnist": Training("fashion_mnist_train.npz", "Fashion-MNIST", "grey"),
    "cifar10": Training("cifar10_train20k.npz", "CIFAR-10", "rgb", 4000, 2000),
}


@dataclass(frozen=True)
class Division:
    """Disjoint parts of in-distribution data, and out-of-distribution sets.

    All are uint8, (n, H, W) or (n, H, W, 3).

    Attributes
    ----------
    model, reference, calibration : ndarray
        Parts of the training images: for training the model, for fitting detectors, and
        for calibrating them.
    test : ndarray
        Test images.
    ood : dict of str to ndarray
        Out-of-distribution sets.
    """

    model: np.ndarray
    reference: np.ndarray
    calibration: np.ndarray
    test: np.ndarray
    ood: dict[str, np.ndarray]


def load_division(
    data_dir: Path, train: str, *, size: int, n_test: int, n_ood: int, seed: int
) -> Division:
    """Load a training set, divide it by a seeded permutation, and draw from the other sets.

    Every image that has to change size is resized by bilinear interpolation on uint8. Where the
    training images are grey, colour becomes grey by ITU-R 601 luma; where they have colours, grey
    images get three equal channels. Noise and constant images are drawn from the seed.
    """
    rng = np.random.default_rng(seed)
    own = TRAININGS[train]
    images = _load(data_dir / own.file, size, own.mode)
    images = images[rng.permutation(len(images))]
    held_out = [own.n_calibration, own.n_calibration + own.n_reference]
    calibration, reference, model = np.split(images, held_out)
    ood = {
        _title(name, own.mode): _draw(_load(data_dir / file, size, own.mode), n_ood, rng)
        for name, file in TEST_FILES.items()
        if name != own.test
    }
    shape = (n_ood, *images.shape[1:])
    ood["noise"] = rng.integers(0, 256, shape, dtype=np.uint8)
    colours = rng.integers(0, 256, (n_ood, 1, 1, *shape[3:]), dtype=np.uint8)
    ood["constant"] = np.broadcast_to(colours, shape).copy()
    test = _draw(_load(data_dir / TEST_FILES[own.test], size, own.mode), n_test, rng)
    return Division(model, reference, calibration, test, ood)


def _title(name: str, mode: str) -> str:
    return f"{name} (grey)" if mode == "grey" and name in _COLOURED else name


def _load(path: Path, size: int, mode: str) -> np.ndarray:
    return load_images(path, size=(size, size), mode=mode).data


def _draw(images: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return images[np.sort(rng.permutation(len(images))[:n])]

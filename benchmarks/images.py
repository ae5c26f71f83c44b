"""Real image data sets, on one pixel grid and of one size, and their division into parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skgradood.datasets import load_images

TRAIN_FILES = {"fashion_mnist": "fashion_mnist_train.npz"}
TEST_FILES = {"fashion_mnist": "fashion_mnist_test.npz"}
OOD_FILES = {
    "MNIST": "mnist_test.npz",
    "KMNIST": "kmnist_test.npz",
    "notMNIST": "notmnist_10k.npz",
    "Omniglot": "omniglot_eval.npz",
    "CIFAR-10 (grey)": "cifar10_test5k.npz",
    "SVHN (grey)": "svhn_test6k.npz",
    "CelebA (grey)": "celeba_3k.npz",
}
N_REFERENCE = 5000
N_CALIBRATION = 5000


@dataclass(frozen=True)
class Division:
    """Disjoint parts of in-distribution data, and out-of-distribution sets; uint8 (n, H, W).

    Attributes
    ----------
    model, reference, calibration : ndarray
        Parts of the official training images: for training the model, for fitting detectors, and
        for calibrating them.
    test : ndarray
        Official test images.
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

    Every image that has to change size is resized by bilinear interpolation on uint8; colour
    becomes grey by ITU-R 601 luma. Noise and constant images are drawn from the seed.
    """
    rng = np.random.default_rng(seed)
    images = _load(data_dir / TRAIN_FILES[train], size)
    images = images[rng.permutation(len(images))]
    calibration, reference, model = np.split(images, [N_CALIBRATION, N_CALIBRATION + N_REFERENCE])
    ood = {
        name: _draw(_load(data_dir / file, size), n_ood, rng) for name, file in OOD_FILES.items()
    }
    shape = (n_ood, size, size)
    ood["noise"] = rng.integers(0, 256, shape, dtype=np.uint8)
    greys = rng.integers(0, 256, (n_ood, 1, 1), dtype=np.uint8)
    ood["constant"] = np.broadcast_to(greys, shape).copy()
    test = _draw(_load(data_dir / TEST_FILES[train], size), n_test, rng)
    return Division(model, reference, calibration, test, ood)


def _load(path: Path, size: int) -> np.ndarray:
    return load_images(path, size=(size, size), mode="grey").data


def _draw(images: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return images[np.sort(rng.permutation(len(images))[:n])]

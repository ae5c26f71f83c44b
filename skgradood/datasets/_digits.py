"""Bundled digits with out-of-distribution sets made from bundled data."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
from sklearn.datasets import load_digits, load_sample_images
from sklearn.utils import Bunch, check_random_state

from skgradood.datasets._perturb import perturb
from skgradood.datasets._perturbations import draw_donors

_PARTS = {"train": 897, "reference": 300, "calibration": 300, "test": 300}
_PERTURBED: dict[str, dict[str, Any]] = {
    "noise": {},
    "constant": {},
    "inversion": {},
    "gaussian_noise": {"severity": 40},
    "brightness": {"severity": 0.6},
    "rotation": {"severity": 90},
    "mirror": {},
    "gaussian_blur": {"severity": 0.5},
    "svd_blur": {"severity": 0.75},
    "fourier_amplitude": {},
    "fourier_phase": {},
    "pixel_shuffle": {},
}
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601


def load_digits_ood(*, image_size: int = 8, random_state: Any = None) -> Bunch:
    """Digits bundled with scikit-learn, divided into four parts, with out-of-distribution sets.

    Nothing is downloaded. The digits have 8 x 8 pixels and 17 grey levels (0...16), which are
    mapped to the grid 0...255 by ``round(v * 255 / 16)``. Larger images are interpolated
    bilinearly. All sets, also the out-of-distribution ones, are rounded to these 17 levels, so
    that a grey level no digit has gives nothing away.

    Parameters
    ----------
    image_size : int, default=8
        Height and width of every image, at least 8.
    random_state : int, RandomState or None, default=None
        The seed of the division and of the perturbations.

    Returns
    -------
    Bunch
        ``train`` (897 images), ``reference`` (300), ``calibration`` (300) and ``test`` (300):
        disjoint uint8 arrays (n, image_size, image_size) of digits;
        ``ood``: dict from name to uint8 array (300, image_size, image_size).
        Perturbed copies of the test digits (`perturb`), and

        - "halves": upper half of one test digit, lower half of another (hard: every part is a
          digit's);
        - "clouds": smooth random textures with the 1/f spectrum of natural images;
        - "photographs": grey patches of scikit-learn's sample photographs. Reading them needs
          Pillow; without it this set is missing.

    Raises
    ------
    ValueError
        If ``image_size`` is below 8.
    """
    if image_size < 8:
        raise ValueError(f"image_size must be at least 8, the size of the digits; got {image_size}")
    rng = check_random_state(random_state)
    digits = _to_digit_levels(_enlarge(load_digits().images * (255 / 16), image_size))
    digits = digits[rng.permutation(len(digits))]
    ends = np.cumsum(list(_PARTS.values()))
    parts = dict(zip(_PARTS, np.split(digits, ends[:-1]), strict=True))
    ood = _make_ood_sets(parts["test"], rng)
    return Bunch(**parts, ood={name: _to_digit_levels(images) for name, images in ood.items()})


def _enlarge(images: np.ndarray, image_size: int) -> np.ndarray:
    factor = image_size / images.shape[1]
    if factor == 1:
        return images
    return scipy.ndimage.zoom(images, (1, factor, factor), order=1, mode="nearest", grid_mode=True)


def _to_digit_levels(images: np.ndarray) -> np.ndarray:
    """Round values 0...255 to the 17 grey levels that digits have."""
    return np.rint(np.rint(images * (16 / 255)) * (255 / 16)).astype(np.uint8)


def _make_ood_sets(test: np.ndarray, rng: np.random.RandomState) -> dict[str, np.ndarray]:
    sets = {
        kind: perturb(test, kind, random_state=rng, **options)
        for kind, options in _PERTURBED.items()
    }
    sets["halves"] = _exchange_halves(test, rng)
    sets["clouds"] = _draw_clouds(test.shape, rng)
    photographs = _read_photographs()
    if photographs:
        sets["photographs"] = _cut_patches(photographs, test.shape, rng)
    return sets


def _exchange_halves(images: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    middle = images.shape[1] // 2
    donors = draw_donors(len(images), rng)
    return np.concatenate([images[:, :middle], images[donors, middle:]], axis=1)


def _draw_clouds(shape: tuple[int, ...], rng: np.random.RandomState) -> np.ndarray:
    n, height, width = shape
    frequency = np.hypot(
        scipy.fft.fftfreq(height)[:, None] * height, scipy.fft.rfftfreq(width) * width
    )
    frequency[0, 0] = 1
    spectrum = scipy.fft.rfft2(rng.standard_normal((n, height, width))) / frequency
    fields = scipy.fft.irfft2(spectrum, s=(height, width))
    low, high = fields.min(axis=(1, 2), keepdims=True), fields.max(axis=(1, 2), keepdims=True)
    return np.rint((fields - low) / (high - low) * 255).astype(np.uint8)


def _read_photographs() -> list[np.ndarray]:
    try:
        photographs = load_sample_images().images
    except ImportError:  # scikit-learn reads them through Pillow
        return []
    return [np.rint(photograph @ _LUMA).astype(np.uint8) for photograph in photographs]


def _cut_patches(
    photographs: list[np.ndarray], shape: tuple[int, ...], rng: np.random.RandomState
) -> np.ndarray:
    patches = np.empty(shape, np.uint8)
    for patch in patches:
        photograph = photographs[rng.randint(len(photographs))]
        top = rng.randint(photograph.shape[0] - shape[1] + 1)
        left = rng.randint(photograph.shape[1] - shape[2] + 1)
        patch[:] = photograph[top : top + shape[1], left : left + shape[2]]
    return patches

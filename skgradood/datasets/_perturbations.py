"""The perturbations: ``(images, rng, severity) -> images``.

Images are float64 (n, C, H, W) on the grid 0...255; results may leave the grid (``perturb`` rounds
and clips). The input array is never written to.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.ndimage
from numpy.random import RandomState

from skgradood.datasets._fourier import from_spectrum, phasor, spectrum_of

_HW = (-2, -1)


def uniform_noise(images: np.ndarray, rng: RandomState) -> np.ndarray:
    return rng.randint(0, 256, size=images.shape).astype(np.float64)


def constant(images: np.ndarray, rng: RandomState) -> np.ndarray:
    n, channels = images.shape[:2]
    colours = rng.randint(0, 256, size=(n, channels, 1, 1)).astype(np.float64)
    return np.broadcast_to(colours, images.shape)


def gaussian_noise(images: np.ndarray, rng: RandomState, severity: float) -> np.ndarray:
    _check_range(severity, 0, np.inf)
    return images + severity * rng.standard_normal(images.shape)


def inversion(images: np.ndarray, rng: RandomState) -> np.ndarray:
    return 255.0 - images


def brightness(images: np.ndarray, rng: RandomState, severity: float) -> np.ndarray:
    _check_range(severity, 0, np.inf)
    return severity * images


def contrast(images: np.ndarray, rng: RandomState, severity: float) -> np.ndarray:
    _check_range(severity, 0, np.inf)
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return mean + severity * (images - mean)


def rotation(images: np.ndarray, rng: RandomState, severity: float) -> np.ndarray:
    quarter_turns, rest = divmod(severity, 90)
    if rest == 0 and (images.shape[2] == images.shape[3] or quarter_turns % 2 == 0):
        return np.rot90(images, int(quarter_turns), axes=_HW)
    # Corners that come into view repeat the border, so that no black wedge gives the answer away.
    return scipy.ndimage.rotate(
        images, severity, axes=_HW[::-1], reshape=False, order=1, mode="nearest"
    )


def mirror(images: np.ndarray, rng: RandomState) -> np.ndarray:
    return images[..., ::-1]


def gaussian_blur(images: np.ndarray, rng: RandomState, severity: float) -> np.ndarray:
    _check_range(severity, 0, np.inf)
    return scipy.ndimage.gaussian_filter(images, severity, axes=_HW, mode="nearest")


def dct_blur(images: np.ndarray, rng: RandomState, severity: float) -> np.ndarray:
    coefficients = scipy.fft.dctn(images, axes=_HW, norm="ortho")
    height, width = images.shape[2:]
    coefficients[:, :, n_kept(height, severity) :, :] = 0
    coefficients[:, :, :, n_kept(width, severity) :] = 0
    return scipy.fft.idctn(coefficients, axes=_HW, norm="ortho")


def svd_blur(images: np.ndarray, rng: RandomState, severity: float) -> np.ndarray:
    left, values, right = np.linalg.svd(images, full_matrices=False)
    rank = n_kept(values.shape[-1], severity)
    return (left[..., :rank] * values[..., None, :rank]) @ right[..., :rank, :]


def n_kept(size: int, severity: float) -> int:
    """Count the frequencies or singular values that stay: at least one."""
    _check_range(severity, 0, 1)
    return max(1, round((1 - severity) * size))


def fourier_amplitude(images: np.ndarray, rng: RandomState, severity: float) -> np.ndarray:
    _check_range(severity, 0, 1)
    spectrum = spectrum_of(images)
    amplitude = np.abs(spectrum)
    mixed = (1 - severity) * amplitude + severity * amplitude[draw_donors(len(images), rng)]
    return from_spectrum(mixed, phasor(spectrum), images.shape[2:])


def fourier_phase(images: np.ndarray, rng: RandomState, severity: float) -> np.ndarray:
    _check_range(severity, 0, 1)
    spectrum = spectrum_of(images)
    own = phasor(spectrum)
    mixed = (1 - severity) * own + severity * own[draw_donors(len(images), rng)]
    return from_spectrum(np.abs(spectrum), phasor(mixed), images.shape[2:])


def draw_donors(n: int, rng: RandomState) -> np.ndarray:
    """For each of n images, the index of another one; each is used once."""
    if n < 2:
        raise ValueError("mixing with another image needs at least two images; got one")
    order = rng.permutation(n)
    donors = np.empty(n, dtype=np.intp)
    donors[order] = np.roll(order, 1)
    return donors


def pixel_shuffle(images: np.ndarray, rng: RandomState) -> np.ndarray:
    n, channels, height, width = images.shape
    places = rng.random_sample((n, 1, height * width)).argsort(axis=-1)
    pixels = images.reshape(n, channels, height * width)
    return np.take_along_axis(pixels, places, axis=-1).reshape(images.shape)


def _check_range(severity: float, low: float, high: float) -> None:
    if not low <= severity <= high:
        raise ValueError(f"severity must lie in [{low}, {high}] for this kind; got {severity}")

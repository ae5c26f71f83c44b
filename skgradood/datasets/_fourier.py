"""Amplitude and phase: images put together from the spectra of two."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft

from skgradood.datasets._layout import grid_images, in_layout_of, to_grid

_HW = (-2, -1)


def mix_fourier(X_amplitude: Any, X_phase: Any) -> np.ndarray:
    """Put images together from the Fourier amplitudes of some and the phases of others.

    Amplitudes hold how much there is of each frequency, the texture and contrast of an image;
    phases hold where, its shapes. Which of the two a likelihood follows shows what kind of
    features it depends on [1]_.

    Parameters
    ----------
    X_amplitude : array-like of shape (n, H, W), (n, C, H, W) or (n, H, W, C), uint8
        The images whose amplitudes are taken, channel by channel.
    X_phase : array-like of the same shape, uint8
        The images whose phases are taken, row by row. `perturb` draws other images of one set
        instead: its "fourier_amplitude".

    Returns
    -------
    ndarray of the same shape, uint8
        Rounded and clipped to 0...255, which changes the amplitudes: much, where the sources are
        largely black or white.

    Raises
    ------
    ValueError
        If the shapes differ, or these are not images of uint8.

    References
    ----------
    .. [1] Schirrmeister, Zhou, Ball and Zhang, "Understanding Anomaly Detection with Deep
       Invertible Networks through Hierarchies of Distributions and Features", NeurIPS 2020.
    """
    if np.shape(X_amplitude) != np.shape(X_phase):
        raise ValueError(
            "X_amplitude and X_phase must have one shape, images are mixed row by row; got "
            f"{np.shape(X_amplitude)} and {np.shape(X_phase)}"
        )
    amplitude = np.abs(spectrum_of(grid_images(X_amplitude, caller="mix_fourier")))
    images = grid_images(X_phase, caller="mix_fourier")
    mixed = from_spectrum(amplitude, phasor(spectrum_of(images)), images.shape[2:])
    return in_layout_of(X_phase, to_grid(mixed))


def spectrum_of(images: np.ndarray) -> np.ndarray:
    """Half of the spectrum, (n, C, H, W // 2 + 1), which determines a real image."""
    return scipy.fft.rfft2(images.astype(np.float64, copy=False), axes=_HW)


def phasor(spectrum: np.ndarray) -> np.ndarray:
    """The numbers of modulus 1 that have the phases of these; 1 for 0."""
    return np.exp(1j * np.angle(spectrum))


def from_spectrum(amplitude: np.ndarray, phases: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Real images (n, C, H, W) of this size, not rounded or clipped."""
    return scipy.fft.irfft2(amplitude * phases, s=size, axes=_HW)

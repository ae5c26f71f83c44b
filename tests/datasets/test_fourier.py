"""Mixed images have the amplitudes of one source and the phases of the other."""

import numpy as np
import pytest

from skgradood.datasets import mix_fourier, perturb
from skgradood.datasets._fourier import from_spectrum, phasor, spectrum_of


def near_grey(shape, seed):
    """Images near one grey: mixing clips nothing."""
    return np.random.default_rng(seed).integers(118, 138, shape, dtype=np.uint8)


def by_hand(amplitude_of, phase_of):
    """One channel, by the full complex transform."""
    amplitude = np.abs(np.fft.fft2(amplitude_of.astype(float)))
    phase = np.angle(np.fft.fft2(phase_of.astype(float)))
    image = np.fft.ifft2(amplitude * np.exp(1j * phase))
    assert np.abs(image.imag).max() < 1e-9
    return np.clip(np.rint(image.real), 0, 255)


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 9, 7), (4, 3, 8, 10), (4, 8, 10, 3)])
def test_mixing_with_itself_gives_the_images_back(shape, rng):
    X = rng.integers(0, 256, shape, dtype=np.uint8)
    mixed = mix_fourier(X, X)
    assert mixed.dtype == np.uint8
    np.testing.assert_array_equal(mixed, X)


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (10, 5)])
def test_amplitudes_and_phases_are_those_of_the_sources(size, rng):
    first, second = rng.random((2, 3, 2, *size))
    mixed = from_spectrum(np.abs(spectrum_of(first)), phasor(spectrum_of(second)), size)
    spectrum = np.fft.fft2(mixed)
    np.testing.assert_allclose(np.abs(spectrum), np.abs(np.fft.fft2(first)), atol=1e-12)
    np.testing.assert_allclose(
        np.exp(1j * np.angle(spectrum)), np.exp(1j * np.angle(np.fft.fft2(second))), atol=1e-9
    )


@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 7, 9)])
def test_rows_are_mixed_one_by_one_as_by_hand(shape, rng):
    first, second = rng.integers(0, 256, (2, *shape), dtype=np.uint8)
    expected = [by_hand(a, b) for a, b in zip(first, second, strict=True)]
    np.testing.assert_array_equal(mix_fourier(first, second), expected)


def test_channels_are_mixed_one_by_one(rng):
    first, second = rng.integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8)
    mixed = mix_fourier(first, second)
    for channel in range(3):
        np.testing.assert_array_equal(
            mixed[..., channel], mix_fourier(first[..., channel], second[..., channel])
        )


def test_it_is_the_perturbation_with_known_donors():
    X = near_grey((6, 8, 8), 0)
    perturbed = perturb(X, "fourier_amplitude", random_state=0)
    candidates = [[mix_fourier(X[[j]], X[[i]])[0] for j in range(6)] for i in range(6)]
    for i, image in enumerate(perturbed):
        donors = [j for j in range(6) if np.array_equal(image, candidates[i][j])]
        assert len(donors) == 1
        assert donors != [i]


def test_black_images_have_no_amplitude(rng):
    X = rng.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    assert not mix_fourier(np.zeros_like(X), X).any()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((2, 8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8), "one shape"),
        (np.zeros((2, 8, 8)), np.zeros((2, 8, 8)), "mix_fourier expects images of dtype uint8"),
        (np.zeros((2, 64), np.uint8), np.zeros((2, 64), np.uint8), "mix_fourier expects images"),
    ],
)
def test_what_cannot_be_mixed(first, second, message):
    with pytest.raises(ValueError, match=message):
        mix_fourier(first, second)

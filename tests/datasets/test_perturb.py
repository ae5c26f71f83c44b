"""Every perturbation against a formula written independently of it."""

import numpy as np
import pytest
import scipy.fft

from skgradood.datasets import PERTURBATIONS, perturb

LAYOUTS = {"n,H,W": (6, 10, 10), "n,C,H,W": (6, 3, 10, 12), "n,H,W,C": (6, 12, 10, 3)}


def make_images(shape, seed=0, low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, shape, dtype=np.uint8)


@pytest.fixture
def images():
    return make_images((5, 8, 8))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_shape_dtype_input_and_seed_are_kept(kind, layout):
    X = make_images(LAYOUTS[layout])
    before = X.copy()
    first = perturb(X, kind, random_state=3)
    assert first.shape == X.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(first, perturb(X, kind, random_state=3))
    assert (first != X).any()


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_layouts_agree(kind):
    first = make_images(LAYOUTS["n,C,H,W"])
    last = np.ascontiguousarray(first.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(
        perturb(last, kind, random_state=0),
        perturb(first, kind, random_state=0).transpose(0, 2, 3, 1),
    )


@pytest.mark.parametrize("kind", ["noise", "constant", "gaussian_noise", "pixel_shuffle"])
def test_another_seed_gives_other_images(images, kind):
    assert (perturb(images, kind, random_state=0) != perturb(images, kind, random_state=1)).any()


@pytest.mark.usefixtures("untouched_global_state")
def test_global_random_state_is_left_alone(images):
    perturb(images, "noise", random_state=0)


def test_unknown_kind_lists_the_kinds(images):
    with pytest.raises(ValueError, match="svd_blur"):
        perturb(images, "svd")


def test_severity_where_there_is_none(images):
    with pytest.raises(ValueError, match=r"inversion.*no severity"):
        perturb(images, "inversion", severity=1)


@pytest.mark.parametrize("kind", ["rotation", "brightness", "gaussian_blur"])
@pytest.mark.parametrize("severity", [np.nan, np.inf])
def test_severity_is_a_number(images, kind, severity):
    with pytest.raises(ValueError, match="severity must be a finite number"):
        perturb(images, kind, severity=severity)


@pytest.mark.parametrize(
    ("kind", "severity"), [("svd_blur", 1.5), ("fourier_phase", -1), ("gaussian_noise", -3)]
)
def test_severity_out_of_range(images, kind, severity):
    with pytest.raises(ValueError, match="severity must lie in"):
        perturb(images, kind, severity=severity)


@pytest.mark.parametrize("X", [np.zeros((3, 4), np.uint8), np.zeros((3, 4, 4))])
def test_rows_and_floats_are_refused(X):
    with pytest.raises(ValueError, match="expects images of dtype uint8"):
        perturb(X, "noise")


def test_noise_is_uniform_and_independent_of_the_images():
    zeros, ones = np.zeros((40, 16, 16), np.uint8), np.full((40, 16, 16), 255, np.uint8)
    noise = perturb(zeros, "noise", random_state=0)
    np.testing.assert_array_equal(noise, perturb(ones, "noise", random_state=0))
    counts = np.bincount(noise.ravel(), minlength=256)
    expected = noise.size / 256
    assert ((counts - expected) ** 2 / expected).sum() < 255 + 5 * np.sqrt(2 * 255)


def test_constant_has_one_colour_an_image():
    flat = perturb(make_images((20, 6, 6, 3)), "constant", random_state=0)
    np.testing.assert_array_equal(flat, np.broadcast_to(flat[:, :1, :1], flat.shape))
    assert len(np.unique(flat[:, 0, 0], axis=0)) == 20


def test_gaussian_noise_has_the_standard_deviation_asked_for():
    grey = np.full((50, 20, 20), 128, np.uint8)
    noisy = perturb(grey, "gaussian_noise", severity=12, random_state=0).astype(float)
    # the rounding to whole grey levels adds a variance of 1/12
    assert noisy.std() == pytest.approx(np.sqrt(144 + 1 / 12), rel=0.02)
    assert noisy.mean() == pytest.approx(128, abs=0.3)


def test_inversion_is_an_involution(images):
    inverted = perturb(images, "inversion")
    np.testing.assert_array_equal(inverted.astype(int) + images, 255)
    np.testing.assert_array_equal(perturb(inverted, "inversion"), images)


@pytest.mark.parametrize("kind", ["brightness", "contrast"])
def test_a_factor_of_one_changes_nothing(images, kind):
    np.testing.assert_array_equal(perturb(images, kind, severity=1.0), images)


def test_brightness_multiplies_and_clips(images):
    expected = [[[min(255, round(1.5 * int(v))) for v in row] for row in im] for im in images]
    np.testing.assert_array_equal(perturb(images, "brightness", severity=1.5), expected)


def test_no_contrast_leaves_the_mean(images):
    flat = perturb(images, "contrast", severity=0.0)
    for before, after in zip(images, flat, strict=True):
        np.testing.assert_array_equal(after, round(before.mean()))


@pytest.mark.parametrize("turns", [-1, 1, 2, 3])
def test_rotation_by_right_angles(images, turns):
    expected = np.stack([np.rot90(image, turns) for image in images])
    np.testing.assert_array_equal(perturb(images, "rotation", severity=90 * turns), expected)


def test_rotation_by_other_angles_turns_the_same_way():
    smooth = np.zeros((1, 33, 33), np.uint8)
    smooth[0, 10:14, 20:25] = 200
    nearly = perturb(smooth, "rotation", severity=89.9).astype(int)
    exact = np.rot90(smooth[0]).astype(int)
    assert np.abs(nearly - exact).max() < 30


def test_mirror(images):
    np.testing.assert_array_equal(perturb(images, "mirror"), images[:, :, ::-1])


def test_gaussian_blur_of_a_point_is_a_gaussian():
    point = np.zeros((1, 31, 31), np.uint8)
    point[0, 15, 15] = 255
    blurred = perturb(point, "gaussian_blur", severity=1.5)[0]
    axis = np.arange(31) - 15
    bell = np.exp(-(axis**2) / (2 * 1.5**2))
    bell /= bell.sum()
    np.testing.assert_allclose(blurred, 255 * np.outer(bell, bell), atol=0.6)


def test_dct_blur_removes_high_frequencies(images):
    blurred = perturb(images, "dct_blur", severity=0.5)
    for before, after in zip(images, blurred, strict=True):
        coefficients = scipy.fft.dctn(before.astype(float))
        coefficients[4:, :] = 0
        coefficients[:, 4:] = 0
        expected = np.clip(scipy.fft.idctn(coefficients), 0, 255)
        np.testing.assert_allclose(after, expected, atol=0.5 + 1e-6)


def test_svd_blur_is_the_best_approximation_of_its_rank(images):
    blurred = perturb(images, "svd_blur", severity=0.75)  # 2 of 8 singular values stay
    for before, after in zip(images.astype(float), blurred, strict=True):
        eigenvectors = np.linalg.eigh(before @ before.T)[1][:, -2:]
        expected = np.clip(eigenvectors @ eigenvectors.T @ before, 0, 255)
        np.testing.assert_allclose(after, expected, atol=0.5 + 1e-6)


@pytest.mark.parametrize("kind", ["dct_blur", "svd_blur", "fourier_amplitude", "fourier_phase"])
def test_severity_zero_changes_nothing(images, kind):
    np.testing.assert_array_equal(perturb(images, kind, severity=0.0), images)


@pytest.mark.parametrize(
    ("kind", "of_donor", "own"),
    [("fourier_amplitude", np.abs, np.angle), ("fourier_phase", np.angle, np.abs)],
)
def test_fourier_mixing_takes_one_half_from_another_image(kind, of_donor, own):
    # images near one grey: no value is clipped, only rounded (at most 0.5 a pixel)
    X = make_images((4, 9, 9), low=118, high=138)
    mixed = np.fft.fft2(perturb(X, kind, random_state=0))
    spectra = np.fft.fft2(X)
    for row, spectrum in enumerate(mixed):
        errors = [_mismatch(kind, spectrum, own_s, spectra[row]) for own_s in spectra]
        donor = int(np.argmin(errors))
        assert donor != row
        assert errors[donor] < 3.0
        assert sorted(errors)[1] > 10.0


def _mismatch(kind, spectrum, donor, receiver):
    """Root mean square distance to the spectrum built by hand from donor and receiver."""
    amplitude, phase = (donor, receiver) if kind == "fourier_amplitude" else (receiver, donor)
    expected = np.abs(amplitude) * np.exp(1j * np.angle(phase))
    return np.sqrt(np.mean(np.abs(spectrum - expected) ** 2))


def test_mixing_needs_two_images(images):
    with pytest.raises(ValueError, match="at least two images"):
        perturb(images[:1], "fourier_phase")


def test_pixel_shuffle_keeps_the_pixels_and_their_colours():
    X = make_images((3, 6, 6, 3))
    shuffled = perturb(X, "pixel_shuffle", random_state=0)
    for before, after in zip(X.reshape(3, 36, 3), shuffled.reshape(3, 36, 3), strict=True):
        np.testing.assert_array_equal(sorted(map(tuple, before)), sorted(map(tuple, after)))

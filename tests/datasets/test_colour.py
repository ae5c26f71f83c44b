"""HSV against colorsys, its determinant against differences and against a density known there."""

import colorsys

import numpy as np
import pytest
from matplotlib.colors import hsv_to_rgb

from skgradood.datasets import rgb_to_hsv


@pytest.fixture
def colours(rng):
    return rng.random((4, 3, 5, 6))


@pytest.fixture
def bytes_(rng):
    return rng.integers(0, 256, (5, 8, 9, 3), dtype=np.uint8)


def test_every_pixel_is_what_colorsys_says(colours):
    hsv, _ = rgb_to_hsv(colours)
    for image, converted in zip(colours, hsv, strict=True):
        for i, j in np.ndindex(5, 6):
            expected = colorsys.rgb_to_hsv(*image[:, i, j])
            np.testing.assert_allclose(converted[:, i, j], expected, rtol=1e-12)


def test_primary_and_grey_colours():
    palette = {
        (1, 0, 0): (0, 1, 1),
        (0, 1, 0): (1 / 3, 1, 1),
        (0, 0, 1): (2 / 3, 1, 1),
        (0.5, 0.5, 0.5): (0, 0, 0.5),
        (0, 0, 0): (0, 0, 0),
        (0.25, 0.25, 0): (1 / 6, 1, 0.25),
    }
    X = np.array(list(palette), float)[:, :, None, None]
    hsv, log_det = rgb_to_hsv(X)
    np.testing.assert_allclose(hsv[:, :, 0, 0], list(palette.values()), atol=1e-15)
    np.testing.assert_array_equal(np.isinf(log_det[:, 0, 0]), [False] * 3 + [True] * 2 + [False])


def test_the_determinant_is_that_of_differences(colours):
    hsv, log_det = rgb_to_hsv(colours)
    step = 1e-7
    for n, i, j in np.ndindex(log_det.shape):
        jacobian = np.empty((3, 3))
        for channel in range(3):
            moved = colours[n, :, i, j].copy()
            moved[channel] += step
            jacobian[:, channel] = (np.array(colorsys.rgb_to_hsv(*moved)) - hsv[n, :, i, j]) / step
        expected = np.log(abs(np.linalg.det(jacobian)))
        assert log_det[n, i, j] == pytest.approx(expected, abs=2e-4)


def test_densities_transform_as_they_should(rng):
    """Colours uniform in HSV have the density abs(det) in RGB: counted in a box, and integrated."""
    hsv = rng.random((1, 400_000, 1, 3))
    rgb = hsv_to_rgb(hsv)
    box = ((rgb > 0.5) & (rgb < 0.75)).all(axis=-1)
    _, log_det = rgb_to_hsv(rng.uniform(0.5, 0.75, (1, 3, 400_000, 1)))
    assert 0.25**3 * np.exp(log_det).mean() == pytest.approx(box.mean(), rel=0.05)


def test_bytes_stand_for_intervals(bytes_):
    hsv, log_det = rgb_to_hsv(bytes_, random_state=0)
    assert hsv.shape == bytes_.shape
    np.testing.assert_array_equal(np.floor(256 * hsv_to_rgb(hsv) + 1e-9), bytes_)
    again, same = rgb_to_hsv(hsv_to_rgb(hsv))
    np.testing.assert_allclose(again, hsv, atol=1e-9)
    np.testing.assert_allclose(same, log_det, rtol=1e-6)


def test_grey_images_have_a_hue_by_their_noise():
    _, log_det = rgb_to_hsv(np.full((3, 10, 10, 3), 128, np.uint8), random_state=0)
    assert np.isfinite(log_det).all()
    _, other = rgb_to_hsv(np.full((3, 10, 10, 3), 128, np.uint8), random_state=1)
    assert (other != log_det).any()


@pytest.mark.usefixtures("untouched_global_state")
def test_layouts_and_seeds_agree():
    last = np.random.default_rng(1).random((2, 5, 7, 3))
    hsv, log_det = rgb_to_hsv(last)
    first, same = rgb_to_hsv(last.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(hsv.transpose(0, 3, 1, 2), first)
    np.testing.assert_array_equal(log_det, same)
    assert log_det.shape == (2, 5, 7)
    X = (255 * last).astype(np.uint8)
    np.testing.assert_array_equal(
        rgb_to_hsv(X, random_state=4)[0], rgb_to_hsv(X, random_state=4)[0]
    )


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((2, 8, 8), np.uint8), "colour images"),
        (np.zeros((2, 9), np.uint8), "colour images"),
        (np.full((2, 3, 8, 8), 2.0), r"in \[0, 1\]; got values from 2 to 2"),
        (np.full((2, 3, 8, 8), np.nan), "NaN"),
    ],
)
def test_what_is_no_colour(X, message):
    with pytest.raises(ValueError, match=message):
        rgb_to_hsv(X)

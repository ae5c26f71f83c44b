"""The bundled digits: parts that share no image, out-of-distribution sets on the same grid."""

import builtins

import numpy as np
import pytest
from sklearn.datasets import load_digits

from skgradood.datasets import load_digits_ood

PARTS = ("train", "reference", "calibration", "test")


@pytest.fixture(scope="module")
def digits():
    return load_digits_ood(random_state=0)


def test_parts_are_a_division_of_the_digits(digits):
    together = np.concatenate([digits[part] for part in PARTS])
    expected = np.array([[round(v * 255 / 16) for v in row] for row in load_digits().data])
    assert together.dtype == np.uint8
    np.testing.assert_array_equal(
        sorted(map(tuple, together.reshape(len(together), -1))), sorted(map(tuple, expected))
    )


def test_parts_are_shuffled_by_the_seed(digits):
    np.testing.assert_array_equal(load_digits_ood(random_state=0).test, digits.test)
    assert (load_digits_ood(random_state=1).test != digits.test).any()


def test_out_of_distribution_sets(digits):
    assert len(digits.ood) >= 8
    levels = np.unique(digits.train)
    assert len(levels) == 17
    for name, images in digits.ood.items():
        assert images.shape == digits.test.shape, name
        assert images.dtype == np.uint8, name
        assert np.isin(images, levels).all(), name
        seen = {image.tobytes() for image in digits.test}
        n_same = sum(image.tobytes() in seen for image in images)
        assert n_same <= 0.02 * len(images), name


def test_halves_come_from_two_digits(digits):
    upper = {image[:4].tobytes() for image in digits.test}
    lower = {image[4:].tobytes() for image in digits.test}
    assert all(
        image[:4].tobytes() in upper and image[4:].tobytes() in lower
        for image in digits.ood["halves"]
    )


def test_larger_images():
    digits = load_digits_ood(image_size=16, random_state=0)
    assert digits.train.shape[1:] == digits.ood["clouds"].shape[1:] == (16, 16)
    small = load_digits_ood(random_state=0).train
    # same order; averaging each 2 x 2 block of the bilinear image comes back near the digit
    blocks = digits.train.reshape(-1, 8, 2, 8, 2).mean(axis=(2, 4))
    assert np.corrcoef(blocks.ravel(), small.ravel())[0, 1] > 0.97


def test_too_small():
    with pytest.raises(ValueError, match="at least 8"):
        load_digits_ood(image_size=4)


def test_without_pillow_only_the_photographs_are_missing(digits, monkeypatch):
    real_import = builtins.__import__

    def no_pillow(name, *args, **kwargs):
        if name.startswith("PIL"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_pillow)
    without = load_digits_ood(random_state=0)
    assert set(digits.ood) - set(without.ood) == {"photographs"}
    np.testing.assert_array_equal(without.ood["clouds"], digits.ood["clouds"])

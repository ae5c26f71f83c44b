"""Pixel differences against a loop, and the likelihood against sums over all images."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone

from skgradood.models import PixelDifferenceModel
from skgradood.persistence import load, save


@pytest.fixture
def images(rng):
    """Smooth colour images, uint8."""
    walk = rng.integers(-9, 10, (12, 3, 6, 5)).cumsum(axis=2).cumsum(axis=3)
    return (128 + walk).clip(0, 255).astype(np.uint8)


def counted(images, smoothing):
    """Relative frequencies of differences from the left and from above, by a loop."""
    tables = [dict.fromkeys(range(-255, 256), smoothing) for _ in range(2)]
    for image in images.astype(int):
        for channel in image:
            for i, j in np.ndindex(channel.shape):
                if j > 0:
                    tables[0][channel[i, j] - channel[i, j - 1]] += 1
                if i > 0:
                    tables[1][channel[i, j] - channel[i - 1, j]] += 1
    return [{d: count / sum(table.values()) for d, count in table.items()} for table in tables]


def by_hand(image, left, above, normalize):
    """The definition, pixel by pixel and value by value."""
    total = 0.0
    for channel in image.astype(int):
        for i, j in np.ndindex(channel.shape):
            weights = np.ones(256)
            for value in range(256):
                if j > 0:
                    weights[value] *= left[value - channel[i, j - 1]]
                if i > 0:
                    weights[value] *= above[value - channel[i - 1, j]]
            if not normalize:
                total += np.log(weights[channel[i, j]])
            else:
                total += np.log(weights[channel[i, j]] / weights.sum())
    return total


def test_frequencies_are_counts(images):
    model = PixelDifferenceModel(smoothing=0.5).fit(images)
    left, above = counted(images, 0.5)
    expected = [list(left.values()), list(above.values())]
    np.testing.assert_allclose(np.exp(model.log_frequencies_), expected, rtol=1e-12)


@pytest.mark.parametrize("normalize", [True, False])
def test_scores_are_the_definition(images, normalize, rng):
    model = PixelDifferenceModel(normalize=normalize).fit(images[:9])
    X = np.concatenate([images[9:], rng.integers(0, 256, (2, 3, 6, 5), dtype=np.uint8)])
    expected = [by_hand(image, *counted(images[:9], 1.0), normalize) for image in X]
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=1e-10)
    assert model.score(X) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("shape", [(1, 2), (2, 1)])
def test_probabilities_of_all_images_of_two_pixels_sum_to_one(images, shape):
    values = np.arange(256, dtype=np.uint8)
    everything = np.stack(np.meshgrid(values, values), axis=-1).reshape(-1, *shape)
    model = PixelDifferenceModel().fit(images)
    assert np.exp(model.score_samples(everything)).sum() == pytest.approx(1, rel=1e-12)


def test_the_last_pixel_sums_out(images):
    """Over its 256 values, the probabilities of an image are that of the rest."""
    image = images[:1, :1, :2, :2]
    variants = np.repeat(image, 256, axis=0)
    variants[:, 0, 1, 1] = np.arange(256)
    model = PixelDifferenceModel().fit(images)
    rest = by_hand(image[0, :, :1], *counted(images, 1.0), True)  # the first row
    _, above = counted(images, 1.0)
    column = np.array([above[value - int(image[0, 0, 0, 0])] for value in range(256)])
    rest += np.log(column[image[0, 0, 1, 0]] / column.sum())
    total = np.log(np.exp(model.score_samples(variants)).sum())
    assert total == pytest.approx(rest, rel=1e-12)


def test_it_knows_smoothness_and_not_places(images, rng):
    model = PixelDifferenceModel().fit(images)
    shuffled = rng.permuted(images.reshape(12, 3, 30), axis=2).reshape(images.shape)
    assert model.score(images) > model.score(shuffled) + 50
    pseudo = PixelDifferenceModel(normalize=False).fit(images)
    np.testing.assert_allclose(  # brightness does not matter, as long as nothing is clipped
        pseudo.score_samples(images // 2), pseudo.score_samples(images // 2 + 99), rtol=1e-12
    )


def test_every_image_is_possible_and_layouts_agree(images):
    model = PixelDifferenceModel().fit(images)
    extreme = np.zeros((3, 3, 6, 5), np.uint8)
    extreme[1], extreme[2, :, ::2] = 255, 255
    assert np.isfinite(model.score_samples(extreme)).all()
    last = PixelDifferenceModel().fit(images.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(last.log_frequencies_, model.log_frequencies_)


def test_many_images_are_counted_in_parts(rng):
    X = rng.integers(0, 9, (2050, 3, 3), dtype=np.uint8)
    model = PixelDifferenceModel().fit(X)
    differences = np.diff(X.astype(int), axis=2).ravel()
    expected = (differences == 4).sum() + 1
    assert np.exp(model.log_frequencies_[0, 255 + 4]) == pytest.approx(
        expected / (len(differences) + 511)
    )
    np.testing.assert_allclose(model.score_samples(X)[-1:], model.score_samples(X[-1:]))


def test_copies_agree(images, tmp_path):
    model = PixelDifferenceModel(smoothing=2.0).fit(images)
    save(model, tmp_path / "model.skg")
    for copy in (
        pickle.loads(pickle.dumps(model)),
        clone(model).fit(images),
        load(tmp_path / "model.skg"),
    ):
        np.testing.assert_array_equal(copy.score_samples(images), model.score_samples(images))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((4, 90), np.uint8), "expects images of dtype uint8"),
        (np.zeros((4, 8, 8)), r"got shape \(4, 1, 8, 8\) of float64"),
    ],
)
def test_what_has_no_pixels(X, message, images):
    model = PixelDifferenceModel().fit(images)
    with pytest.raises(ValueError, match=message):
        model.score_samples(X)
    with pytest.raises(ValueError, match=message):
        model.fit(X)
    assert model.n_features_in_ == 90
    assert np.isfinite(model.score_samples(images)).all()


def test_smoothing_must_be_positive(images):
    with pytest.raises(ValueError, match="smoothing"):
        PixelDifferenceModel(smoothing=0).fit(images)

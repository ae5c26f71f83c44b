"""Code lengths against the codecs called directly."""

from __future__ import annotations

import io
import sys
import zlib

import numpy as np
import pytest

from skgradood.complexity import CODECS, check_codec, code_lengths

pillow = pytest.importorskip("PIL.Image")

# One byte has 8 bits, and one bit has ln 2 nats.
NATS_PER_BYTE = 8 * 0.6931471805599453


def missing(codec):
    try:
        check_codec(codec)
    except ImportError:
        return True
    return False


INSTALLED = [
    pytest.param(codec, marks=pytest.mark.skipif(missing(codec), reason="not installed"))
    for codec in sorted(CODECS)
]
PILLOW = {
    "png": ("PNG", {"optimize": True}),
    "jpeg2000": ("JPEG2000", {"irreversible": False}),
    "webp": ("WEBP", {"lossless": True, "quality": 100, "method": 6}),
}


@pytest.fixture
def images(rng):
    noise = rng.integers(0, 256, (2, 3, 9, 8), dtype=np.uint8)
    return np.concatenate([noise, np.full((1, 3, 9, 8), 7, np.uint8)])


@pytest.mark.parametrize("codec", PILLOW)
@pytest.mark.parametrize("n_channels", [1, 3])
def test_lengths_are_pillows_bytes_in_nats(codec, n_channels, images):
    images = images[:, :n_channels]
    container, options = PILLOW[codec]
    expected = []
    for image in images:
        buffer = io.BytesIO()
        picture = image[0] if n_channels == 1 else image.transpose(1, 2, 0)
        pillow.fromarray(np.ascontiguousarray(picture)).save(buffer, container, **options)
        expected.append(len(buffer.getvalue()) * NATS_PER_BYTE)
    np.testing.assert_allclose(code_lengths(images, codec=codec), expected, rtol=1e-15)


def test_zlib_is_the_standard_librarys(images, rng):
    expected = [len(zlib.compress(image.tobytes(), 9)) * NATS_PER_BYTE for image in images]
    np.testing.assert_allclose(code_lengths(images, codec="zlib"), expected, rtol=1e-15)
    rows = rng.integers(0, 256, (3, 20), dtype=np.uint8)
    expected = [len(zlib.compress(row.tobytes(), 9)) * NATS_PER_BYTE for row in rows]
    np.testing.assert_allclose(code_lengths(rows, codec="zlib"), expected, rtol=1e-15)


@pytest.mark.parametrize("codec", INSTALLED)
def test_noise_takes_more_than_a_constant_and_nothing_is_lost(codec, images):
    grey = images[:, 0]
    lengths = code_lengths(grey, codec=codec)
    assert lengths.min() > 0
    assert lengths[:2].min() > lengths[2]
    # No lossless code of uniform noise is shorter than the noise on average.
    noise = np.random.default_rng(1).integers(0, 256, (5, 1, 32, 32), dtype=np.uint8)
    assert code_lengths(noise, codec=codec).mean() > 32 * 32 * np.log(256)


@pytest.mark.parametrize("codec", INSTALLED)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (4, 5, 6), (2, 1, 9)])
def test_small_images_and_any_number_of_channels(codec, shape):
    lengths = code_lengths(np.zeros((2, *shape), np.uint8), codec=codec)
    assert np.isfinite(lengths).all()
    assert lengths[0] == lengths[1] > 0


@pytest.mark.parametrize("codec", INSTALLED)
def test_layouts_of_one_image_have_one_length(codec, images):
    expected = code_lengths(images, codec=codec)
    last = images.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(code_lengths(last, codec=codec), expected)
    np.testing.assert_array_equal(code_lengths(list(images), codec=codec), expected)


def test_what_has_no_code_length_is_refused(images, rng):
    with pytest.raises(ValueError, match=r"codec must be one of \['jpeg2000'.*got 'gif'"):
        code_lengths(images, codec="gif")
    with pytest.raises(ValueError, match=r"dtype float64.*Pass images of dtype uint8"):
        code_lengths(images / 255.0, codec="zlib")
    with pytest.raises(ValueError, match=r"codec='png' takes images.*\(3, 20\)"):
        code_lengths(rng.integers(0, 256, (3, 20), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        code_lengths(images[:0])


@pytest.mark.parametrize(("codec", "module"), [("png", "PIL.Image"), ("jpegxl", "imagecodecs")])
def test_a_missing_library_names_its_extra(codec, module, images, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module}.*skgradood\[codecs\]"):
        code_lengths(images, codec=codec)

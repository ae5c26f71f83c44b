"""One image file to a uint8 array, through Pillow."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from skgradood.utils.optional import import_extra

# Decoders that start other programs (EPS) or read documents (PDF) are never offered a file.
_FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA")
# fmt: off
IMAGE_SUFFIXES = frozenset((
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga",
))
# fmt: on
# What Pillow's decoders raise on damaged files, apart from its own DecompressionBombError.
DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)  # fmt: skip
_SIXTEEN_BIT = frozenset(("I", "I;16", "I;16L", "I;16B", "I;16N"))
_GREY_MODES = _SIXTEEN_BIT | {"1", "L", "LA", "La"}
_WHITE = 65535  # of 16 bits
_ORIENTATION_TAG = 0x0112
_TURNED = (5, 6, 7, 8)


class Header(NamedTuple):
    """What the header of an image file tells without decoding it."""

    size: tuple[int, int]  # (H, W), as the picture is shown
    is_grey: bool
    n_frames: int


def read_header(path: Path) -> Header:
    """Read size and colour of an image file; ValueError names the file if that fails."""
    with _open(path) as image:
        width, height = image.size
        if image.getexif().get(_ORIENTATION_TAG) in _TURNED:
            width, height = height, width
        return Header((height, width), image.mode in _GREY_MODES, getattr(image, "n_frames", 1))


def decode(path: Path, *, grey: bool, size: tuple[int, int] | None) -> np.ndarray:
    """Decode the first frame of an image file.

    Parameters
    ----------
    path : Path
    grey : bool
        Grey by ITU-R 601 luma (rounded), else RGB.
    size : (H, W) or None
        Resize to it (Pillow's bilinear filter on uint8).

    Returns
    -------
    ndarray of shape (H, W) or (H, W, 3), uint8

    Raises
    ------
    ValueError
        If the file is damaged, or of a kind with no agreed mapping to 0...255 (float pixels); the
        message names the file.
    """
    operations = import_extra("PIL.ImageOps", extra="codecs")
    with _open(path) as image:
        upright = operations.exif_transpose(image)
        return to_grid(eight_bit(upright), grey=grey, size=size)


def to_grid(image: Any, *, grey: bool, size: tuple[int, int] | None) -> np.ndarray:
    """Bring an eight-bit Pillow image to one mode and size."""
    pillow = import_extra("PIL.Image", extra="codecs")
    mode = "L" if grey else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), pillow.Resampling.BILINEAR)
    return np.asarray(image)


def eight_bit(image: Any) -> Any:
    """Map any Pillow mode to "L" or "RGB".

    16-bit pixels are divided by 257 and rounded; transparent images are laid on white; palettes
    and CMYK become RGB.
    """
    if image.mode in ("1", "L", "RGB"):
        if "transparency" not in image.info:
            return image if image.mode != "1" else image.convert("L")
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    if image.mode in _SIXTEEN_BIT:
        return _from_sixteen_bit(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if image.has_transparency_data:
        return _on_white(image)
    return image.convert("RGB")


def _from_sixteen_bit(image: Any) -> Any:
    pillow = import_extra("PIL.Image", extra="codecs")
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > _WHITE:
        raise ValueError("its pixels exceed 16 bits; save it with 8 or 16 bits")
    if "transparency" in image.info:  # the one value that stands for no pixel
        values = np.where(values == image.info["transparency"], _WHITE, values)
    return pillow.fromarray(((values + 128) // 257).astype(np.uint8))


def _on_white(image: Any) -> Any:
    pillow = import_extra("PIL.Image", extra="codecs")
    grey = image.mode in ("LA", "La")
    layer = image.convert("RGBA")
    page = pillow.new("RGBA", layer.size, "white")
    return pillow.alpha_composite(page, layer).convert("L" if grey else "RGB")


class _open:
    """Open an image with Pillow; failures inside the block become a ValueError naming the file."""

    def __init__(self, path: Path):
        self._path = path
        self._pillow = import_extra("PIL.Image", extra="codecs")

    def __enter__(self) -> Any:
        self._pillow.init()  # Pillow knows only some formats before, and fails on the others
        formats = [name for name in _FORMATS if name in self._pillow.OPEN]
        try:
            self._image = self._pillow.open(self._path, formats=formats)
        except (FileNotFoundError, PermissionError):
            raise
        except (*DECODING_ERRORS, self._pillow.DecompressionBombError) as error:
            raise self._unreadable(error) from error
        return self._image

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._image.close()
        if isinstance(error, (*DECODING_ERRORS, self._pillow.DecompressionBombError)):
            raise self._unreadable(error) from error

    def _unreadable(self, error: BaseException) -> ValueError:
        return ValueError(f"{self._path} cannot be read as an image: {error}")

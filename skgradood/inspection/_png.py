"""Images as PNG files inside a page, without an image library."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2}  # channels: grey, or red, green and blue


def png(image: np.ndarray) -> bytes:
    """Encode one image.

    Parameters
    ----------
    image : ndarray of shape (C, H, W), uint8
        C is 1 or 3.

    Returns
    -------
    bytes
        A PNG file of 8 bits a channel.
    """
    n_channels, height, width = image.shape
    rows = image.transpose(1, 2, 0).reshape(height, width * n_channels)
    unfiltered = np.zeros((height, 1), np.uint8)  # each row begins with the number of its filter
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[n_channels], 0, 0, 0)
    data = zlib.compress(np.hstack([unfiltered, rows]).tobytes(), 9)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(name, content) for name, content in chunks)


def data_uri(image: np.ndarray) -> str:
    """The image as the address of an ``<img>``; parameters as in `png`."""
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode('ascii')}"


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

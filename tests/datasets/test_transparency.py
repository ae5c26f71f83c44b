"""Grey PNG files of 1 and 16 bits in which one value stands for no pixel."""

import struct
import zlib

import numpy as np
import pytest

from skgradood.datasets import load_images


def write_grey_png(path, values, *, depth, transparent):
    """Write rows of bits or of 16-bit numbers by hand: Pillow writes no such files."""

    def chunk(name, content):
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    height, width = values.shape
    rows = np.packbits(values, axis=1) if depth == 1 else values.astype(">u2")
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent)))
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("transparent", "expected"), [(None, [0, 255, 0]), (0, [255] * 3), (1, [0, 255, 0])]
)
def test_one_bit(tmp_path, transparent, expected):
    bits = np.array([[0, 1, 0]], np.uint8)
    write_grey_png(tmp_path / "x.png", bits, depth=1, transparent=transparent)
    np.testing.assert_array_equal(load_images(tmp_path).data, [[expected]])


@pytest.mark.parametrize(
    ("transparent", "expected"), [(None, [2, 2, 255]), (514, [255, 2, 255]), (65535, [2, 2, 255])]
)
def test_sixteen_bits(tmp_path, transparent, expected):
    """Only the exact value: its neighbour, of the same eight bits, is a pixel."""
    values = np.array([[514, 515, 65535]], np.uint16)
    write_grey_png(tmp_path / "x.png", values, depth=16, transparent=transparent)
    np.testing.assert_array_equal(load_images(tmp_path).data, [[expected]])

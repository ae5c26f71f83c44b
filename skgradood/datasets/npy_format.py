"""Reading ``.npy`` data from streams whose content nobody vouches for."""

from __future__ import annotations

import math
import tokenize
from typing import IO

import numpy as np
from numpy.lib import format as npy

_HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_CHUNK = 1 << 24


def read_npy(stream: IO[bytes], n_bytes: int, *, name: str, kinds: str = "biuf") -> np.ndarray:
    """Read one array, believing nothing that its header says before it is checked.

    ``numpy.load`` allocates what the header declares; here the declared size must first agree with
    the bytes that are there.

    Parameters
    ----------
    stream : binary file
        Positioned at the start of the ``.npy`` data.
    n_bytes : int
        Length of the ``.npy`` data in the stream, header included.
    name : str
        What error messages call the data.
    kinds : str, default="biuf"
        The ``dtype.kind`` characters that are allowed; never objects.

    Returns
    -------
    ndarray
        Writable, with the native byte order, in Fortran order if it was saved so.

    Raises
    ------
    ValueError
        If the data is not ``.npy``, is truncated or padded, or holds another kind of dtype.
    """
    shape, fortran_order, dtype, header_bytes = _read_header(stream, name)
    if dtype.hasobject or dtype.kind not in kinds or dtype.itemsize == 0:
        raise ValueError(f"{name} holds an array of dtype {dtype}; only plain numbers are read")
    expected = math.prod(shape) * dtype.itemsize
    if expected != n_bytes - header_bytes:
        raise ValueError(
            f"{name} is truncated or damaged: its header declares shape {shape} of {dtype} "
            f"({expected} bytes), but {n_bytes - header_bytes} bytes of data follow"
        )
    array = np.empty(math.prod(shape), dtype)
    _fill(array, stream, name)
    if not dtype.isnative:
        array = array.astype(dtype.newbyteorder("="))
    return array.reshape(shape[::-1]).T if fortran_order else array.reshape(shape)


def _read_header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    counting = _CountingReader(stream)
    try:
        version = npy.read_magic(counting)
        if version not in _HEADER_READERS:
            raise ValueError(f"version {version} of the format is not supported")
        shape, fortran_order, dtype = _HEADER_READERS[version](counting)
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError) as error:
        raise ValueError(f"{name} is not valid .npy data: {error}") from error
    if any(not isinstance(extent, int) or extent < 0 for extent in shape):
        raise ValueError(f"{name} is not valid .npy data: its shape is {shape}")
    return shape, fortran_order, dtype, counting.n_read


def _fill(array: np.ndarray, stream: IO[bytes], name: str) -> None:
    target = array.view(np.uint8).data
    position = 0
    while position < len(target):
        piece = stream.read(min(_CHUNK, len(target) - position))
        if not piece:
            raise ValueError(
                f"{name} is truncated: {position} of {len(target)} bytes of data could be read"
            )
        target[position : position + len(piece)] = piece
        position += len(piece)


class _CountingReader:
    """Counts the bytes of the header (a zip member cannot be asked for its position)."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self.n_read = 0

    def read(self, n_bytes: int = -1, /) -> bytes:
        piece = self._stream.read(n_bytes)
        self.n_read += len(piece)
        return piece

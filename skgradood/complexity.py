"""Input complexity: the length of an image under a lossless codec, in nats."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from skgradood.utils.optional import import_extra
from skgradood.utils.validation import check_samples

_NATS_PER_BYTE = 8 * math.log(2)


def code_lengths(X: Any, *, codec: str = "png") -> np.ndarray:
    """Length of the losslessly compressed form of every image, in nats.

    The length in bytes times 8 ln 2: an upper bound on the Kolmogorov complexity in the unit of
    log-likelihoods, so that the negative length stands beside log p(x) as the log-likelihood of a
    universal model [1]_.

    Parameters
    ----------
    X : array-like of shape (n, H, W), (n, C, H, W) or (n, H, W, C), uint8
        Images. ``codec="zlib"`` also takes rows of bytes, (n, d).
    codec : {"png", "jpeg2000", "jpegxl", "webp", "zlib"}, default="png"
        The codec, at its slowest and strongest setting. All but "zlib" need
        ``skgradood[codecs]``.

    Returns
    -------
    ndarray of shape (n,), float64
        Nats, positive.

    Raises
    ------
    ValueError
        For an unknown codec, samples that are not uint8, or rows where images are needed.
    ImportError
        If the codec is not installed; the message names the extra.

    Notes
    -----
    Container and header bytes are included. They are the same for all images of one shape, so
    that they shift a difference of log-likelihood and length by a constant, and change no ranking
    and no threshold that was set on data of that shape. Three channels are coded as one colour
    image; any other number of channels as grey images below one another. Lengths may differ by a
    few bytes between versions of the libraries.

    References
    ----------
    .. [1] J. Serra, D. Alvarez, V. Gomez, O. Slizovskaia, J. Nunez, J. Luque, "Input complexity and
       out-of-distribution detection with likelihood-based generative models", ICLR 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood.complexity import code_lengths
    >>> noise = np.random.default_rng(0).integers(0, 256, (1, 8, 8), dtype=np.uint8)
    >>> bool(code_lengths(noise, codec="zlib") > code_lengths(0 * noise, codec="zlib"))
    True
    """
    check_codec(codec)
    samples = check_samples(X)
    if samples.dtype != np.uint8:
        raise ValueError(
            "input complexity is the number of bytes that data on the grid 0...255 take, and X has "
            f"dtype {samples.dtype}: the bytes of a floating-point number say more of its "
            "representation than of the data. Pass images of dtype uint8."
        )
    if samples.ndim != 4 and codec != "zlib":
        raise ValueError(
            f"codec={codec!r} takes images, and X has the shape {samples.shape}. Pass images "
            '(n, H, W), (n, C, H, W) or (n, H, W, C), or use codec="zlib" for rows of bytes.'
        )
    encode = CODECS[codec]
    return np.array([_NATS_PER_BYTE * len(encode(sample)) for sample in samples])


def check_codec(codec: str) -> None:
    """Refuse a codec that is unknown, or not installed.

    Parameters
    ----------
    codec : str
        A key of ``CODECS``.

    Raises
    ------
    ValueError
        If it is unknown.
    ImportError
        If its library is not installed.
    """
    if codec not in CODECS:
        raise ValueError(f"codec must be one of {sorted(CODECS)}; got {codec!r}")
    for module in _LIBRARIES.get(codec, ()):
        import_extra(module, extra="codecs")


def _zlib(sample: np.ndarray) -> bytes:
    return zlib.compress(sample.tobytes(), level=9)


def _with_pillow(container: str, **options: Any) -> Callable[[np.ndarray], bytes]:
    def encode(sample: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        picture = import_extra("PIL.Image", extra="codecs").fromarray(_as_picture(sample))
        picture.save(buffer, container, **options)
        return buffer.getvalue()

    return encode


def _jpegxl(sample: np.ndarray) -> bytes:
    imagecodecs = import_extra("imagecodecs", extra="codecs")
    return imagecodecs.jpegxl_encode(_as_picture(sample), lossless=True, effort=9)


def _as_picture(sample: np.ndarray) -> np.ndarray:
    """Three channels last, or all channels as grey images below one another."""
    if len(sample) == 3:
        return np.ascontiguousarray(sample.transpose(1, 2, 0))
    return sample.reshape(-1, sample.shape[-1])


CODECS: dict[str, Callable[[np.ndarray], bytes]] = {
    "png": _with_pillow("PNG", optimize=True),
    "jpeg2000": _with_pillow("JPEG2000", irreversible=False),
    "jpegxl": _jpegxl,
    "webp": _with_pillow("WEBP", lossless=True, quality=100, method=6),
    "zlib": _zlib,
}
_LIBRARIES = {
    "png": ("PIL.Image",),
    "jpeg2000": ("PIL.Image",),
    "jpegxl": ("imagecodecs",),
    "webp": ("PIL.Image",),
}

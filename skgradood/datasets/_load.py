"""``load_images``: one entry for every kind of local data."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from os import PathLike
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from skgradood.datasets._arrays import load_npy, load_npz
from skgradood.datasets._decoding import IMAGE_SUFFIXES, to_grid
from skgradood.datasets._folder import load_files, load_folder
from skgradood.datasets._tables import TABLE_SUFFIXES, check_finite, load_table
from skgradood.utils.optional import import_extra

_ARRAY_READERS: dict[str, Callable[[Path], np.ndarray]] = {".npy": load_npy, ".npz": load_npz}
_MODES = ("auto", "grey", "rgb")
_ON_ERROR = ("raise", "skip")


def load_images(
    path: str | PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    mode: str = "auto",
    on_error: str = "raise",
) -> Bunch:
    """Load images, or rows of numbers, from a folder or a file.

    Parameters
    ----------
    path : path-like
        A folder, searched with its subfolders for image files (hidden ones are ignored, links to
        folders not followed); one image file; a ``.npy`` file; a ``.npz`` file (its array
        ``images``, else ``X``, else its only array); a ``.csv`` or ``.parquet`` table.
    size : (H, W), optional
        Resize every image to it (bilinear on uint8). Without it the images must have one size.
    mode : {"auto", "grey", "rgb"}, default="auto"
        "grey" converts colour by ITU-R 601 luma, rounded; "rgb" repeats grey in three channels;
        "auto" keeps grey if every image is grey, and is "rgb" otherwise (palette images count
        as colour).
    on_error : {"raise", "skip"}, default="raise"
        Whether an image file or a folder that cannot be read is an error, or is left out: a file
        with a warning.

    Returns
    -------
    Bunch
        ``data``: uint8 (n, H, W) or (n, H, W, 3) for images (arrays in files may also be
        (n, C, H, W)), numbers (n, d) for rows;
        ``names``: n paths relative to the folder, or row numbers as str;
        ``feature_names``: the columns of a table (rows only, else None);
        ``skipped``: image files and folders left out; ``n_ignored``: files that are hidden, in a
        hidden folder, or no images; ``n_links``: links to folders; ``notes``: what was decided
        where a file can be read in two ways.

    Raises
    ------
    FileNotFoundError
        If there is nothing at ``path``.
    ValueError
        For broken files, mixed sizes without ``size``, images that are not on the grid 0...255,
        an array (H, W, 3) to be resized, columns that are not numeric, missing values; the file is
        named.
    ImportError
        If Pillow (images) or pandas and pyarrow (tables) is missing.

    Notes
    -----
    16-bit pixels are divided by 257 and rounded; transparent images are laid on white; CMYK and
    palettes become RGB; the orientation stored by a camera is applied; of several frames the first
    is read, with a warning.

    A first line of a ``.csv`` file that holds numbers, with or without missing cells, is a row and
    no header, unless they are 0, 1, ... d - 1, the names that pandas gives to columns.
    """
    path = Path(path)
    _check_options(size, mode, on_error)
    suffix = path.suffix.lower()
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if path.is_dir():
        return _complete(load_folder(path, size=size, mode=mode, on_error=on_error))
    if suffix in IMAGE_SUFFIXES:
        return _complete(
            load_files([path], root=path.parent, size=size, mode=mode, on_error=on_error)
        )
    if suffix in TABLE_SUFFIXES:
        return _complete(load_table(path))
    if suffix in _ARRAY_READERS:
        array = _check_array(np.ascontiguousarray(_ARRAY_READERS[suffix](path)), path)
        _refuse_one_picture(array, path, size)
        return _complete(Bunch(data=_conform(array, size=size, mode=mode)))
    raise ValueError(
        f"{path} has the ending {suffix!r}; expected a folder of images, an image file, or one of "
        f"{', '.join(sorted(TABLE_SUFFIXES | set(_ARRAY_READERS)))}"
    )


def _check_options(size: tuple[int, int] | None, mode: str, on_error: str) -> None:
    if mode not in _MODES:
        raise ValueError(f"unknown mode {mode!r}; expected one of {', '.join(_MODES)}")
    if on_error not in _ON_ERROR:
        raise ValueError(f"unknown on_error {on_error!r}; expected one of {', '.join(_ON_ERROR)}")
    if size is None:
        return
    pair = isinstance(size, (tuple, list)) and len(size) == 2
    if not pair or not all(isinstance(side, Integral) and side > 0 for side in size):
        raise ValueError(f"size must be (H, W), two positive integers; got {size!r}")


def _complete(bunch: Bunch) -> Bunch:
    bunch.setdefault("names", [str(row) for row in range(len(bunch.data))])
    bunch.setdefault("feature_names", None)
    bunch.setdefault("skipped", [])
    bunch.setdefault("n_ignored", 0)
    bunch.setdefault("n_links", 0)
    bunch.setdefault("notes", [])
    return bunch


def _check_array(array: np.ndarray, path: Path) -> np.ndarray:
    """Images on the grid 0...255 as uint8, or rows as they are."""
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise ValueError(
            f"{path} holds an array of shape {array.shape}; expected rows (n, d), or images "
            "(n, H, W), (n, H, W, C) or (n, C, H, W)"
        )
    if array.ndim == 2:
        check_finite(array, range(array.shape[1]), path)
        return array
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise ValueError(
            f"{path} holds images of {array.dtype} from {array.min()} to {array.max()}; images are "
            "whole numbers 0...255 (uint8): map them to that grid and save them again"
        )
    return array.astype(np.uint8)


def _refuse_one_picture(array: np.ndarray, path: Path, size: tuple[int, int] | None) -> None:
    """Refuse (H, W, 3) that would be resized as H grey images of W x 3 pixels."""
    if array.ndim != 3 or array.shape[2] not in (3, 4):
        return
    if size is None or tuple(size) == array.shape[1:]:
        return
    raise ValueError(
        f"{path} holds an array of shape {array.shape}, which reads as {len(array)} grey images of "
        f"{array.shape[1]} x {array.shape[2]} pixels; if it is one colour picture, save it with "
        "shape (1, H, W, 3), else bring the images to their size before"
    )


def _conform(array: np.ndarray, *, size: tuple[int, int] | None, mode: str) -> np.ndarray:
    """Apply ``size`` and ``mode`` to an array of images; rows and matching images pass through."""
    if array.ndim == 2:
        return array
    last = _channels_last(array)
    is_grey = last.shape[3] == 1
    if last.shape[3] not in (1, 3):
        if size is None and mode == "auto":
            return array
        raise ValueError(f"size and mode need images of 1 or 3 channels; got shape {array.shape}")
    grey = mode == "grey" or (mode == "auto" and is_grey)
    size = size or last.shape[1:3]
    if grey == is_grey and size == last.shape[1:3]:
        return array
    pillow = import_extra("PIL.Image", extra="codecs")
    images = np.empty((len(last), *size) if grey else (len(last), *size, 3), np.uint8)
    for row, image in enumerate(last):
        picture = pillow.fromarray(np.ascontiguousarray(image[:, :, 0] if is_grey else image))
        images[row] = to_grid(picture, grey=grey, size=size)
    return images


def _channels_last(array: np.ndarray) -> np.ndarray:
    if array.ndim == 3:
        return array[..., None]
    if array.shape[1] in (1, 3) or array.shape[3] not in (1, 3):
        return array.transpose(0, 2, 3, 1)
    return array

"""Samples from a path, in the form that detectors take, and where the result goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import Bunch

from skgradood.cli._console import complain
from skgradood.datasets import load_images
from skgradood.utils.files import try_folder, try_replacing
from skgradood.utils.optional import import_extra
from skgradood.utils.validation import check_samples

_MOST_LISTED = 20


class Samples(NamedTuple):
    """Samples, and what each is called."""

    # Images (n, H, W), (n, H, W, 3) or (n, C, H, W); rows (n, d), as a DataFrame if the columns
    # have names.
    X: Any
    names: list[str]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample as detectors read it, (C, H, W) or (d,)."""
        return check_samples(self.X[:1]).shape[1:]

    @property
    def are_images(self) -> bool:
        """Whether they are images, not rows."""
        return np.ndim(self.X) > 2


def read_samples(path: str, *, size: list[int] | None = None, **options: Any) -> Samples:
    """Load a path by `load_images`; say what was left out.

    The columns of a table keep their names, so that scikit-learn can compare them with those that
    a detector was fitted on.
    """
    try:
        data = load_images(path, size=None if size is None else (size[0], size[1]), **options)
    except MemoryError as error:
        what = f" ({error})" if str(error) else ""
        raise MemoryError(
            f"{path} does not fit into memory{what}; give fewer files or rows, or make images "
            "smaller with --size H W"
        ) from error
    if size is not None and data.data.ndim == 2:
        raise ValueError(f"--size is for images, but {path} holds rows of numbers; leave it out")
    _tell_what_was_left_out(data, path)
    X = data.data
    if data.feature_names is not None:
        pandas = import_extra("pandas", extra="tables")
        X = pandas.DataFrame(X, columns=data.feature_names)
    return Samples(X, data.names)


def _tell_what_was_left_out(data: Bunch, path: str) -> None:
    for note in data.notes:
        complain(note)
    if data.n_ignored:
        complain(f"{data.n_ignored} files in {path} were ignored: they are hidden, or no images")
    if data.n_links:
        complain(f"{data.n_links} links to folders in {path} were not followed")
    for name in data.skipped[:_MOST_LISTED]:
        complain(f"skipped {name}")
    if len(data.skipped) > _MOST_LISTED:
        complain(f"... and {len(data.skipped) - _MOST_LISTED} more")


def check_destination(out: str, *inputs: str) -> Path:
    """Refuse a file that cannot be written: better known before the work than after.

    Parameters
    ----------
    out : str
        The file to write.
    *inputs : str
        Paths that the command reads, and that must not be lost.

    Raises
    ------
    OSError
        If it cannot be written.
    ValueError
        If it is one of the inputs, or "-", where other commands write to standard output.
    """
    if out == "-":
        raise ValueError("--out - is no file, and this does not go to standard output; name a file")
    try_replacing(out)
    for path in inputs:
        if os.path.exists(out) and os.path.exists(path) and os.path.samefile(out, path):
            raise ValueError(
                f"--out {out} is the same file as {path}, which is read and would be lost; give "
                "--out another name"
            )
    return Path(out)


def check_folder(out: str) -> Path:
    """Refuse a folder that cannot be made, or in which nothing can be written, by OSError."""
    folder = Path(out)
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is a file; --out takes the name of a folder")
    try:
        try_folder(nearest)
    except OSError as error:
        raise type(error)(f"{out} cannot be written: {error.strerror}") from error
    return folder

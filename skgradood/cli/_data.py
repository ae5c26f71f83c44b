"""Samples from a path, in the form that detectors take, and where the result goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from skgradood.cli._console import complain
from skgradood.datasets import load_images
from skgradood.utils.optional import import_extra


class Samples(NamedTuple):
    """Samples, and what each is called."""

    X: Any  # images (n, H, W[, 3]), rows (n, d), or a DataFrame if the columns have names
    names: list[str]

    @property
    def are_images(self) -> bool:
        """Whether they are images, not rows."""
        return np.ndim(self.X) > 2


def read_samples(path: str, *, size: list[int] | None = None, **options: Any) -> Samples:
    """Load a path by `load_images`; say what was left out.

    The columns of a table keep their names, so that scikit-learn can compare them with those that
    a detector was fitted on.
    """
    data = load_images(path, size=None if size is None else (size[0], size[1]), **options)
    if data.n_ignored:
        complain(f"{data.n_ignored} files in {path} are no images and were ignored")
    X = data.data
    if data.feature_names is not None:
        pandas = import_extra("pandas", extra="tables")
        X = pandas.DataFrame(X, columns=data.feature_names)
    return Samples(X, data.names)


def check_destination(out: str) -> Path:
    """Refuse a file that cannot be written: better known before the work than after.

    Raises
    ------
    OSError
        If its folder does not exist, or it is a folder itself.
    """
    destination = Path(out)
    if not destination.absolute().parent.is_dir():
        raise FileNotFoundError(f"the folder of {out} does not exist")
    if destination.is_dir():
        raise IsADirectoryError(f"{out} is a folder; --out takes the name of a file")
    return destination

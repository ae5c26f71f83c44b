"""Images or rows from ``.npy`` and ``.npz`` files."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from skgradood.datasets.npy_format import read_npy

NPZ_KEYS = ("images", "X")


def load_npy(path: Path) -> np.ndarray:
    """Read a ``.npy`` file of plain numbers; ValueError names the file if it is not one."""
    with path.open("rb") as stream:
        return read_npy(stream, path.stat().st_size, name=str(path))


def load_npz(path: Path) -> np.ndarray:
    """Read the array ``images``, else ``X``, else the only array of an ``.npz`` file."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = _choose_member(archive, path)
            with archive.open(member) as stream:
                return read_npy(stream, member.file_size, name=f"{path} ({member.filename})")
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is not a readable .npz file: {error}") from error


def _choose_member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    members = {
        info.filename.removesuffix(".npy"): info
        for info in archive.infolist()
        if info.filename.endswith(".npy")
    }
    for key in NPZ_KEYS:
        if key in members:
            return members[key]
    if len(members) == 1:
        return next(iter(members.values()))
    raise ValueError(
        f"{path} must hold an array named 'images' or 'X', or one array only; "
        f"it holds {sorted(members) or 'none'}"
    )

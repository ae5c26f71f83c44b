"""The container: a zip of one JSON manifest and numbered ``.npy`` arrays, not compressed."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skgradood.datasets.npy_format import read_npy
from skgradood.utils.files import replacing

MANIFEST = "manifest.json"
_MEMBER = re.compile(r"manifest\.json|arrays/[0-9]{1,6}\.npy")
_ENCRYPTED = 0x1
# What zipfile raises of damaged files: a RuntimeError for flags that it does not know, and
# NotImplementedError, which is one, for versions.
_DAMAGE = (zipfile.BadZipFile, EOFError, RuntimeError)
# And an OSError for members at places that a file cannot have.
_DAMAGED_MEMBER = (*_DAMAGE, OSError)


def write_archive(path: Path, manifest: dict[str, Any], arrays: Sequence[np.ndarray]) -> None:
    """Write the archive as a whole, or not at all."""
    with replacing(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(MANIFEST, json.dumps(manifest, indent=1, allow_nan=False))
        for index, array in enumerate(arrays):
            with archive.open(_array_name(index), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


class ArchiveReader:
    """An open archive whose list of members has been checked; a context manager.

    Raises
    ------
    ValueError
        If the file is no zip, is truncated, or has members that `write_archive` does not write:
        other names, compressed or encrypted ones, or more bytes than the file has.
    """

    def __init__(self, path: Path):
        self._path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (*_DAMAGE, ValueError) as error:
            raise ValueError(f"{path} is not a saved detector, or is truncated: {error}") from error
        try:
            self._members = self._check_members()
        except BaseException:
            self._archive.close()
            raise

    def __enter__(self) -> ArchiveReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._archive.close()

    def read_manifest(self) -> dict[str, Any]:
        """Read the JSON manifest."""
        try:
            manifest = json.loads(self._archive.read(self._members[MANIFEST]))
        except (*_DAMAGED_MEMBER, ValueError) as error:
            raise ValueError(f"{self._path} has a damaged manifest: {error}") from error
        if not isinstance(manifest, dict):
            raise ValueError(f"{self._path} has a manifest that is not a JSON object")
        return manifest

    def read_array(self, index: int) -> np.ndarray:
        """Read one array by its number."""
        name = _array_name(index)
        if name not in self._members:
            raise ValueError(f"{self._path} refers to an array it does not hold: {name}")
        member = self._members[name]
        try:
            with self._archive.open(member) as stream:
                return read_npy(
                    stream, member.file_size, name=f"{self._path} ({name})", kinds="biufcU"
                )
        except _DAMAGED_MEMBER as error:
            raise ValueError(f"{self._path} is damaged at {name}: {error}") from error

    def _check_members(self) -> dict[str, zipfile.ZipInfo]:
        infos = self._archive.infolist()
        members = {info.filename: info for info in infos}
        for info in infos:
            if not _MEMBER.fullmatch(info.filename):
                raise ValueError(
                    f"{self._path} is not a saved detector: it holds {info.filename!r}"
                )
            # Sizes equal to those in the file leave no room for a decompression bomb.
            if (
                info.compress_type != zipfile.ZIP_STORED
                or info.file_size != info.compress_size
                or info.flag_bits & _ENCRYPTED
            ):
                raise ValueError(
                    f"{self._path} holds {info.filename!r} compressed or encrypted; "
                    "saved detectors never are"
                )
        if len(members) != len(infos) or MANIFEST not in members:
            raise ValueError(
                f"{self._path} is not a saved detector: {MANIFEST} is missing or names repeat"
            )
        if sum(info.file_size for info in infos) > self._path.stat().st_size:
            raise ValueError(f"{self._path} declares more data than it has: truncated or damaged")
        return members


def _array_name(index: int) -> str:
    return f"arrays/{index}.npy"

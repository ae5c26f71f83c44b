"""Files that are written as a whole, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a new file, which takes its place at a path once the block is through.

    If the block fails or is interrupted, what was there stays as it was. A file that is replaced
    hands on its permissions; a link goes on to lead where it led. What is no file, such as a pipe,
    cannot be replaced and is written at once.

    Parameters
    ----------
    path : path-like

    Yields
    ------
    binary file
        Open to write.
    """
    if _is_special(path):
        with Path(path).open("wb") as stream:
            yield stream
        return
    destination = Path(os.path.realpath(path))
    temporary = _inside(destination.parent)
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if destination.exists():
            shutil.copymode(destination, temporary)
        temporary.replace(destination)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def try_replacing(path: str | os.PathLike[str]) -> None:
    """Find out, leaving no trace, whether `replacing` can write at a path.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    OSError
        If it cannot; the message names the path.
    """
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder; give the name of a file")
    destination = Path(os.path.realpath(path))
    if not destination.parent.is_dir():
        raise FileNotFoundError(f"the folder of {path} does not exist")
    try:
        if _exists(path) and not os.access(path, os.W_OK):
            raise PermissionError("it may not be written")
        if not _is_special(path):
            try_folder(destination.parent)
    except OSError as error:
        raise type(error)(f"{path} cannot be written: {error.strerror or error}") from error


def try_folder(folder: Path) -> None:
    """Make a file in a folder and remove it again; OSError if that fails."""
    temporary = _inside(folder)
    temporary.open("xb").close()
    temporary.unlink()


def _inside(folder: Path) -> Path:
    """A new file; its name is short, whatever that of the file will be whose place it takes."""
    return folder / f".{secrets.token_hex(8)}.part"


def _exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is something; unlike Path.exists, a name that no file can have is an error."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


def _is_special(path: str | os.PathLike[str]) -> bool:
    return _exists(path) and not stat.S_ISREG(os.stat(path).st_mode)

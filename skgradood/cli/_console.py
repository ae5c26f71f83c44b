"""What the commands tell: results on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def say(text: str) -> None:
    """Write one line of the result, at once."""
    _write_line(text, sys.stdout)


def complain(text: str) -> None:
    """Write one line about what is wrong or going on."""
    _write_line(f"skgradood: {text}", sys.stderr)


def leads_to_stdout(path: str) -> bool:
    """Whether a file, by whatever name, is where stdout goes; "-" always is."""
    if path == "-":
        return True
    if sys.stdout is None:
        return False
    try:
        return os.path.samestat(os.stat(path), os.fstat(1))
    except OSError:  # there is no such file
        return False


def hand_out(content: bytes) -> None:
    """Write bytes to stdout.

    Raises
    ------
    OSError
        If it is closed.
    """
    if sys.stdout is None:
        raise OSError("standard output is closed; give --out the name of a file")
    sys.stdout.buffer.write(content)
    sys.stdout.flush()


def _write_line(text: str, stream: TextIO | None) -> None:
    if stream is None:  # closed by whoever started the command
        return
    # A name of a file may hold what the terminal cannot show.
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()

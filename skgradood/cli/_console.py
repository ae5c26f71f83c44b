"""What the commands tell: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Write one line of the result, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Write one line about what is wrong or going on."""
    sys.stderr.write(f"skgradood: {text}\n")
    sys.stderr.flush()

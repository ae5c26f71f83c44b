"""Option strings and what they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Choice = TypeVar("Choice")


def look_up(choices: Mapping[str, Choice], key: str, name: str) -> Choice:
    """Return ``choices[key]``, or raise a ValueError that lists the keys.

    Parameters
    ----------
    choices : mapping
        What every option string stands for.
    key : str
        The user's choice.
    name : str
        What the error calls the option.
    """
    if key not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {known}; got {key!r}")
    return choices[key]

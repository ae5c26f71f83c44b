"""Arguments of torch's functions, which have several spellings."""

from __future__ import annotations

from typing import Any


def input_first(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Arguments with ``input``, should it come by name, in the first place."""
    others = {name: value for name, value in kwargs.items() if name != "input"}
    return (kwargs["input"], *args) if "input" in kwargs else args, others


def pair(value: Any) -> tuple[int, int]:
    """A size in two dimensions, of which one number means both."""
    if isinstance(value, int):
        return value, value
    first, *rest = value
    return first, rest[0] if rest else first

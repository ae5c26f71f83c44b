"""Arguments of torch's functions by name."""

from __future__ import annotations

from typing import Any


def bound(names: tuple[str, ...], args: tuple, kwargs: dict[str, Any]) -> list[Any]:
    """Values in the order of their names, None for those that are not given."""
    return [args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(names)]


def renamed(kwargs: dict[str, Any], **names: str) -> dict[str, Any]:
    """Keyword arguments under other names: torch has several for one thing."""
    return {names.get(key, key): value for key, value in kwargs.items()}

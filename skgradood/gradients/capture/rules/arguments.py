"""Arguments of torch's functions by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map_only


def bound(names: tuple[str, ...], args: tuple, kwargs: dict[str, Any]) -> list[Any]:
    """Values in the order of their names, None for those that are not given."""
    return [args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(names)]


def with_tensors(tree: Any, replace: Callable[[Tensor], Any]) -> Any:
    """Nested arguments with something else in the place of every tensor."""
    if isinstance(tree, Tensor):
        return replace(tree)
    kind = tree.__class__
    if kind is tuple or kind is list:  # torch's own function takes many times as long
        return kind(with_tensors(branch, replace) for branch in tree)
    if kind is dict:
        return {key: with_tensors(branch, replace) for key, branch in tree.items()}
    return tree_map_only(Tensor, replace, tree)


def renamed(kwargs: dict[str, Any], **names: str) -> dict[str, Any]:
    """Keyword arguments under other names: torch has several for one thing."""
    return {names.get(key, key): value for key, value in kwargs.items()}

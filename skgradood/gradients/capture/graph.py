"""What autograd's graph tells of how a tensor was computed, without a look at its numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor

from skgradood.gradients.capture.functions import POINTWISE

_NODE = re.compile(r"(\w+)Backward\d+")  # without the number it is a user's own function
_LEAF = "torch::autograd::AccumulateGrad"
_OF_ELEMENTS = POINTWISE | {"tril", "triu", "to_copy", "log_sigmoid"}


def is_of_elements(tensor: Tensor) -> bool:
    """Whether each element depends on no other elements than those in its place in the leaves.

    Of leaves that have the tensor's shape; constants may be broadcast.
    """
    names = set(_node_names(tensor)) - {_LEAF}
    return tensor.grad_fn is not None and all(_operator(name) in _OF_ELEMENTS for name in names)


def is_linear_backwards(tensor: Tensor) -> bool:
    """Whether gradients are sure to be carried down linearly.

    Those of torch's own functions are; a user's function, or hook, may do anything.
    """
    return not tensor._backward_hooks and all(
        name.startswith("torch::") or _operator(name) is not None for name in _node_names(tensor)
    )


def normed_leaves(tensor: Tensor) -> tuple[Tensor, Tensor] | None:
    """The leaves v and g of a weight norm g v / ‖v‖ by the first dimension; None of aught else."""
    node = tensor.grad_fn
    if (
        node is None
        or node.name() != "WeightNormInterfaceBackward0"
        or getattr(node, "_saved_dim", None) != 0
    ):
        return None
    direction, size = (getattr(following, "variable", None) for following, _ in node.next_functions)
    if direction is None or size is None or direction.ndim < 2 or direction.is_complex():
        return None
    return direction, size


def _node_names(tensor: Tensor) -> Iterator[str]:
    waiting, seen = [tensor.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node.name()
        waiting.extend(following for following, _ in node.next_functions)


def _operator(name: str) -> str | None:
    """The operator's name, ``masked_fill``, of a node's, ``MaskedFillBackward0``."""
    found = _NODE.fullmatch(name)
    return None if found is None else re.sub(r"(?<=.)(?=[A-Z])", "_", found[1]).lower()

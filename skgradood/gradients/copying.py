"""Copies of modules that keep what they computed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

SomeModule = TypeVar("SomeModule", bound=nn.Module)


class CopyingValues(TorchFunctionMode):
    """A block in which ``copy.deepcopy`` copies the values of tensors that have a history.

    torch refuses to copy these, and modules hold some as attributes after a pass, anywhere:
    ``torch.nn.utils.weight_norm`` and ``spectral_norm`` the weight that was used.
    """

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if function is Tensor.__deepcopy__ and not args[0].is_leaf and not _shows_a_leaf(args[0]):
            return args[0].detach().clone()
        return function(*args, **(kwargs or {}))


def _shows_a_leaf(tensor: Tensor) -> bool:
    """Whether a tensor is a view of a parameter, from which a copy by value would be cut off."""
    return tensor._base is not None and tensor._base.is_leaf


def copy_of(module: SomeModule) -> SomeModule:
    """Copy a module deeply; what it holds of its last pass comes as values, without history.

    Parameters
    ----------
    module : nn.Module
        The user's module, which is left as it is.

    Returns
    -------
    nn.Module
    """
    with CopyingValues():
        return copy.deepcopy(module)

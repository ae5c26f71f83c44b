"""Guards that leave the user's module and torch's random generators as they were."""

from __future__ import annotations

import sys
import threading
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import nn

_KNOWN_TO_NUMPY = (torch.float32, torch.float64, torch.int64, torch.bool)
# The generators belong to the process: two threads at once would draw from each other's seed, and
# put back what the other had set.
_one_thread = threading.RLock()


@contextmanager
def isolated_rng(seed: int | None = None) -> Iterator[None]:
    """Run a block with torch's global generators seeded, and restore them afterwards.

    One thread at a time runs such a block; others wait for it.

    Parameters
    ----------
    seed : int, optional
        Seed of all of them inside the block. None keeps their present state.
    """
    with _one_thread:
        cpu_state, cuda_states, mps_states = torch.get_rng_state(), _cuda_states(), _mps_states()
        try:
            if seed is not None:
                torch.default_generator.manual_seed(seed)
                if cuda_states:
                    torch.cuda.manual_seed_all(seed)
                if mps_states:
                    torch.mps.manual_seed(seed)
            yield
        finally:
            torch.set_rng_state(cpu_state)
            if cuda_states:
                torch.cuda.set_rng_state_all(cuda_states)
            for state in mps_states:
                torch.mps.set_rng_state(state)


def global_rng_states() -> list[torch.Tensor]:
    """States of torch's global generators: of the CPU, CUDA devices in use, and Apple's GPU."""
    return [torch.get_rng_state(), *_cuda_states(), *_mps_states()]


def _cuda_states() -> list[torch.Tensor]:
    # Asking an uninitialised CUDA for its state would initialise it, which is a global change.
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _mps_states() -> list[torch.Tensor]:
    return [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else []


def uncompiled_name(name: str) -> str:
    """A parameter's name without the modules that ``torch.compile`` wraps around others."""
    return name.replace("_orig_mod.", "")


def eagerly() -> AbstractContextManager:
    """A block in which whatever is compiled runs as it is written: no strategy sees into code."""
    # Nothing has been compiled where nobody has loaded the compiler, which takes seconds.
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


@contextmanager
def evaluation_state(module: nn.Module, parameters: Container[str] | None = None) -> Iterator[None]:
    """Put a module into ``eval()`` for a block; restore all that is seen of it afterwards.

    Parameters
    ----------
    module : nn.Module
        The user's module. Whatever the block does to mode flags, to parameters and buffers (their
        values, or the objects themselves), to ``grad`` and to ``requires_grad`` is undone, also
        after an exception; a tensor that it keeps as an attribute of another kind is again the
        one it was. Some flows initialise themselves from the first batch they see: a
        copy of all values is kept meanwhile.
    parameters : container of str, optional
        Names of the parameters that are differentiated in the block: the others do not require
        grad there, so that nobody computes what nobody asked for. None keeps all.
    """
    children = list(module.modules())
    modes = [child.training for child in children]
    members = [(dict(child._parameters), dict(child._buffers)) for child in children]
    kept = [_tensor_attributes(child) for child in children]
    # Walked through once, by hand: on a small model what iterators of names cost is seen.
    tensors = {id(t): t for pair in members for m in pair for t in m.values() if t is not None}
    values = [_Value(tensor) for tensor in tensors.values()]
    gradients = [(t, t.grad, t.requires_grad) for t in tensors.values() if t.is_leaf]
    try:
        # Set directly: a user's own train() may do more than set flags, and is not undone.
        for child in children:
            _set_mode(child, training=False)
        if parameters is not None:
            _freeze_others(module, parameters)
        with eagerly():
            yield
    finally:
        for child, training, (own_parameters, buffers) in zip(
            children, modes, members, strict=True
        ):
            _set_mode(child, training=training)
            _refill(child._parameters, own_parameters)
            _refill(child._buffers, buffers)
        for child, attributes in zip(children, kept, strict=True):
            vars(child).update(attributes)
        for tensor, _, _ in gradients:
            if not tensor.is_leaf:  # what depends on parameters was written into it
                tensor.detach_()
        for value in values:
            value.restore()
        for parameter, gradient, requires_grad in gradients:
            if parameter.grad is not gradient:
                parameter.grad = gradient
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad = requires_grad


def without_graphs(module: nn.Module) -> None:
    """Cut off what depends on parameters and was written into a buffer by an earlier pass."""
    for child in module.modules():
        for buffer in child._buffers.values():
            if buffer is not None and buffer.grad_fn is not None:
                buffer.detach_()


def _set_mode(module: nn.Module, *, training: bool) -> None:
    if module.training != training:  # setting an attribute of a module is slow
        module.training = training


def _tensor_attributes(module: nn.Module) -> dict[str, torch.Tensor]:
    """Tensors by attribute that are no parameters or buffers, as weights under a weight norm."""
    return {name: value for name, value in vars(module).items() if isinstance(value, torch.Tensor)}


def _freeze_others(module: nn.Module, parameters: Container[str]) -> None:
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and uncompiled_name(name) not in parameters:
            parameter.requires_grad = False


class _Value:
    """The memory and the content of a tensor."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.memory = tensor.data
        self.content = tensor.detach().clone()
        self.version = tensor._version

    def restore(self) -> None:
        if self.tensor.layout != torch.strided:  # sparse ones have no memory to look at
            if self.tensor._version != self.version:
                with torch.no_grad():
                    self.tensor.copy_(self.content)
            return
        # Through .data, which autograd's version counters do not see; nor did they see most of
        # what is undone here.
        if self.tensor.data_ptr() != self.memory.data_ptr():
            self.tensor.data = self.memory
        if not _equal(self.memory, self.content):
            self.memory.copy_(self.content)


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    # NumPy takes a sixth of torch's time for it, which on a small model is seen.
    if a.is_cpu and a.layout == torch.strided and a.dtype in _KNOWN_TO_NUMPY:
        return np.array_equal(a.numpy(), b.numpy())
    return torch.equal(a, b)


def _refill(holder: dict, before: dict) -> None:
    # A scripted module holds its tensors in compiled code, where none can be exchanged.
    if not isinstance(holder, dict):
        return
    if holder.keys() != before.keys() or any(holder[key] is not before[key] for key in before):
        holder.clear()
        holder.update(before)

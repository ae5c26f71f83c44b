"""Guards that leave the user's module and torch's random generators as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def isolated_rng(seed: int | None = None) -> Iterator[None]:
    """Run a block with torch's global generators seeded, and restore them afterwards.

    Parameters
    ----------
    seed : int, optional
        Seed of the CPU and CUDA generators inside the block. None keeps their present state.
    """
    cpu_state, *cuda_states = global_rng_states()
    try:
        if seed is not None:
            torch.default_generator.manual_seed(seed)
            if cuda_states:
                torch.cuda.manual_seed_all(seed)
        yield
    finally:
        torch.set_rng_state(cpu_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)


def global_rng_states() -> list[torch.Tensor]:
    """States of torch's global generators: the CPU's, then those of CUDA devices in use."""
    # Asking an uninitialised CUDA for its state would initialise it, which is a global change.
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *cuda_states]


@contextmanager
def evaluation_state(module: nn.Module) -> Iterator[None]:
    """Put a module into ``eval()`` for a block; restore its mode flags, buffers and ``grad``.

    Parameters
    ----------
    module : nn.Module
        The user's module. Whatever the block does to mode flags, buffers (their values, or the
        objects themselves) and the ``grad`` of parameters is undone, also after an exception.
    """
    modes = [(child, child.training) for child in module.modules()]
    buffers = [
        (child, dict(child._buffers), {k: b.clone() for k, b in _present(child._buffers)})
        for child in module.modules()
        if child._buffers
    ]
    versions = {id(b): b._version for _, held, _ in buffers for _, b in _present(held)}
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    try:
        # Set directly: a user's own train() may do more than set flags, and is not undone.
        for child, _ in modes:
            child.training = False
        yield
    finally:
        for child, training in modes:
            child.training = training
        for child, held, values in buffers:
            child._buffers.clear()
            child._buffers.update(held)
            for key, buffer in _present(held):
                if buffer._version != versions[id(buffer)]:
                    with torch.no_grad():
                        buffer.copy_(values[key])
        for parameter, gradient in gradients:
            if parameter.grad is not gradient:
                parameter.grad = gradient


def _present(buffers: dict[str, torch.Tensor | None]) -> Iterator[tuple[str, torch.Tensor]]:
    return ((key, buffer) for key, buffer in buffers.items() if buffer is not None)

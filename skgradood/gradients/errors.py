"""Exceptions and warnings of the engine."""

from __future__ import annotations

import torch

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class StrategyRefused(RuntimeError):
    """A strategy cannot prove that it would measure this model rightly."""


class LogLikelihoodError(TypeError):
    """What should be a log-likelihood does not return one number a sample."""


class EngineWarning(UserWarning):
    """The engine fell back to a slower strategy."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, had no room for something."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        sign in str(error).lower() for sign in _OUT_OF_MEMORY
    )

"""Devices, seeds, and evaluation in batches that fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor, nn

from skgradood.gradients.errors import is_out_of_memory

_AVAILABLE: dict[str, Callable[[], bool]] = {
    "cuda": lambda: torch.cuda.is_available(),
    "mps": lambda: torch.backends.mps.is_available(),
}

_logger = logging.getLogger("skgradood")


def resolve_device(device: str | torch.device) -> torch.device:
    """The device that an option stands for; ``"auto"`` is CUDA where there is one, else the CPU.

    Raises
    ------
    ValueError
        If CUDA or Apple's GPU ("mps") is asked for and there is none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    resolved = torch.device(device)
    available = _AVAILABLE.get(resolved.type)
    if available is not None and not available():
        raise ValueError(
            f"device={str(device)!r} was asked for, but {resolved.type.upper()} is not available "
            "here; use device='auto' or 'cpu'"
        )
    if resolved.type == "cuda":
        # Its generators must exist before their states are saved around a training run.
        torch.cuda.init()
    return resolved


def empty_cache(device: torch.device) -> None:
    """Give back the memory of a GPU that torch holds and does not use."""
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()


def draw_seed(random_state: Any, stage: int = 0) -> int:
    """A seed for torch; None draws fresh entropy and leaves NumPy's global generator alone.

    Parameters
    ----------
    random_state : int, RandomState or None
        The user's seed.
    stage : int, default=0
        Another number gives another seed from the same integer.
    """
    if random_state is None:
        return int(np.random.default_rng().integers(2**31))
    base = int(check_random_state(random_state).randint(2**31))
    return int(np.random.SeedSequence((base, stage)).generate_state(1)[0])


def evaluate_in_batches(
    function: Callable[[Tensor], Tensor], X: Tensor, *, batch_size: int, device: torch.device
) -> np.ndarray:
    """Apply a function that treats samples one by one, a batch at a time, without gradients.

    A batch that does not fit into the memory of the device is halved, and so are those after it.

    Parameters
    ----------
    function : callable
        (b, ...) to (b,) or (b, k) on the device.
    X : Tensor of shape (n, ...)
        On the CPU.
    batch_size : int
        Samples a batch.
    device : torch.device
        Where to evaluate.

    Returns
    -------
    ndarray of shape (n,) or (n, k), float64
    """
    values = []
    start = 0
    with torch.no_grad():
        while start < len(X):
            stop = min(start + batch_size, len(X))
            try:
                values.append(function(X[start:stop].to(device)).cpu().double().numpy())
            except RuntimeError as error:
                if batch_size == 1 or not is_out_of_memory(error):
                    raise
                batch_size = max(1, batch_size // 2)
                _logger.warning("out of GPU memory: going on with batches of %d", batch_size)
                empty_cache(device)
            else:
                start = stop
    return np.concatenate(values)


def sample_in_batches(
    module: nn.Module, n: int, *, batch_size: int, seed: int, **options: Any
) -> np.ndarray:
    """Draw from a module, a batch at a time.

    Parameters
    ----------
    module : nn.Module
        With ``sample(n, generator=None)``.
    n : int
        How many samples.
    batch_size : int
        Samples a batch.
    seed : int
        Of one generator for all batches.
    **options
        Further arguments of the module's ``sample``.

    Returns
    -------
    ndarray of shape (n, ...)

    Raises
    ------
    ValueError
        If n is not a positive integer.
    AttributeError
        If the module has no ``sample`` method.
    """
    if not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"n must be a positive integer, the number of samples; got {n!r}")
    generator = torch.Generator(next(module.parameters()).device).manual_seed(seed)
    draw = cast("Callable[..., Tensor]", module.sample)
    sizes = [min(batch_size, n - start) for start in range(0, n, batch_size)]
    return np.concatenate(
        [draw(size, generator=generator, **options).cpu().numpy() for size in sizes]
    )

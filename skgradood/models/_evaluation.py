"""Log-likelihoods without gradients, with the noise that the gradient engine gives each row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skgradood.gradients import LogLikelihood
from skgradood.gradients.copying import copy_of
from skgradood.gradients.state import evaluation_state, isolated_rng
from skgradood.models._batches import evaluate_in_batches, resolve_device
from skgradood.models._fitted import LikelihoodModel
from skgradood.models._row_noise import with_row_noise

# The method of a module whose log-likelihood is a sum of named parts, such as a flow's scales.
CONTRIBUTIONS = "log_prob_contributions"

# Without gradients no activation is kept: a batch of this many numbers is small in memory.
_BATCH_NUMBERS = 1 << 18
_LARGEST_BATCH = 4096
_SMALLEST_BATCH = 16


def log_likelihoods(
    model: LikelihoodModel,
    X: Any,
    *,
    log_likelihood: str | Callable = "log_prob",
    batch_size: int | str = "auto",
    device: str | torch.device | None = None,
    random_state: int = 0,
    group_size: int | None = None,
) -> np.ndarray:
    """Log-likelihood of every sample, or group of samples.

    The values are those that `skgradood.gradients.GradientEngine` returns beside its gradients:
    noise comes from a generator seeded by ``random_state`` and the sample's own content.

    Parameters
    ----------
    model : LikelihoodModel
        As `fit_likelihood` returns it. Its module is left as it was.
    X : array-like of shape (n, ...)
        Samples.
    log_likelihood : str or callable, default="log_prob"
        The name of a method of the module, or a callable ``(module, X, generator) -> (n,)``.
    batch_size : int or "auto", default="auto"
        Samples a pass; halved when the memory of a GPU runs out.
    device : str, torch.device or None, default=None
        Where to compute: "auto" is CUDA where there is one, else the CPU, None where the module is.
    random_state : int, default=0
        Mixed into the seeds of the rows' noise.
    group_size : int or None, default=None
        How many consecutive samples make a group, whose log-likelihoods are added; None: each
        sample is judged alone.

    Returns
    -------
    ndarray of shape (n,) or (n // group_size,), float64
        Nats; -inf, inf and NaN as the module returned them.

    Raises
    ------
    TypeError
        If the module has no such method, or it returns anything but one value a sample.
    ValueError
        If X is not what the module takes.
    """
    function = LogLikelihood(log_likelihood, random_state, grouped=group_size is not None)
    function.check(model.module)
    inputs = model.prepare(X)
    if group_size is not None:
        inputs = inputs.unflatten(0, (-1, group_size))
    return _evaluate(model, inputs, function, function.row_seeds, batch_size, device)


def log_likelihood_contributions(
    model: LikelihoodModel,
    X: Any,
    *,
    batch_size: int | str = "auto",
    device: str | torch.device | None = None,
) -> np.ndarray:
    """What each part of a flow, usually a scale, contributes to the log-likelihood.

    Parameters
    ----------
    model : LikelihoodModel
        Its module has a method ``log_prob_contributions(X) -> (n, S)`` in nats, whose rows sum to
        ``log_prob(X)``.
    X : array-like of shape (n, ...)
        Samples.
    batch_size, device
        As in `log_likelihoods`.

    Returns
    -------
    ndarray of shape (n, S), float64
        Nats.

    Raises
    ------
    TypeError
        If the module has no such method, or it returns another shape.
    """
    method = getattr(model.module, CONTRIBUTIONS, None)
    if not callable(method):
        raise TypeError(
            f"{type(model.module).__name__} has no method {CONTRIBUTIONS}(X) -> (n, S). Flows with "
            "several scales, such as skgradood.models.Glow, have one: its rows sum to log_prob(X)."
        )

    def contributions(module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
        values = getattr(module, CONTRIBUTIONS)(X)
        if values.ndim != 2 or len(values) != len(X):
            raise TypeError(
                f"{CONTRIBUTIONS}() of {type(module).__name__} returned shape "
                f"{tuple(values.shape)} for {len(X)} samples; expected ({len(X)}, S)"
            )
        return values

    inputs = model.prepare(X)
    return _evaluate(model, inputs, contributions, LogLikelihood().row_seeds, batch_size, device)


def _evaluate(
    model: LikelihoodModel,
    inputs: Tensor,
    function: Callable[[nn.Module, Tensor, torch.Generator], Tensor],
    row_seeds: Callable[[Tensor], list[int]],
    batch_size: int | str,
    device: str | torch.device | None,
) -> np.ndarray:
    with module_at_rest(model, device) as (module, home):
        return evaluate_in_batches(
            lambda batch: with_row_noise(function, module, batch, row_seeds),
            inputs,
            batch_size=evaluation_batch_size(inputs, batch_size),
            device=home,
        )


@contextmanager
def module_at_rest(
    model: LikelihoodModel, device: str | torch.device | None
) -> Iterator[tuple[nn.Module, torch.device]]:
    """Lend a model's module in evaluation mode, on a device; give it back as it was.

    Parameters
    ----------
    model : LikelihoodModel
        Its module is copied if it is wanted on another device than its own.
    device : str, torch.device or None
        As in `log_likelihoods`.
    """
    home = model.device if device is None else resolve_device(device)
    moved = home.type != model.device.type or home.index not in (None, model.device.index)
    module = copy_of(model.module).to(home) if moved else model.module
    with torch.inference_mode(False), isolated_rng(), evaluation_state(module):
        yield module, home


def evaluation_batch_size(X: Tensor, batch_size: int | str) -> int:
    """Samples a pass without gradients; "auto" goes by the size of a sample."""
    if batch_size != "auto":
        return int(batch_size)
    fitting = _BATCH_NUMBERS // max(1, X[0].numel())
    return int(np.clip(fitting, _SMALLEST_BATCH, _LARGEST_BATCH))

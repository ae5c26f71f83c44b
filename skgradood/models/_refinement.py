"""The posterior of a variational autoencoder, optimised for every sample on its own.

All samples of a chunk are optimised at once: each has its own copy of what is optimised, and the
gradient of the sum of their bounds is, copy by copy, that of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from skgradood.models._encoder_copies import encoder_copies, encoder_parameters
from skgradood.models._fixed_weights import FixedWeights
from skgradood.models._training import OPTIMIZERS

_PROTOCOL = (
    "encode(X) -> (mean, log_variance), each (n, L), and "
    "bound(X, mean, log_variance, noise=None) -> (n,) in nats"
)
# Optimizers that torch can run as one kernel.
_FUSED = ("adam", "adamw", "sgd")
# A copy, its gradient and the two moments of Adam.
_NUMBERS_PER_PARAMETER = 4
# What is kept, its gradient, and the temporary results of both.
_PASSES_OF_ACTIVATIONS = 3
_CHUNK_BYTES_ON_CPU = 1 << 29
_SHARE_OF_FREE_GPU_MEMORY = 0.25


class VariationalModule(Protocol):
    """What an autoencoder must offer to have its posteriors optimised."""

    def encode(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior, (n, L) each."""

    def bound(
        self, X: Tensor, mean: Tensor, log_variance: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Evidence lower bound at a normal posterior, (n,) nats; noise-free without noise."""


def check_variational(module: nn.Module) -> None:
    """Raise TypeError unless a module is a `VariationalModule`."""
    missing = [name for name in ("encode", "bound") if not callable(getattr(module, name, None))]
    if missing:
        raise TypeError(
            f"{type(module).__name__} has no method {' and no method '.join(missing)}. An "
            f"autoencoder whose posterior is to be optimised must offer {_PROTOCOL}, as "
            "skgradood.models.VAE does."
        )


def bounds_before_and_after(
    module: nn.Module,
    X: Tensor,
    *,
    over: str,
    n_steps: int,
    lr: float,
    optimizer: str,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Evidence lower bounds at the module's posterior and at the best one that was found.

    Parameters
    ----------
    module : nn.Module
        A `VariationalModule` in evaluation mode. Its parameters are not changed.
    X : Tensor of shape (n, ...)
        Samples, on the module's device.
    over : {"encoder", "posterior"}
        Whether copies of the encoder's parameters are optimised, or mean and log-variance.
    n_steps : int
        Steps of the optimizer.
    lr : float
        Its learning rate.
    optimizer : str
        A key of `OPTIMIZERS`. All of these treat every number on its own, so that samples do not
        meet in them.
    noise : Tensor of shape (k, n, L), optional
        The bound is averaged over k draws from the posterior, the same ones in every step.

    Returns
    -------
    before, after : Tensor of shape (n,)
        Nats. ``after`` is the largest bound met on the way, the start included.
    """
    variational = cast("VariationalModule", module)
    leaves, posterior = _VARIABLES[over](module, X)
    # The state of many copies fills no cache: it is to be passed over once a step.
    options: dict[str, Any] = {"fused": True} if optimizer in _FUSED else {}
    update = OPTIMIZERS[optimizer](leaves, lr=lr, **options)
    # Libraries for GPUs choose layouts by themselves.
    decoder = FixedWeights() if X.device.type == "cpu" else contextlib.nullcontext()

    def bounds() -> Tensor:
        moments = posterior()
        with decoder:
            return _average_bound(variational, X, moments, noise)

    values = bounds()
    before = after = values.detach()
    for _ in range(n_steps):
        # Asked for these alone, autograd leaves out the gradients of all other parameters.
        gradients = torch.autograd.grad(-values.sum(), leaves)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient
        update.step()
        values = bounds()
        after = torch.fmax(after, values.detach())
    return before, after


def chunk_size(module: nn.Module, X: Tensor, over: str, batch_size: int | str) -> int:
    """Samples whose copies fit into memory beside one another.

    Parameters
    ----------
    module : nn.Module
    X : Tensor of shape (n, ...)
        At least one sample, on the module's device.
    over : {"encoder", "posterior"}
    batch_size : int or "auto"
        The largest chunk; "auto" sets no limit but memory and 256.
    """
    largest = 256 if batch_size == "auto" else int(batch_size)
    copied = encoder_parameters(module, X[:1]).values() if over == "encoder" else ()
    n_bytes = sum(p.numel() * p.element_size() for p in copied) * _NUMBERS_PER_PARAMETER
    n_bytes += _PASSES_OF_ACTIVATIONS * _activation_bytes(module, X[:1])
    room = float(_CHUNK_BYTES_ON_CPU)
    if X.device.type == "cuda":
        room = torch.cuda.mem_get_info(X.device)[0] * _SHARE_OF_FREE_GPU_MEMORY
    return max(1, min(largest, int(room // max(1, n_bytes))))


def _activation_bytes(module: nn.Module, x: Tensor) -> int:
    """What the backward pass of one sample's bound keeps of the decoder, parameters left out."""
    parameters = {p.data_ptr() for p in module.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    leaves, posterior = _posterior_moments(module, x)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        # The result is held until all is counted, so that no address is used twice.
        bound = cast("VariationalModule", module).bound(x, *posterior())
    del bound, leaves
    return sum(kept.values())


def _average_bound(
    module: VariationalModule, X: Tensor, posterior: tuple[Tensor, Tensor], noise: Tensor | None
) -> Tensor:
    if noise is None:
        return module.bound(X, *posterior)
    total = sum(module.bound(X, *posterior, one) for one in noise)
    return cast("Tensor", total) / len(noise)


_Variables = tuple[list[Tensor], Callable[[], tuple[Tensor, Tensor]]]


def _posterior_moments(module: nn.Module, X: Tensor) -> _Variables:
    """Mean and log-variance of every sample."""
    with torch.no_grad():
        moments = cast("VariationalModule", module).encode(X)
    mean, log_variance = (moment.detach().clone().requires_grad_() for moment in moments)
    return [mean, log_variance], lambda: (mean, log_variance)


_VARIABLES: dict[str, Callable[[nn.Module, Tensor], _Variables]] = {
    "encoder": encoder_copies,
    "posterior": _posterior_moments,
}
OVER = tuple(_VARIABLES)

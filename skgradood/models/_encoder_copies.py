"""A copy of an encoder's parameters for every sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from skgradood.models._own_weights import ConvolutionsAsProducts, NoRule, OwnWeights, Part

# Relative to the largest moment; other products of matrices round in other ways.
_TOLERANCE = 1e-3
# Samples that are encoded together and one by one.
_N_COMPARED = 3


class _HasEncoder(Protocol):
    def encode(self, X: Tensor) -> tuple[Tensor, Tensor]: ...


def encoder_parameters(module: nn.Module, x: Tensor) -> dict[str, nn.Parameter]:
    """The parameters on which the posterior of a sample depends, by name."""
    parameters = {name: p for name, p in module.named_parameters() if p.is_floating_point()}
    copies = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
    with torch.enable_grad():
        mean, log_variance = _encode_with(module, copies, x)
        total = mean.sum() + log_variance.sum()
        gradients = torch.autograd.grad(total, list(copies.values()), allow_unused=True)
    return {
        name: parameter
        for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True)
        if gradient is not None
    }


def encoder_copies(
    module: nn.Module, X: Tensor
) -> tuple[list[Tensor], Callable[[], tuple[Tensor, Tensor]]]:
    """Copies of the encoder's parameters, (n, ...) each, and the posteriors they lead to.

    Where the encoder consists of functions that have a form with weights of the samples' own, all
    samples go through it together, and of the parameters only what has an effect is copied;
    ``torch.func.vmap`` serves all other encoders.
    """
    parameters = encoder_parameters(module, X[:1])
    parts = _parts_to_copy(module, parameters, X[:_N_COMPARED])
    if parts is None:
        return _by_vmap(module, parameters, X)
    shared = list(parameters.values())
    copies = [
        _repeated(parameter[part], len(X)) for parameter, part in zip(shared, parts, strict=True)
    ]

    def posterior() -> tuple[Tensor, Tensor]:
        with OwnWeights(shared, copies, parts):
            return cast("_HasEncoder", module).encode(X)

    return copies, posterior


def _parts_to_copy(
    module: nn.Module, parameters: dict[str, nn.Parameter], X: Tensor
) -> list[Part] | None:
    """Parts of the parameters that have an effect; None if `OwnWeights` do not serve the encoder.

    Different samples with different copies are run together and one by one: what mixes samples,
    or their weights, is found out.
    """
    factors = torch.linspace(0.9, 1.1, len(X), dtype=torch.float64).tolist()
    scaled = {
        name: torch.stack([factor * parameter.detach() for factor in factors])
        for name, parameter in parameters.items()
    }
    mode = OwnWeights(list(parameters.values()), list(scaled.values()))
    try:
        with torch.no_grad(), mode:
            together = cast("_HasEncoder", module).encode(X)
    except (NoRule, RuntimeError):
        return None
    with torch.no_grad():
        alone = [
            _encode_with(module, {name: values[i] for name, values in scaled.items()}, X[i : i + 1])
            for i in range(len(X))
        ]
    for found, expected in zip(together, map(torch.cat, zip(*alone, strict=True)), strict=True):
        tolerance = _TOLERANCE * float(expected.abs().max())
        if not torch.allclose(found, expected, rtol=0, atol=tolerance, equal_nan=True):
            return None
    return mode.parts_in_use()


def _by_vmap(
    module: nn.Module, parameters: dict[str, nn.Parameter], X: Tensor
) -> tuple[list[Tensor], Callable[[], tuple[Tensor, Tensor]]]:
    copies = {name: _repeated(parameter, len(X)) for name, parameter in parameters.items()}

    def encode(parameters: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = _encode_with(module, parameters, x[None])
        return mean[0], log_variance[0]

    def posterior() -> tuple[Tensor, Tensor]:
        with ConvolutionsAsProducts():
            return torch.func.vmap(encode)(copies, X)

    return list(copies.values()), posterior


class _Encoder(nn.Module):
    """Lets ``functional_call`` reach a module's encoder, with other parameters."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, X: Tensor) -> tuple[Tensor, Tensor]:
        return cast("_HasEncoder", self.module).encode(X)


def _encode_with(module: nn.Module, parameters: dict[str, Tensor], X: Tensor) -> Any:
    prefixed = {f"module.{name}": value for name, value in parameters.items()}
    return torch.func.functional_call(_Encoder(module), prefixed, (X,))


def _repeated(tensor: Tensor, n: int) -> Tensor:
    return tensor.detach().expand(n, *tensor.shape).clone().requires_grad_()

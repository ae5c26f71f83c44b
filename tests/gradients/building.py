"""What a case of the dictionary is, and how its module and its batch are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from skgradood.gradients.state import isolated_rng
from tests.gradients import modules


@dataclass(frozen=True)
class Case:
    """A module and a batch.

    ``make(dtype)`` returns (module, X); ``strategy`` is what serves under ``engine="auto"``;
    ``warns`` is a piece of the fall-back's reason; ``func`` whether ``engine="func"`` serves, too;
    ``looks`` whether where samples lie depends on values, at which capture then has to look.
    """

    make: Callable[[torch.dtype], tuple[nn.Module, Tensor]]
    strategy: str = "capture"
    warns: str | None = None
    func: bool = True
    looks: bool = False


class SquaredOutput(nn.Module):
    """A stand-in for a density: log p(x) = -Σ tanh-weighted squares of a network's output."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def log_prob(self, X: Tensor) -> Tensor:
        out = self.body(X).flatten(1)
        weights = torch.linspace(0.5, 1.5, out.shape[1], dtype=out.dtype, device=out.device)
        return -(weights * out.square()).sum(1) + out.sin().sum(1)


def seeded(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def built(build: Callable[[], nn.Module]) -> nn.Module:
    """The same weights every time.

    Some draws are ill-conditioned in float32, and in half precision rounding may switch a
    rectifier, which moves the norms of so small a model by more than rounding itself.
    """
    with isolated_rng(3):
        return build()


def squared(body: Callable[[], nn.Module], shape: tuple[int, ...], **options: Any) -> Case:
    def make(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        module = SquaredOutput(built(body)).to(dtype)
        modules.randomise(module)
        return module, seeded(shape, dtype)

    return Case(make, **options)


def density(build: Callable[[], nn.Module], shape: tuple[int, ...], **options: Any) -> Case:
    def make(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        module = built(build).to(dtype)
        modules.randomise(module)
        return module, seeded(shape, dtype)

    return Case(make, **options)


def tokens(build: Callable[[], nn.Module], **options: Any) -> Case:
    def make(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        module = built(build).to(dtype)
        modules.randomise(module)
        generator = torch.Generator().manual_seed(3)
        return module, torch.randint(0, 11, (4, 7), generator=generator)

    return Case(make, **options)


def images(build: Callable[[], nn.Module], shape: tuple[int, ...], **options: Any) -> Case:
    def make(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        module = built(build).to(dtype)
        modules.randomise(module, scale=0.3)
        generator = torch.Generator().manual_seed(3)
        return module, torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    return Case(make, **options)

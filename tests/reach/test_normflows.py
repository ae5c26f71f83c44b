"""Flows of normflows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from skgradood.gradients.likelihood import LogLikelihoodFunction
from tests.reach.harness import (
    Case,
    assert_served_as_stated,
    auto_norms,
    randomised,
    seeded,
    squared_output,
    with_dtypes,
)

normflows = pytest.importorskip("normflows")

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]


def real_nvp() -> nn.Module:
    layers = []
    for _ in range(2):
        network = normflows.nets.MLP([2, 8, 4], init_zeros=True)
        layers += [
            normflows.flows.AffineCouplingBlock(network),
            normflows.flows.Permute(4, mode="swap"),
            normflows.flows.ActNorm(4),
        ]
    return normflows.NormalizingFlow(normflows.distributions.DiagGaussian(4), layers)


def masked_affine() -> nn.Module:
    mask = torch.tensor([1.0, 0.0, 1.0, 0.0])
    layers = [
        normflows.flows.MaskedAffineFlow(
            m, normflows.nets.MLP([4, 8, 4]), normflows.nets.MLP([4, 8, 4])
        )
        for m in (mask, 1 - mask)
    ]
    return normflows.NormalizingFlow(normflows.distributions.DiagGaussian(4), layers)


def spline(kind: str) -> nn.Module:
    layers = [getattr(normflows.flows, kind)(4, 1, 8, num_bins=4) for _ in range(2)]
    layers.append(normflows.flows.LULinearPermute(4))
    return normflows.NormalizingFlow(normflows.distributions.DiagGaussian(4), layers)


def maf() -> nn.Module:
    layers = [normflows.flows.MaskedAffineAutoregressive(4, 8) for _ in range(2)]
    return normflows.NormalizingFlow(normflows.distributions.DiagGaussian(4), layers)


def planar() -> nn.Module:
    layers = [normflows.flows.Planar((4,), act="leaky_relu") for _ in range(2)]
    return normflows.NormalizingFlow(normflows.distributions.DiagGaussian(4), layers)


def glow() -> nn.Module:
    """The multiscale architecture of the library's own example, for images (1, 8, 8)."""
    n_levels = 2
    bases, merges, flows = [], [], []
    for level in range(n_levels):
        channels = 2 ** (n_levels + 1 - level)
        steps = [normflows.flows.GlowBlock(channels, 6, scale=True) for _ in range(2)]
        flows.append([*steps, normflows.flows.Squeeze()])
        if level > 0:
            merges.append(normflows.flows.Merge())
            side = 8 // 2 ** (n_levels - level)
            shape = (2 ** (n_levels - level), side, side)
        else:
            shape = (2 ** (n_levels + 1), 8 // 2**n_levels, 8 // 2**n_levels)
        bases.append(normflows.distributions.DiagGaussian(shape))
    return normflows.MultiscaleFlow(bases, flows, merges, class_cond=False)


def log_prob(module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
    return module.log_prob(X)


def without_classes(module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
    return module.log_prob(X, None)


def _flow(
    build: Callable[[], nn.Module],
    shape: tuple[int, ...],
    log_likelihood: LogLikelihoodFunction = log_prob,
    **options: str,
) -> Case:
    def make(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        X = seeded(shape, dtype)
        module = build().to(dtype)
        # Lets the layers that initialise themselves do so.
        log_likelihood(module, X, torch.Generator())
        return randomised(module, dtype, scale=0.2), X

    return Case(make, log_likelihood, **options)


CASES: dict[str, Case] = {
    "real_nvp": _flow(real_nvp, (5, 4)),
    "masked_affine": _flow(masked_affine, (5, 4)),
    "coupling_spline": _flow(lambda: spline("CoupledRationalQuadraticSpline"), (5, 4)),
    "autoregressive_spline": _flow(
        lambda: spline("AutoregressiveRationalQuadraticSpline"), (5, 4)
    ),
    "maf": _flow(maf, (5, 4)),
    "planar": _flow(planar, (5, 4)),
    "glow": _flow(glow, (3, 1, 8, 8), without_classes),
}  # fmt: skip


@pytest.mark.parametrize(("case", "dtype"), with_dtypes(CASES))
def test_auto_equals_the_loop_and_is_served_by_the_stated_strategy(
    case: Case, dtype: torch.dtype
) -> None:
    assert_served_as_stated(case, dtype)


def test_a_layer_that_initialises_itself_is_left_as_it_was() -> None:
    module = normflows.flows.ActNorm(4)
    X = seeded((5, 4), torch.float32)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    log_likelihood = squared_output(lambda module, X: module(X)[0])
    auto_norms(module, X, log_likelihood)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())

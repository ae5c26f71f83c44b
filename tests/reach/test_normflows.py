"""Flows of normflows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.reach.harness import DTYPES, Case, assert_served_as_stated, randomised, seeded

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


def planar(kind: str) -> nn.Module:
    options = {"Planar": {"act": "leaky_relu"}, "Radial": {}}[kind]
    shape = {"Planar": (4,), "Radial": 4}[kind]
    layers = [getattr(normflows.flows, kind)(shape, **options) for _ in range(2)]
    return normflows.NormalizingFlow(normflows.distributions.DiagGaussian(4), layers)


def residual() -> nn.Module:
    layers = [
        normflows.flows.Residual(
            normflows.nets.LipschitzMLP([4, 8, 4], lipschitz_const=0.9), reduce_memory=False
        )
    ]
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


def _flow(build: Callable[[], nn.Module], shape: tuple[int, ...], **options: object) -> Case:
    def make(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        X = seeded(shape, dtype)
        module = build().to(dtype)
        module.log_prob(X)  # lets the layers that initialise themselves do so
        return randomised(module, dtype, scale=0.2), X

    return Case(make, **options)


CASES: dict[str, Case] = {
    "real_nvp": _flow(real_nvp, (5, 4)),
    "masked_affine": _flow(masked_affine, (5, 4)),
    "coupling_spline": _flow(lambda: spline("CoupledRationalQuadraticSpline"), (5, 4)),
    "autoregressive_spline": _flow(
        lambda: spline("AutoregressiveRationalQuadraticSpline"), (5, 4)
    ),
    "maf": _flow(maf, (5, 4)),
    "planar": _flow(lambda: planar("Planar"), (5, 4)),
    "radial": _flow(lambda: planar("Radial"), (5, 4)),
    "residual": _flow(residual, (5, 4), draws=True),
    "glow": _flow(glow, (3, 1, 8, 8)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_auto_equals_the_loop_and_is_served_by_the_stated_strategy(
    name: str, dtype: torch.dtype
) -> None:
    assert_served_as_stated(CASES[name], dtype)

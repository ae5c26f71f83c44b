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
    bases, merges, flows = [], [], []
    for level in range(2):
        channels = 4 * 2 ** (1 - level) if level == 1 else 4
        blocks = [normflows.flows.GlowBlock(channels * 2 ** level, 6) for _ in range(2)]
        flows.append([*blocks, normflows.flows.Squeeze()])
    return _multiscale(bases, merges, flows)


def _placeholder() -> None: ...

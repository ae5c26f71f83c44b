"""Flows of nflows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.reach.harness import Case, assert_served_as_stated, randomised, seeded, with_dtypes

pytest.importorskip("nflows")

from nflows.distributions.normal import ConditionalDiagonalNormal, StandardNormal
from nflows.flows import Flow, MaskedAutoregressiveFlow, SimpleRealNVP
from nflows.nn.nets import ResidualNet
from nflows.transforms import (
    ActNorm,
    CompositeTransform,
    LULinear,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    NaiveLinear,
    OneByOneConvolution,
    PiecewiseRationalQuadraticCouplingTransform,
    QRLinear,
    SVDLinear,
)

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]


def conditional_log_prob(module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
    return module.log_prob(X[:, :4], context=X[:, 4:])


def spline_autoregressive() -> nn.Module:
    layers = [
        MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            4, 8, num_bins=4, tails="linear", tail_bound=3.0
        )
        for _ in range(2)
    ]
    return Flow(CompositeTransform(layers), StandardNormal([4]))


def spline_coupling() -> nn.Module:
    layers = [
        PiecewiseRationalQuadraticCouplingTransform(
            mask, lambda n_in, n_out: ResidualNet(n_in, n_out, 8, num_blocks=1), num_bins=4,
            tails="linear", tail_bound=3.0,
        )
        for mask in ([1, 0, 1, 0], [0, 1, 0, 1])
    ]  # fmt: skip
    return Flow(CompositeTransform(layers), StandardNormal([4]))


def linear(kind: Callable[..., nn.Module], **options: int) -> nn.Module:
    return Flow(CompositeTransform([kind(4, **options), ActNorm(4)]), StandardNormal([4]))


def one_by_one_convolution() -> nn.Module:
    return Flow(CompositeTransform([ActNorm(3), OneByOneConvolution(3)]), StandardNormal([3, 4, 4]))


def conditional() -> nn.Module:
    transform = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        4, 8, context_features=3, num_bins=4, tails="linear", tail_bound=3.0
    )
    return Flow(transform, ConditionalDiagonalNormal([4], nn.Linear(3, 8)))


def _flow(
    build: Callable[[], nn.Module], shape: tuple[int, ...] = (5, 4), **options: object
) -> Case:
    def make(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        module = build().to(dtype)
        for child in module.modules():
            if isinstance(child, ActNorm):  # would initialise itself in training mode
                child.initialized.fill_(True)
        return randomised(module, dtype, scale=0.2), seeded(shape, dtype)

    return Case(make, **options)


CASES: dict[str, Case] = {
    "maf": _flow(lambda: MaskedAutoregressiveFlow(4, 8, 2, 1)),
    "maf_batch_norm": _flow(
        lambda: MaskedAutoregressiveFlow(4, 8, 2, 1, batch_norm_between_layers=True)
    ),
    "maf_random_permutations": _flow(
        lambda: MaskedAutoregressiveFlow(4, 8, 2, 1, use_random_permutations=True)
    ),
    "real_nvp": _flow(lambda: SimpleRealNVP(4, 8, 2, 1)),
    "spline_autoregressive": _flow(spline_autoregressive),
    "spline_coupling": _flow(spline_coupling),
    "lu_linear": _flow(lambda: linear(LULinear)),
    "naive_linear": _flow(lambda: linear(NaiveLinear, orthogonal_initialization=False)),
    "qr_linear": _flow(lambda: linear(QRLinear, num_householder=2)),
    "svd_linear": _flow(lambda: linear(SVDLinear, num_householder=2)),
    "one_by_one_convolution": _flow(one_by_one_convolution, (5, 3, 4, 4)),
    "conditional": _flow(conditional, (5, 7), log_likelihood=conditional_log_prob),
}


@pytest.mark.parametrize(("case", "dtype"), with_dtypes(CASES))
def test_auto_equals_the_loop_and_is_served_by_the_stated_strategy(
    case: Case, dtype: torch.dtype
) -> None:
    assert_served_as_stated(case, dtype)

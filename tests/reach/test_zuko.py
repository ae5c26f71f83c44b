"""Flows of zuko: distributions made by a module that is called without data."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.reach.harness import Case, assert_served_as_stated, randomised, seeded, with_dtypes

zuko = pytest.importorskip("zuko")

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]


def flow_log_prob(module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
    return module().log_prob(X)


def conditional_log_prob(module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
    return module(X[:, 4:]).log_prob(X[:, :4])


def _flow(
    build: Callable[[], nn.Module],
    log_likelihood: Callable = flow_log_prob,
    *,
    features: int = 4,
    **options: str,
) -> Case:
    def make(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        return randomised(build(), dtype, scale=0.3), seeded((5, features), dtype)

    return Case(make, log_likelihood, **options)


SMALL = {"transforms": 2, "hidden_features": (8, 8)}

CASES: dict[str, Case] = {
    "nsf": _flow(lambda: zuko.flows.NSF(4, bins=4, **SMALL)),
    "maf": _flow(lambda: zuko.flows.MAF(4, **SMALL)),
    "maf_random_order": _flow(lambda: zuko.flows.MAF(4, randperm=True, **SMALL)),
    "realnvp": _flow(lambda: zuko.flows.RealNVP(4, **SMALL)),
    "nice": _flow(lambda: zuko.flows.NICE(4, **SMALL)),
    "ncsf": _flow(lambda: zuko.flows.NCSF(4, bins=4, **SMALL)),
    "sospf": _flow(lambda: zuko.flows.SOSPF(4, degree=2, polynomials=2, **SMALL)),
    "bpf": _flow(
        lambda: zuko.flows.BPF(4, degree=3, **SMALL),
        strategy="loop", warns="grad is called inside",
    ),
    "gf": _flow(
        lambda: zuko.flows.GF(4, transforms=2, components=3),
        strategy="loop", warns="grad is called inside",
    ),
    "gmm": _flow(lambda: zuko.mixtures.GMM(4, components=3)),
    "nsf_with_context": _flow(
        lambda: zuko.flows.NSF(4, 3, bins=4, **SMALL), conditional_log_prob, features=7
    ),
    "maf_with_context": _flow(
        lambda: zuko.flows.MAF(4, 3, **SMALL), conditional_log_prob, features=7
    ),
}  # fmt: skip


@pytest.mark.parametrize(("case", "dtype"), with_dtypes(CASES))
def test_auto_equals_the_loop_and_is_served_by_the_stated_strategy(
    case: Case, dtype: torch.dtype
) -> None:
    assert_served_as_stated(case, dtype)

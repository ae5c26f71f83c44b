"""What every file of third-party models shares: the case, and the comparison with a plain loop."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from skgradood.gradients import EngineWarning, GradientEngine, SquaredNorms, layer_layout
from skgradood.gradients.likelihood import LogLikelihoodFunction

TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-8}


@dataclass(frozen=True)
class Case:
    """A module of another library, a batch for it, and who serves it.

    ``make(dtype)`` returns (module, X); ``log_likelihood`` is a method of the module or a
    callable; ``strategy`` is what serves under ``engine="auto"``; ``warns`` is a piece of the
    fall-back's reason; ``draws`` tells that noise comes from the row's generator; ``dtypes`` are
    those that the module can be had in, and ``inside`` the one in which it computes whatever it is
    in.
    """

    make: Callable[[torch.dtype], tuple[nn.Module, Tensor]]
    log_likelihood: str | LogLikelihoodFunction = "log_prob"
    strategy: str = "capture"
    warns: str | None = None
    draws: bool = False
    dtypes: tuple[torch.dtype, ...] = tuple(TOLERANCES)
    inside: torch.dtype | None = None


def with_dtypes(cases: dict[str, Case]) -> list:
    """Every case in every dtype, as pytest's parameters (case, dtype)."""
    return [
        pytest.param(case, dtype, id=f"{name}-{str(dtype).removeprefix('torch.')}")
        for name, case in cases.items()
        for dtype in case.dtypes
    ]


def seeded(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def tokens(shape: tuple[int, int], size: int) -> Tensor:
    return torch.randint(0, size, shape, generator=torch.Generator().manual_seed(3))


def randomised(module: nn.Module, dtype: torch.dtype, scale: float = 0.5) -> nn.Module:
    """Move every parameter and statistic off its initial value: zeros and ones hide errors."""
    module = module.to(dtype).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 4
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((scale * noise / math.sqrt(fan_in)).to(parameter.dtype))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return module


def squared_output(read: Callable[[nn.Module, Tensor], Tensor]) -> LogLikelihoodFunction:
    """Return a stand-in for a density that reads all that ``read(module, X)`` gives, (n, ...)."""

    def log_likelihood(module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
        out = read(module, X).flatten(1)
        weights = torch.linspace(0.5, 1.5, out.shape[1], dtype=out.dtype)
        return -0.1 * (weights * out.square()).mean(1) + out.sin().mean(1)

    return log_likelihood


def token_log_likelihood(module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
    """Nats of rows of tokens under a causal language model that returns ``logits``."""
    logits = module(input_ids=X, use_cache=False).logits[:, :-1]
    return logits.log_softmax(-1).gather(-1, X[:, 1:, None]).squeeze(-1).sum(1)


def assert_served_as_stated(case: Case, dtype: torch.dtype) -> None:
    """``engine="auto"`` equals a plain loop, by the stated strategy, for the stated reason."""
    module, X = case.make(dtype)
    norms, strategy, reasons = auto_norms(module, X, case.log_likelihood)
    assert strategy == case.strategy, reasons
    assert len(reasons) == (case.warns is not None), reasons
    assert case.warns is None or case.warns in reasons[0], reasons
    expected = engine_norms(module, X, case.log_likelihood, "loop")
    precision = case.inside or dtype
    assert_norms_close(norms, expected, precision)
    if not case.draws:
        assert_norms_close(expected, autograd_norms(module, X, case.log_likelihood), precision)


def auto_norms(
    module: nn.Module, X: Tensor, log_likelihood: str | LogLikelihoodFunction
) -> tuple[np.ndarray, str, list[str]]:
    """Squared norms by ``engine="auto"``, the strategy that served, and the engine's warnings."""
    engine = GradientEngine(module, log_likelihood=log_likelihood)
    reducer = SquaredNorms(layer_layout(module))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine.run(X, reducer)
    reasons = [str(w.message) for w in caught if issubclass(w.category, EngineWarning)]
    return reducer.result(), engine.strategy, reasons


def engine_norms(
    module: nn.Module, X: Tensor, log_likelihood: str | LogLikelihoodFunction, engine: str
) -> np.ndarray:
    """Squared norms by one strategy, unverified."""
    reducer = SquaredNorms(layer_layout(module))
    GradientEngine(module, log_likelihood=log_likelihood, engine=engine, verify=False).run(
        X, reducer
    )
    return reducer.result()


def autograd_norms(
    module: nn.Module, X: Tensor, log_likelihood: str | LogLikelihoodFunction
) -> np.ndarray:
    """Squared norms by the plainest code there is, and none of the package's."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    rows = []
    for x in X.split(1):
        value = (
            getattr(module, log_likelihood)(x)
            if isinstance(log_likelihood, str)
            else log_likelihood(module, x, torch.Generator())
        )
        gradients = torch.autograd.grad(value.sum(), parameters, allow_unused=True)
        rows.append([_squared_norm(g) for g in gradients])
    return np.array(rows)


def _squared_norm(gradient: Tensor | None) -> float:
    if gradient is None:
        return 0.0
    real = torch.view_as_real(gradient) if gradient.is_complex() else gradient
    return float(real.double().square().sum())


def assert_norms_close(actual: np.ndarray, expected: np.ndarray, dtype: torch.dtype) -> None:
    assert np.isfinite(expected).all(), "the case itself is not finite"
    # A gradient that vanishes in theory is rounding noise: compare it on the row's scale.
    noise = (64 * torch.finfo(dtype).eps) ** 2 * expected.sum(1, keepdims=True)
    error = np.abs(actual - expected)
    allowed = TOLERANCES[dtype] * expected + noise
    assert (error <= allowed).all(), f"relative error {np.max(error / (expected + noise)):.3g}"

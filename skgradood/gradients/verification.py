"""Checks a strategy's first batch against the loop, on two of its samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skgradood.gradients.layers import layer_layout, trainable_parameters
from skgradood.gradients.likelihood import LogLikelihood
from skgradood.gradients.loop import LoopStrategy, emit_row
from skgradood.gradients.precision import AUTOCAST
from skgradood.gradients.reducers import SquaredNorms


class _Tolerance(NamedTuple):
    """How far results may differ: relatively, and by a share of a row's squared norm."""

    relative: float
    share: float


def _tolerance(dtype: torch.dtype) -> _Tolerance:
    eps = torch.finfo(dtype).eps
    if dtype in AUTOCAST.values():
        # Kernels for one row and for many round differently after every layer.
        return _Tolerance(16 * eps, (4 * eps) ** 2)
    return _Tolerance(1e-6 if dtype == torch.float64 else 1e-3, (64 * eps) ** 2)


@dataclass(frozen=True)
class Disagreement:
    """Where a strategy and single samples differ most."""

    what: str
    row: int
    in_batch: float
    alone: float

    def __str__(self) -> str:
        return (
            f"{self.what} of row {self.row} is {self.in_batch:.6g} in the batch but "
            f"{self.alone:.6g} alone"
        )


def find_disagreement(
    module: nn.Module,
    log_likelihood: LogLikelihood,
    X: Tensor,
    squared_norms: Tensor,
    values: Tensor,
) -> Disagreement | None:
    """Compare a batch's results with those of its first and last row alone.

    Log-likelihoods and squared norms must agree to 1e-3 relative (1e-6 in float64; 0.125 in
    bfloat16 and 0.016 in float16, autocast or not), the norms up to rounding errors of the largest
    layer: a gradient that vanishes in theory is noise in both.

    Kernels differ between batch sizes, and a rectifier whose input is zero up to rounding may be
    on in one and off in the other. So norms that differ, where log-likelihoods agree, are looked
    at again: as gradients of these rows' log-likelihoods in the same batch, by plain autograd.

    Parameters
    ----------
    module : nn.Module
        In evaluation state.
    log_likelihood : LogLikelihood
        What was differentiated.
    X : Tensor of shape (n, ...)
        The batch.
    squared_norms : Tensor of shape (n, number of parameter tensors)
        What the strategy found.
    values : Tensor of shape (n,)
        The log-likelihoods that it found.
    """
    rows = sorted({0, len(X) - 1})
    names = list(trainable_parameters(module))
    alone, values_alone = _norms_alone(module, log_likelihood, X[rows])
    autocast = log_likelihood.autocast
    tolerance = _tolerance(values_alone.dtype if autocast is None else AUTOCAST[autocast])
    allowed = tolerance.relative * values_alone.abs().clamp_min(1)
    value_excess = (values[rows] - values_alone).abs() - allowed
    if (value_excess > 0).any():
        row = int(value_excess.argmax())
        return Disagreement(
            "the log-likelihood", rows[row], float(values[rows[row]]), float(values_alone[row])
        )
    came = squared_norms[rows]
    excess = _excess(came, alone, tolerance)
    if not (excess > 0).any():
        return None
    in_batch = _norms_in_batch(module, log_likelihood, X, rows)
    if not (_excess(came, in_batch, tolerance) > 0).any():
        return None
    row, column = divmod(int(excess.argmax()), excess.shape[1])
    return Disagreement(
        f"the squared norm of layer {names[column]!r}",
        rows[row],
        float(came[row, column]),
        float(alone[row, column]),
    )


def _excess(came: Tensor, expected: Tensor, tolerance: _Tolerance) -> Tensor:
    """How far norms differ beyond what is allowed, relative to what is expected."""
    allowed = tolerance.relative * expected + tolerance.share * expected.sum(1, keepdim=True)
    tiny = torch.finfo(expected.dtype).tiny
    excess = ((came - expected).abs() - allowed) / expected.clamp_min(tiny)
    # NaN in both is agreement; NaN in one is not.
    excess = torch.where(came.isnan() & expected.isnan(), -torch.inf, excess)
    return torch.where(came.isnan() ^ expected.isnan(), torch.inf, excess)


def _norms_alone(
    module: nn.Module, log_likelihood: LogLikelihood, X: Tensor
) -> tuple[Tensor, Tensor]:
    norms = SquaredNorms(layer_layout(module))
    norms.begin(len(X), X.device)
    values = LoopStrategy(module, log_likelihood).run(X, norms)
    return norms.current, values


def _norms_in_batch(
    module: nn.Module, log_likelihood: LogLikelihood, X: Tensor, rows: list[int]
) -> Tensor:
    """Squared norms of single rows' gradients, with the whole batch in the forward pass."""
    parameters = trainable_parameters(module)
    norms = SquaredNorms(layer_layout(module))
    norms.begin(len(rows), X.device)
    with torch.enable_grad():
        values = log_likelihood(module, X, torch.Generator(device=X.device))
        for k, row in enumerate(rows):
            gradients = torch.autograd.grad(
                values[row], list(parameters.values()), allow_unused=True, retain_graph=True
            )
            emit_row(parameters, gradients, k, norms)
    return norms.current

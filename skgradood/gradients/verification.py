"""Checks a strategy's first batch against the loop, on two of its samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skgradood.gradients.layers import layer_layout
from skgradood.gradients.likelihood import LogLikelihood
from skgradood.gradients.loop import LoopStrategy
from skgradood.gradients.reducers import SquaredNorms

_RELATIVE = {torch.float64: 1e-6}
_RELATIVE_DEFAULT = 1e-3


@dataclass(frozen=True)
class Disagreement:
    """Where a strategy and the loop differ most."""

    layer: str
    row: int
    norm: float
    loop_norm: float

    def __str__(self) -> str:
        return (
            f"layer {self.layer!r} of row {self.row} has squared norm {self.norm:.6g} in the batch "
            f"but {self.loop_norm:.6g} alone"
        )


def find_disagreement(
    module: nn.Module,
    log_likelihood: LogLikelihood,
    X: Tensor,
    squared_norms: Tensor,
    values: Tensor,
) -> Disagreement | None:
    """Compare a batch's squared norms (n, parameters) with the loop on its first and last row.

    A layer's norms must agree to 1e-3 relative (1e-6 in float64), up to the rounding errors of
    the largest layer: a gradient that vanishes exactly in theory is noise in both.
    """
    rows = sorted({0, len(X) - 1})
    oracle = SquaredNorms(layer_layout(module))
    oracle.begin(len(rows), X.device)
    loop_values = LoopStrategy(module, log_likelihood).run(X[rows], oracle)
    expected, came = oracle.current, squared_norms[rows]
    relative = _RELATIVE.get(loop_values.dtype, _RELATIVE_DEFAULT)
    rounding = (64 * torch.finfo(loop_values.dtype).eps) ** 2 * expected.sum(1, keepdim=True)
    excess = (came - expected).abs() - relative * expected - rounding
    value_excess = (values[rows] - loop_values).abs() - relative * loop_values.abs().clamp_min(1)
    # NaN in both is agreement; NaN in one is not.
    excess = torch.where(came.isnan() & expected.isnan(), -torch.inf, excess)
    excess = torch.where(came.isnan() ^ expected.isnan(), torch.inf, excess)
    if not (excess > 0).any():
        if not (value_excess > 0).any():
            return None
        row = int(value_excess.argmax())
        return Disagreement(
            "log-likelihood", rows[row], float(values[rows[row]]), float(loop_values[row])
        )
    where = int((excess / expected.clamp_min(torch.finfo(torch.float64).tiny)).argmax())
    row, column = divmod(where, expected.shape[1])
    return Disagreement(
        oracle.layout.names[column],
        rows[row],
        float(came[row, column]),
        float(expected[row, column]),
    )

"""Checks a strategy's first batch against the loop, on two of its samples."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from skgradood.gradients.layer_gradient import LayerGradient
from skgradood.gradients.layers import layer_layout, trainable_parameters
from skgradood.gradients.likelihood import LogLikelihood
from skgradood.gradients.loop import LoopStrategy, emit_row
from skgradood.gradients.precision import AUTOCAST, is_half
from skgradood.gradients.reducers import SquaredNorms
from skgradood.gradients.strategy import Strategy

# A random component of a gradient's error is hardly ever so many times its usual size.
_SIGMAS = 4


class Probe:
    """Squared norms of two samples' gradients, and their components along random directions.

    Two gradients of one norm, such as a complex one and its conjugate, differ in the latter.

    Parameters
    ----------
    module : nn.Module
        Whose parameters are measured.
    rows : list of int
        Places of the samples in the batch.
    """

    def __init__(self, module: nn.Module, rows: list[int]) -> None:
        self.rows = rows
        self.names = list(trainable_parameters(module))
        self._columns = {name: column for column, name in enumerate(self.names)}
        self._norms = SquaredNorms(layer_layout(module))

    def begin(self, n: int, device: torch.device) -> None:
        self._norms.begin(n, device)
        self.components = torch.zeros_like(self.norms)

    def update(self, gradient: LayerGradient) -> None:
        self._norms.update(gradient)
        column = self._columns[gradient.name]
        for k, row in enumerate(self.rows):
            place = row - gradient.start
            if 0 <= place < gradient.n:
                one = gradient.dense(slice(place, place + 1))
                self.components[k, column] = _component(one, gradient.name)

    def commit(self) -> None:
        """Nothing is kept of one batch beside another."""

    @property
    def norms(self) -> Tensor:
        """(number of rows, number of parameter tensors)."""
        return self._norms.current[self.rows]


def _component(gradient: Tensor, name: str) -> Tensor:
    """Inner product with a direction that belongs to the name of a tensor."""
    numbers = (torch.view_as_real(gradient) if gradient.is_complex() else gradient).flatten()
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    direction = torch.randn(len(numbers), generator=generator, dtype=numbers.dtype)
    return numbers @ direction.to(numbers.device)


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
    otherwise: float
    elsewhere: str = "alone"

    def __str__(self) -> str:
        return (
            f"{self.what} of row {self.row} is {self.in_batch:.6g} in the batch but "
            f"{self.otherwise:.6g} {self.elsewhere}"
        )


def find_disagreement(
    module: nn.Module,
    log_likelihood: LogLikelihood,
    X: Tensor,
    probe: Probe,
    values: Tensor,
) -> Disagreement | None:
    """Compare a batch's results with those of some of its rows alone.

    Log-likelihoods, squared norms and components of gradients must agree to 1e-3 relative (1e-6 in
    float64; 0.125 in bfloat16 and 0.016 in float16, where anything is computed in these), the
    gradients up to rounding errors of the largest layer: one that vanishes in theory is noise in
    both.

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
    probe : Probe
        What the strategy found of the rows' gradients.
    values : Tensor of shape (n,)
        The log-likelihoods that it found.
    """
    rows = probe.rows
    with _PrecisionMode() as precisions:
        alone, values_alone = _alone(module, log_likelihood, X[rows])
    tolerance = _tolerance(precisions.lowest(values_alone, log_likelihood))
    differing = _differing_value(rows, values[rows], values_alone, tolerance)
    if differing is not None:
        return differing
    if not (_excess(probe, alone, tolerance) > 0).any():
        return None
    in_batch = _in_batch(module, log_likelihood, X, rows)
    if not (_excess(probe, in_batch, tolerance) > 0).any():
        return None
    return _worst(probe, alone, tolerance)


def find_differing_value(
    module: nn.Module, log_likelihood: LogLikelihood, X: Tensor, rows: list[int], values: Tensor
) -> Disagreement | None:
    """Compare log-likelihoods of a batch alone, which takes two rows' forward passes."""
    with _PrecisionMode() as precisions:
        alone = LoopStrategy(module, log_likelihood).values(X[rows])
    tolerance = _tolerance(precisions.lowest(alone, log_likelihood))
    return _differing_value(rows, values[rows], alone, tolerance)


def find_dependent_value(strategy: Strategy, X: Tensor, values: Tensor) -> Disagreement | None:
    """Compare all log-likelihoods of a batch with those in other places, among fewer neighbours.

    In each half of the batch the last row comes first: rows that take others' places, or are
    served because they are first, or at even places, come out otherwise.
    """
    with _PrecisionMode() as precisions:
        apart = torch.empty_like(values)
        for half in torch.arange(len(X), device=X.device).chunk(2):
            order = half.roll(1)
            alone = LoopStrategy(strategy.module, strategy.log_likelihood)
            apart[order] = (alone if len(order) == 1 else strategy).values(X[order])
    tolerance = _tolerance(precisions.lowest(apart, strategy.log_likelihood))
    return _differing_value(list(range(len(X))), values, apart, tolerance, "among other rows")


def _differing_value(
    rows: list[int],
    values: Tensor,
    alone: Tensor,
    tolerance: _Tolerance,
    elsewhere: str = "alone",
) -> Disagreement | None:
    excess = (values - alone).abs() - tolerance.relative * alone.abs().clamp_min(1)
    excess = torch.where(values.isnan() ^ alone.isnan(), torch.inf, excess)
    if not (excess > 0).any():
        return None
    k = int(excess.nan_to_num(-torch.inf, posinf=torch.inf).argmax())
    found = float(values[k]), float(alone[k])
    return Disagreement("the log-likelihood", rows[k], *found, elsewhere)


def _worst(came: Probe, expected: Probe, tolerance: _Tolerance) -> Disagreement:
    excess = _excess(came, expected, tolerance)
    kind, row, column = (int(k) for k in torch.unravel_index(excess.argmax(), excess.shape))
    what = ("the squared norm", "a component of the gradient")[kind]
    found, alone = ((probe.norms, probe.components)[kind] for probe in (came, expected))
    return Disagreement(
        f"{what} of layer {came.names[column]!r}",
        came.rows[row],
        float(found[row, column]),
        float(alone[row, column]),
    )


class _PrecisionMode(TorchFunctionMode):
    """Notes in which precisions torch computes: values may be in another one than their making."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, Tensor) and (part.requires_grad or is_half(part)):
                self.dtypes.add(part.dtype)
        return result

    def lowest(self, values: Tensor, log_likelihood: LogLikelihood) -> torch.dtype:
        """That of the values, or a lower one that was asked for or met."""
        if log_likelihood.autocast is not None:
            return AUTOCAST[log_likelihood.autocast]
        lower = [*AUTOCAST.values(), torch.float32]
        return next((dtype for dtype in lower if dtype in self.dtypes), values.dtype)


def _excess(came: Probe, expected: Probe, tolerance: _Tolerance) -> Tensor:
    """How far norms, and components, differ beyond what is allowed, relative to the norm.

    (2, number of rows, number of parameter tensors).
    """
    tiny = torch.finfo(expected.norms.dtype).tiny
    noise = tolerance.share * expected.norms.sum(1, keepdim=True)
    allowed = tolerance.relative * expected.norms + noise
    norms = ((came.norms - expected.norms).abs() - allowed) / expected.norms.clamp_min(tiny)
    # NaN in both is agreement; NaN in one is not.
    is_nan = came.norms.isnan(), expected.norms.isnan()
    norms = torch.where(is_nan[0] & is_nan[1], -torch.inf, norms)
    norms = torch.where(is_nan[0] ^ is_nan[1], torch.inf, norms)
    lengths = expected.norms.sqrt()
    allowed = _SIGMAS * (tolerance.relative * lengths + noise.sqrt())
    components = (came.components - expected.components).abs() - allowed
    # Where a norm is not finite, it alone decides.
    components = torch.where(
        components.isfinite(), components / lengths.clamp_min(tiny), -torch.inf
    )
    return torch.stack([norms, components])


def _alone(module: nn.Module, log_likelihood: LogLikelihood, X: Tensor) -> tuple[Probe, Tensor]:
    probe = Probe(module, list(range(len(X))))
    probe.begin(len(X), X.device)
    values = LoopStrategy(module, log_likelihood).run(X, probe)
    return probe, values


def _in_batch(
    module: nn.Module, log_likelihood: LogLikelihood, X: Tensor, rows: list[int]
) -> Probe:
    """Single rows' gradients, with the whole batch in the forward pass."""
    parameters = trainable_parameters(module)
    probe = Probe(module, list(range(len(rows))))
    probe.begin(len(rows), X.device)
    with torch.enable_grad():
        values = log_likelihood(module, X, torch.Generator(device=X.device))
        for k, row in enumerate(rows):
            gradients = torch.autograd.grad(
                values[row], list(parameters.values()), allow_unused=True, retain_graph=True
            )
            emit_row(parameters, gradients, k, probe)
    return probe

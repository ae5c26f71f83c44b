"""What the speed benchmark times: ways to per-sample gradients, the engine's and others'."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.peers import PEERS
from skgradood.fisher import FisherEstimate, FisherOptions, FisherSums, QuadraticForms
from skgradood.gradients import GradientEngine, SquaredNorms, layer_layout
from skgradood.gradients.batching import available_memory

ORDINARY = "forward + backward"
OURS = "capture"

# What is slow is timed on a few samples, and its time is scaled to the batch.
FEW = 16

Start = Callable[[nn.Module, Tensor, int], Callable[[], object]]


@dataclass(frozen=True)
class Method:
    """A way to serve the rows of X, one batch after the other.

    ``start(module, X, batch_size)`` returns what is timed. ``rows(module, n)`` says how many of n
    samples come in a batch.
    """

    start: Start
    rows: Callable[[nn.Module, int], int] = lambda module, n: n
    rounds: int | None = None


def ordinary(autocast: str | None = None) -> Start:
    """The aggregated gradient of every batch, as training computes it."""

    def start(module: nn.Module, X: Tensor, batch_size: int) -> Callable[[], object]:
        parameters = list(module.parameters())

        def run() -> None:
            for batch in X.split(batch_size):
                with lower_precision(autocast, X):
                    values = module.log_prob(batch)
                torch.autograd.grad(values.float().sum(), parameters, allow_unused=True)

        return run

    return start


def lower_precision(autocast: str | None, X: Tensor) -> AbstractContextManager:
    """A block under torch's autocast on the device of X; None changes nothing."""
    if autocast is None:
        return nullcontext()
    # With the cache of casts that training has, and the engine cannot have.
    return torch.autocast(X.device.type, getattr(torch, autocast))


def norms(engine: str, autocast: str | None = None) -> Start:
    """Squared norms of all layers by one strategy of the engine."""

    def start(module: nn.Module, X: Tensor, batch_size: int) -> Callable[[], object]:
        runner = GradientEngine(module, engine=engine, batch_size=batch_size, autocast=autocast)
        return lambda: runner.run(X, SquaredNorms(layer_layout(module)))

    return start


def _fisher(
    module: nn.Module, X: Tensor, batch_size: int, autocast: str | None = None
) -> tuple[GradientEngine, FisherEstimate]:
    engine = GradientEngine(module, engine=OURS, batch_size=batch_size, autocast=autocast)
    kinds = ["identity", "diagonal", "ekfac"]
    estimate = FisherEstimate.of_module(module, layer_layout(module), kinds, FisherOptions())
    return engine, estimate.fit(lambda reducer: engine.run(X[:batch_size], reducer))


def statistics(autocast: str | None = None) -> Start:
    """Squared norms, diagonal and EKFAC statistics of all layers in one pass."""

    def start(module: nn.Module, X: Tensor, batch_size: int) -> Callable[[], object]:
        engine, estimate = _fisher(module, X, batch_size, autocast)
        layout = layer_layout(module)
        return lambda: engine.run(X, QuadraticForms(layout, estimate.by_parameter))

    return start


def second_moments(module: nn.Module, X: Tensor, batch_size: int) -> Callable[[], object]:
    """The second pass of a fit: squared gradients, and squared coordinates in EKFAC's basis."""
    engine, estimate = _fisher(module, X, batch_size)
    return lambda: engine.run(X, FisherSums(estimate.by_parameter))


def _few(module: nn.Module, n: int) -> int:
    return min(n, FEW)


def _if_gradients_fit(module: nn.Module, n: int) -> int:
    """All samples, unless the gradients of all layers of all samples do not fit twice."""
    parameter = next(module.parameters())
    bytes_a_row = 2 * parameter.element_size() * sum(p.numel() for p in module.parameters())
    available = available_memory(parameter.device) or bytes_a_row * n
    return max(1, min(n, available // (2 * bytes_a_row)))


# A new column of the table is a new entry here.
METHODS: dict[str, Method] = {
    ORDINARY: Method(ordinary()),
    OURS: Method(norms("capture")),
    "norms + diagonal + EKFAC": Method(statistics()),
    "fit of both": Method(second_moments),
    f"{ORDINARY}, bfloat16": Method(ordinary("bfloat16")),
    f"{OURS}, bfloat16": Method(norms("capture", "bfloat16")),
    "norms + diagonal + EKFAC, bfloat16": Method(statistics("bfloat16")),
    "func": Method(norms("func"), rows=_few, rounds=3),
    "loop": Method(norms("loop"), rows=_few, rounds=3),
    **{name: Method(start, rows=_if_gradients_fit, rounds=3) for name, start in PEERS.items()},
}

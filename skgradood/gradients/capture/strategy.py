"""The capture strategy: one watched forward pass, one backward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.graph import disable_saved_tensors_hooks

from skgradood.gradients.capture.axes import BatchAxis
from skgradood.gradients.capture.mode import CaptureMode
from skgradood.gradients.capture.noise import RowNoise
from skgradood.gradients.capture.propagation import AxisPropagation
from skgradood.gradients.capture.recorder import Recorder
from skgradood.gradients.capture.rules import RULES
from skgradood.gradients.errors import StrategyRefused
from skgradood.gradients.likelihood import LogLikelihood, is_differentiable
from skgradood.gradients.reducers import NoGradients, Reducer
from skgradood.gradients.state import global_rng_states, without_graphs
from skgradood.gradients.strategy import Strategy

# What is computed again in the backward pass would not be watched there.
_RECOMPUTED = (
    "the model changes what autograd keeps, as torch.utils.checkpoint and "
    "torch.autograd.graph.save_on_cpu do"
)


class CaptureStrategy(Strategy):
    """Per-sample gradients of a batch in one forward and one backward pass."""

    name = "capture"

    def __init__(self, module: nn.Module, log_likelihood: LogLikelihood) -> None:
        super().__init__(module, log_likelihood)
        self._propagation = AxisPropagation()

    @property
    def is_unsure(self) -> bool:
        return self._propagation.reads_several

    @property
    def leaves_out(self) -> bool:
        return self._propagation.leaves_out

    def run(self, X: Tensor, reducer: Reducer) -> Tensor:
        """Hand every layer's gradients to the reducer; return log-likelihoods (n,) in nats.

        Raises
        ------
        StrategyRefused
            If a parameter is used in a way that has no rule.
        """
        recorder = Recorder(self.parameters_without_hooks(), len(X), reducer)
        with torch.enable_grad():
            values, mode = self._watched(X, recorder)
            if is_differentiable(values, self.log_likelihood, self.module):
                differentiate(values, mode.anchor, recorder.parameters)
        with torch.no_grad():
            recorder.finish()
        return values.detach()

    def values(self, X: Tensor) -> Tensor:
        """Log-likelihoods (n,) in nats, by a watched forward pass alone."""
        recorder = Recorder(self.parameters_without_hooks(), len(X), NoGradients())
        with torch.enable_grad():
            return self._watched(X, recorder)[0].detach()

    def _watched(self, X: Tensor, recorder: Recorder) -> tuple[Tensor, CaptureMode]:
        """The forward pass: log-likelihoods, and the mode that has seen it."""
        without_graphs(self.module)
        group_size = X.shape[1] if self.log_likelihood.grouped else 1
        noise = RowNoise(X, self.log_likelihood.row_seeds, group_size=group_size)
        before = [noise.generator.get_state(), *global_rng_states()]
        self._propagation.start()
        mode = CaptureMode(X, recorder, self._propagation, noise, RULES)
        with disable_saved_tensors_hooks(_RECOMPUTED), mode:
            values = self.log_likelihood(self.module, X, noise.generator)
            values = self._per_sample(mode, values)
        if not _same(before, [noise.generator.get_state(), *global_rng_states()]):
            raise StrategyRefused(
                "the log-likelihood draws random numbers that cannot be given to rows one by "
                "one, so a row's result would depend on its neighbours"
            )
        return values, mode

    def _per_sample(self, mode: CaptureMode, values: Tensor) -> Tensor:
        """Log-likelihoods as data, also where they come from parameters alone."""
        if not mode.is_data(values):
            zeros = torch.zeros_like(values).detach()
            mode.mark(zeros, BatchAxis(0, len(values)))
            values = values + zeros
        if mode.axis_of(values) != BatchAxis(0, len(values)):
            raise StrategyRefused("the log-likelihoods do not come in the order of the samples")
        return values


def differentiate(values: Tensor, anchor: Tensor, parameters: dict[str, nn.Parameter]) -> None:
    """Run the backward pass through all cuts.

    Raises
    ------
    StrategyRefused
        If it reaches a parameter, some use of which was then not seen: a user's autograd function
        may read a parameter's plain values in its forward, where nothing tells that a gradient
        belongs to it.
    """
    _, *reached = torch.autograd.grad(
        values.sum(), [anchor, *parameters.values()], allow_unused=True
    )
    for name, gradient in zip(parameters, reached, strict=True):
        if gradient is not None:
            raise StrategyRefused(f"a use of the parameter {name!r} cannot be watched")


def _same(before: list[Tensor], after: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))

"""The loop strategy: one sample at a time. Always right, and the oracle of the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skgradood.gradients.contributions import Contribution, DenseContribution
from skgradood.gradients.layer_gradient import LayerGradient
from skgradood.gradients.layers import trainable_parameters
from skgradood.gradients.likelihood import is_differentiable
from skgradood.gradients.reducers import Reducer
from skgradood.gradients.state import isolated_rng, without_graphs
from skgradood.gradients.strategy import Strategy


class LoopStrategy(Strategy):
    """Per-sample gradients by one forward and backward pass a sample."""

    name = "loop"

    def run(self, X: Tensor, reducer: Reducer) -> Tensor:
        """Hand every layer's gradients to the reducer; return log-likelihoods (n,) in nats."""
        parameters = trainable_parameters(self.module)
        values = []
        for i, seed in enumerate(self.log_likelihood.row_seeds(X)):
            value, gradients = self._run_row(X[i : i + 1], seed, list(parameters.values()))
            values.append(value)
            emit_row(parameters, gradients, i, reducer)
        return torch.cat(values)

    def values(self, X: Tensor) -> Tensor:
        """Log-likelihoods of rows alone, (n,) in nats, without gradients."""
        seeds = self.log_likelihood.row_seeds(X)
        return torch.cat([self._run_row(X[i : i + 1], seed, [])[0] for i, seed in enumerate(seeds)])

    def _run_row(
        self, x: Tensor, seed: int, parameters: list[nn.Parameter]
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """Log-likelihood (1,) and gradients of one row; its graph is gone when it returns."""
        without_graphs(self.module)
        generator = torch.Generator(device=x.device).manual_seed(seed)
        with isolated_rng(seed), torch.enable_grad():
            value = self.log_likelihood(self.module, x, generator)
            gradients: Sequence[Tensor | None] = [None] * len(parameters)
            if is_differentiable(value, self.log_likelihood, self.module) and parameters:
                gradients = torch.autograd.grad(value.sum(), parameters, allow_unused=True)
        return value.detach(), gradients


def emit_row(
    parameters: dict[str, nn.Parameter],
    gradients: Sequence[Tensor | None],
    row: int,
    reducer: Reducer,
) -> None:
    """Hand one sample's gradients, as autograd returns them, to a reducer."""
    # Those of embeddings with ``sparse=True`` are sparse.
    dense = [g if g is None else g.to_dense()[None] for g in gradients]
    emit_dense(parameters, dense, row, 1, reducer)


def emit_dense(
    parameters: dict[str, nn.Parameter],
    gradients: list[Tensor | None],
    start: int,
    n: int,
    reducer: Reducer,
) -> None:
    """Hand dense gradients (n, *shape) of consecutive samples to a reducer; None means zero."""
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        contributions: list[Contribution] = []
        if gradient is not None:
            contributions.append(DenseContribution(gradient))
        reducer.update(
            LayerGradient(
                name,
                parameter.shape,
                n,
                parameter.dtype,
                parameter.device,
                contributions,
                start,
            )
        )

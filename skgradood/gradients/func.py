"""The func strategy: ``torch.func.vmap(grad(functional_call))``, in chunks of rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skgradood.gradients.errors import LogLikelihoodError, StrategyRefused
from skgradood.gradients.likelihood import LogLikelihood
from skgradood.gradients.loop import emit_dense
from skgradood.gradients.reducers import Reducer
from skgradood.gradients.state import isolated_rng
from skgradood.gradients.strategy import Strategy

# The gradients of all layers of a chunk exist at once, so chunks are bounded by their numbers.
_CHUNK_NUMBERS = 1 << 26


class FuncStrategy(Strategy):
    """Per-sample gradients by vectorising over samples."""

    name = "func"

    def run(self, X: Tensor, reducer: Reducer) -> Tensor:
        """Hand every layer's gradients to the reducer; return log-likelihoods (n,) in nats.

        Raises
        ------
        StrategyRefused
            If the log-likelihood draws random numbers, or does what vmap cannot follow.
        """
        parameters = self.parameters_without_hooks()
        values = {name: parameter.detach() for name, parameter in parameters.items()}
        generator = torch.Generator(device=X.device).manual_seed(0)
        untouched = generator.get_state()
        target = _Target(self.module, self.log_likelihood, generator)

        def value_and_copy(parameters: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
            prefixed = {f"module.{name}": value for name, value in parameters.items()}
            value = torch.func.functional_call(target, prefixed, (x[None],))[0]
            return value, value.detach()

        gradient = torch.func.grad(value_and_copy, has_aux=True)
        numbers = sum(p.numel() for p in parameters.values())
        chunk = max(1, min(len(X), _CHUNK_NUMBERS // max(1, numbers)))
        log_likelihoods = []
        for start in range(0, len(X), chunk):
            rows = X[start : start + chunk]
            try:
                with isolated_rng(0):
                    gradients, log_likelihood = torch.func.vmap(gradient, in_dims=(None, 0))(
                        values, rows
                    )
            except (RuntimeError, LogLikelihoodError) as error:
                raise StrategyRefused(
                    f"torch.func.vmap cannot follow the model: {error}"
                ) from error
            if not torch.equal(generator.get_state(), untouched):
                raise StrategyRefused("the log-likelihood draws random numbers")
            log_likelihoods.append(log_likelihood)
            emit_dense(parameters, list(gradients.values()), start, len(rows), reducer)
        return torch.cat(log_likelihoods)


class _Target(nn.Module):
    """Lets ``functional_call`` reach a log-likelihood that is not the module's ``forward``."""

    def __init__(
        self, module: nn.Module, log_likelihood: LogLikelihood, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.module = module
        self.log_likelihood = log_likelihood
        self.generator = generator

    def forward(self, X: Tensor) -> Tensor:
        return self.log_likelihood(self.module, X, self.generator)

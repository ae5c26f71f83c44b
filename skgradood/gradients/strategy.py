"""What every way of computing per-sample gradients has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from skgradood.gradients.errors import StrategyRefused
from skgradood.gradients.layers import trainable_parameters
from skgradood.gradients.likelihood import LogLikelihood
from skgradood.gradients.reducers import NoGradients, Reducer


class Strategy(ABC):
    """A way to compute the per-sample gradients of one batch.

    Parameters
    ----------
    module : nn.Module
        In evaluation state whenever ``run`` is called.
    log_likelihood : LogLikelihood
        What is differentiated.

    Attributes
    ----------
    name : str
        The value of ``engine`` that asks for it.
    """

    name: str

    def __init__(self, module: nn.Module, log_likelihood: LogLikelihood) -> None:
        self.module = module
        self.log_likelihood = log_likelihood

    @property
    def is_unsure(self) -> bool:
        """Whether each batch is to be verified: one may be right, and the next one not."""
        return False

    @property
    def leaves_out(self) -> bool:
        """Whether rows are left out by their places, which may change the results of any row."""
        return False

    def parameters_without_hooks(self) -> dict[str, nn.Parameter]:
        """Trainable parameters, for strategies that form no gradient as autograd does.

        Raises
        ------
        StrategyRefused
            If a user's hook is to be called on one's gradient.
        """
        parameters = trainable_parameters(self.module)
        for name, parameter in parameters.items():
            if parameter._backward_hooks:
                raise StrategyRefused(f"the gradient of the parameter {name!r} has a hook")
        return parameters

    @abstractmethod
    def run(self, X: Tensor, reducer: Reducer) -> Tensor:
        """Hand every layer's gradients to the reducer; return log-likelihoods (n,) in nats.

        Raises
        ------
        StrategyRefused
            If the strategy cannot serve this model.
        """

    def values(self, X: Tensor) -> Tensor:
        """Log-likelihoods (n,) in nats; nothing is done with gradients."""
        return self.run(X, NoGradients())

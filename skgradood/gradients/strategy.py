"""What every way of computing per-sample gradients has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from skgradood.gradients.likelihood import LogLikelihood
from skgradood.gradients.reducers import Reducer


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

    @abstractmethod
    def run(self, X: Tensor, reducer: Reducer) -> Tensor:
        """Hand every layer's gradients to the reducer; return log-likelihoods (n,) in nats.

        Raises
        ------
        StrategyRefused
            If the strategy cannot serve this model.
        """

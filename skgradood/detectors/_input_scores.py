"""Input scores: gradients of the log-likelihood with respect to a sample, not the parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from skgradood.gradients import LogLikelihood
from skgradood.gradients.copying import copy_of
from skgradood.gradients.precision import in_float64
from skgradood.models._row_noise import with_row_noise

# Of the difference quotient that input scores are compared with, in float64.
_RELATIVE_STEP = 1e-5
_TOLERANCE = 1e-3
_N_CHECKED = 2


class InputScores:
    """s(x) = ∂ log p(x) / ∂x of a module's samples.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    log_likelihood : str or callable
        See `LogLikelihood`. Noise comes from a generator of the sample's own.
    random_state : int
        Mixed into the seeds of that noise.
    """

    def __init__(
        self, module: nn.Module, log_likelihood: str | Callable, random_state: int
    ) -> None:
        self.module = module
        self.log_likelihood = LogLikelihood(log_likelihood, random_state, may_be_constant=True)

    def __call__(self, X: Tensor) -> Tensor:
        """Input scores of samples on the module's device; NaN where there is no gradient at all.

        Parameters
        ----------
        X : Tensor of shape (n, ...)
            Of the module's floating dtype: pixel values of images as real numbers.
        """
        with torch.enable_grad():
            X = X.detach().clone().requires_grad_()
            values = self._values(self.module, X, self.log_likelihood.row_seeds(X))
            scores = None
            if values.requires_grad:
                (scores,) = torch.autograd.grad(values.sum(), X, allow_unused=True)
        return torch.full_like(X, torch.nan) if scores is None else scores.detach()

    def check(self, X: Tensor) -> None:
        """Compare with difference quotients on a few samples (n, ...) in float64.

        A module that looks pixel values up, or rounds them, has a gradient that is not the slope
        of its log-likelihood.

        Raises
        ------
        TypeError
            If they differ.
        """
        exact = copy.copy(self)
        X = in_float64(X[:_N_CHECKED])
        exact.module = copy_of(self.module).to(X.device).double()
        # Some values rise and others fall: whichever way a module rounds, it shows.
        generator = torch.Generator().manual_seed(0)
        signs = 2.0 * torch.randint(0, 2, X.shape, generator=generator).to(X) - 1
        scores = exact(X)
        # Where the log-likelihood is steep it bends within a short way, whatever the values are.
        step = _RELATIVE_STEP * torch.minimum(1 + X.abs().amax(), 1 / scores.abs().amax()) * signs
        ends = X + step, X - step
        slopes = (scores * (ends[0] - ends[1]) / 2).flatten(1)
        seeds = self.log_likelihood.row_seeds(X)
        with torch.no_grad():
            above, below = (self._values(exact.module, end, seeds) for end in ends)
        error = ((above - below) / 2 - slopes.sum(1)).abs()
        wrong = error.isfinite() & (error > _TOLERANCE * slopes.abs().sum(1))
        if bool((wrong | slopes.isnan().any(1)).any()):
            raise TypeError(
                f"{self.log_likelihood.description} of {type(self.module).__name__} is not a "
                "smooth function of the sample: its gradient with respect to X is not its slope. "
                "Stein discrepancies need a density of continuous values, such as a flow's; a "
                "model that looks pixel values up in a table has none."
            )

    def _values(self, module: nn.Module, X: Tensor, seeds: list[int]) -> Tensor:
        return with_row_noise(self.log_likelihood, module, X, lambda _: seeds)


def flat(X: Tensor) -> np.ndarray:
    """Samples (n, ...) as float64 rows (n, D)."""
    return X.detach().cpu().double().flatten(1).numpy()

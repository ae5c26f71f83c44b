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
_EPSILON = torch.finfo(torch.float64).eps
_ROUNDINGS = 8  # of the terms that a log-likelihood is the sum of
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
        scores = self._gradient(X)
        return torch.full_like(X, torch.nan) if scores is None else scores

    def check(self, X: Tensor) -> None:
        """Compare with difference quotients on a few samples (n, ...) in float64.

        A module that looks pixel values up, or rounds them, has a gradient that is not the slope
        of its log-likelihood.

        Raises
        ------
        TypeError
            If they differ, or there is no gradient.
        ValueError
            If the gradient is not finite.
        """
        exact = copy.copy(self)
        X = in_float64(X[:_N_CHECKED])
        exact.module = copy_of(self.module).to(X.device).double()
        scores = exact._gradient(X)
        if scores is not None and not scores.isfinite().all():
            raise ValueError(
                f"the gradient of {self._described()} with respect to the sample is NaN or "
                "infinite at a sample that was given. Check that the model's log-likelihood is "
                "finite there, and its training."
            )
        if scores is None or not exact._are_slopes(scores, X):
            raise TypeError(
                f"{self._described()} is not a smooth function of the sample: its gradient with "
                "respect to X is not its slope. Stein discrepancies need a density of continuous "
                "values, such as a flow's; a model that looks pixel values up in a table has none."
            )

    def _are_slopes(self, scores: Tensor, X: Tensor) -> bool:
        # Some values rise and others fall: whichever way a module rounds, it shows.
        generator = torch.Generator().manual_seed(0)
        signs = 2.0 * torch.randint(0, 2, X.shape, generator=generator).to(X) - 1
        # Where the log-likelihood is steep it bends within a short way, whatever the values are.
        step = _RELATIVE_STEP * torch.minimum(1 + X.abs().amax(), 1 / scores.abs().amax()) * signs
        places = X + step, X, X - step
        slopes = (scores * (places[0] - places[2]) / 2).flatten(1)
        seeds = self.log_likelihood.row_seeds(X)
        with torch.no_grad():
            above, middle, below = (self._values(self.module, place, seeds) for place in places)
        error = ((above - below) / 2 - slopes.sum(1)).abs()
        # Values are rounded, and so are the ends of a step, by that much of it. At a mode, where
        # slopes are 0, nothing else is left of the difference.
        change = (above - middle).abs() + (below - middle).abs()
        of_step = X.abs().amax() / step.abs().amax()
        rounding = _ROUNDINGS * _EPSILON * (middle.abs() + of_step * change)
        wrong = error.isfinite() & (error > _TOLERANCE * slopes.abs().sum(1) + rounding)
        return not bool(wrong.any())

    def _gradient(self, X: Tensor) -> Tensor | None:
        """Input scores; None where values do not depend on X by any operation with a gradient."""
        with torch.enable_grad():
            X = X.detach().clone().requires_grad_()
            values = self._values(self.module, X, self.log_likelihood.row_seeds(X))
            if not values.requires_grad:
                return None
            (scores,) = torch.autograd.grad(values.sum(), X, allow_unused=True)
        return None if scores is None else scores.detach()

    def _described(self) -> str:
        return f"{self.log_likelihood.description} of {type(self.module).__name__}"

    def _values(self, module: nn.Module, X: Tensor, seeds: list[int]) -> Tensor:
        return with_row_noise(self.log_likelihood, module, X, lambda _: seeds)


def flat(X: Tensor) -> np.ndarray:
    """Samples (n, ...) as float64 rows (n, D)."""
    return X.detach().cpu().double().flatten(1).numpy()

"""The Fisher kernel k(x, y) = g(x)ᵀ F⁻¹ g(y), through sums of gradients instead of pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skgradood.fisher import AUTO_DAMPING, FisherEstimate, FisherOptions, QuadraticForms
from skgradood.gradients import GradientEngine, LayerGradient, Reducer, layer_layout
from skgradood.gradients.contributions import Contribution, DenseContribution
from skgradood.gradients.layers import LayerLayout
from skgradood.models._batches import resolve_device
from skgradood.models._fitted import LikelihoodModel

STATISTICS = ("biased", "unbiased")


class Scores:
    """The scores of a likelihood model's samples and groups, streamed to reducers.

    Parameters
    ----------
    model : LikelihoodModel
        The fitted model.
    log_likelihood, batch_size, device, random_state, engine
        See `GradientEngine`; "auto" is CUDA where there is one, else the CPU.
    """

    def __init__(
        self,
        model: LikelihoodModel,
        *,
        log_likelihood: str | Callable,
        batch_size: int | str,
        device: str | torch.device,
        random_state: int,
        engine: str = "auto",
    ) -> None:
        self.layout: LayerLayout = layer_layout(model.module, "parameter")
        self._module = model.module
        self._options: dict[str, Any] = {
            "log_likelihood": log_likelihood,
            "batch_size": batch_size,
            "device": resolve_device(device),
            "random_state": random_state,
            "engine": engine,
        }

    def stream(self, inputs: Tensor, reducer: Reducer, *, grouped: bool) -> np.ndarray:
        """Hand a reducer the gradients of samples (n, ...), or the sums of groups (n, B, ...).

        Returns
        -------
        ndarray of shape (n,), float64
            Log-likelihoods in nats.
        """
        engine = GradientEngine(self._module, grouped=grouped, **self._options)
        return engine.run(inputs, reducer)

    def fisher(self, samples: Tensor, approximation: str, damping: float | str) -> FisherEstimate:
        """Estimate the Fisher matrices of all layers from samples (n, ...)."""
        options = FisherOptions(
            damping=AUTO_DAMPING if damping == "auto" else float(damping),
            random_state=self._options["random_state"],
        )
        estimate = FisherEstimate.of_module(self._module, self.layout, [approximation], options)
        return estimate.fit(lambda reducer: self.stream(samples, reducer, grouped=False))

    def forms(self, fisher: FisherEstimate) -> QuadraticForms:
        """Make a reducer to gᵀ F⁻¹ g; see `totals`."""
        return QuadraticForms(self.layout, fisher.by_parameter)


def totals(forms: QuadraticForms) -> np.ndarray:
    """Sums over all layers, (n,) float64."""
    return forms.result().sum(axis=(0, 2))


class Shifted:
    """Hands gradients on to a reducer, less a multiple of a given one.

    Parameters
    ----------
    reducer : Reducer
        What receives the differences.
    origin : mapping of str to ndarray
        Gradients by the parameter's name, as `MeanGradients` returns them; 0 where there is none.
    factor : float
        How often they are subtracted.
    """

    def __init__(self, reducer: Reducer, origin: Mapping[str, np.ndarray], factor: float) -> None:
        self.reducer = reducer
        self.origin = {name: factor * torch.as_tensor(value) for name, value in origin.items()}

    def begin(self, n: int, device: torch.device) -> None:
        self.reducer.begin(n, device)

    def update(self, gradient: LayerGradient) -> None:
        if gradient.name not in self.origin:
            self.reducer.update(gradient)
            return
        for piece in gradient.pieces():
            values = piece.dense()
            shift = self.origin[gradient.name].to(device=values.device, dtype=values.dtype)
            self.reducer.update(replace(piece, contributions=[DenseContribution(values - shift)]))

    def commit(self) -> None:
        self.reducer.commit()


def form_of(gradients: Mapping[str, np.ndarray], forms: QuadraticForms) -> float:
    """Compute gᵀ F⁻¹ g of one gradient, given by the parameter's name."""
    forms.begin(1, torch.device("cpu"))
    for name, value in gradients.items():
        row = torch.as_tensor(value)[None]
        contributions: list[Contribution] = [DenseContribution(row)]
        forms.update(LayerGradient(name, row.shape[1:], 1, row.dtype, row.device, contributions))
    forms.commit()
    return float(totals(forms)[0])


def spread_of_pairs(of_sums: np.ndarray, of_samples: np.ndarray) -> np.ndarray:
    """By how much the mean of k(x_i, x_j) over all pairs exceeds that over i ≠ j.

    Parameters
    ----------
    of_sums : ndarray of shape (n,)
        k of the sum of a group's features with itself.
    of_samples : ndarray of shape (n * B,)
        k(x_i, x_i) of its samples.
    """
    own = of_samples.reshape(len(of_sums), -1)
    group_size = own.shape[1]
    return (own.mean(axis=1) - of_sums / group_size**2) / (group_size - 1)


def check_group_size(statistic: str, group_size: int) -> None:
    """Raise ValueError where an unbiased statistic has no pair of samples to be taken from."""
    if statistic == "unbiased" and group_size < 2:
        raise ValueError(
            "statistic='unbiased' is a mean over pairs of samples, and takes groups of two or "
            f"more; got groups of {group_size}. Make them with skgradood.utils.make_groups and "
            "pass grouped=True, or use statistic='biased'."
        )

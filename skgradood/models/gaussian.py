"""A normal distribution with independent dimensions: the smallest model of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skgradood.models._rows import check_row_shape

_SMALLEST_DEVIATION = 1e-6


class DiagonalGaussian(nn.Module):
    """Independent normal dimensions with learnt mean and log standard deviation.

    Its score and its Fisher information are known in closed form, which makes it a yardstick:
    with z = (x - mean) / scale, the gradient with respect to the mean is z / scale and that with
    respect to the log-scale is z^2 - 1; the Fisher information matrix is diagonal, with
    1 / scale^2 for the mean and 2 for the log-scale. Only elementwise operations take part, so a
    row's result does not depend on its batch, not even by rounding.

    Parameters
    ----------
    input_shape : sequence of int
        ``(d,)``.

    Raises
    ------
    ValueError
        If ``input_shape`` is not that of a row.
    """

    input_kind = "continuous"

    def __init__(self, input_shape: Sequence[int]) -> None:
        super().__init__()
        self.input_shape = check_row_shape(input_shape)
        self.mean = nn.Parameter(torch.zeros(self.input_shape))
        self.log_scale = nn.Parameter(torch.zeros(self.input_shape))

    @torch.no_grad()
    def initialize(self, X: Tensor) -> None:
        """Set mean and scale to the moments of a batch, (n, d)."""
        self.mean.copy_(X.mean(dim=0))
        # A constant column has a density only with some width given to it.
        self.log_scale.copy_(X.std(dim=0, correction=0).clamp_min(_SMALLEST_DEVIATION).log())

    def log_prob(self, X: Tensor) -> Tensor:
        """Log-density of rows.

        Parameters
        ----------
        X : Tensor of shape (n, d)

        Returns
        -------
        Tensor of shape (n,)
            Nats.
        """
        z = (X - self.mean) * (-self.log_scale).exp()
        return (-0.5 * z**2 - self.log_scale - 0.5 * math.log(2 * math.pi)).sum(dim=1)

    @torch.no_grad()
    def fisher_information(self) -> Tensor:
        """The Fisher information of one row, in closed form.

        Returns
        -------
        Tensor of shape (2 d, 2 d)
            Rows and columns in the order of ``parameters()``: ``mean``, ``log_scale``. Nats
            squared over squared units of the parameters.
        """
        of_mean = (-2 * self.log_scale).exp()
        return torch.diag(torch.cat([of_mean, torch.full_like(of_mean, 2)]))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw rows, (n, d).

        Parameters
        ----------
        n : int
            How many.
        generator : torch.Generator, optional
            Source of the noise, on the model's device.
        """
        noise = torch.randn(
            (n, *self.input_shape),
            generator=generator,
            dtype=self.mean.dtype,
            device=self.mean.device,
        )
        return self.mean + self.log_scale.exp() * noise

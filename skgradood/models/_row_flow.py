"""What the flows of rows share: learnt linear maps between couplings, and the density they make."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from skgradood.gradients.precision import in_float64
from skgradood.models._rows import check_row_shape

_SMALLEST_DEVIATION = 1e-6


class LinearMap(nn.Module):
    """An invertible linear map with a shift, initialised as a random rotation.

    Parameters
    ----------
    n_features : int
        Columns, d.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(n_features, n_features)))
        self.shift = nn.Parameter(torch.zeros(n_features))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``x``, (n, d); also the log-determinant in nats, one number for all rows."""
        y = nn.functional.linear(x, self.weight, self.shift)
        return y, torch.linalg.slogdet(self.weight).logabsdet

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`, (n, d) to (n, d)."""
        # In float64: the error of an inverse adds up over the layers of a flow.
        solved = torch.linalg.solve(in_float64(self.weight), in_float64(y - self.shift).T)
        return solved.T.to(y)


class RowCoupling(nn.Module, ABC):
    """Transform the second part of a row by a function that the first part determines.

    Parameters
    ----------
    n_features : int
        Columns, at least 2.
    hidden : int
        Width of the two hidden layers that compute the function.
    n_outputs : int
        Numbers that determine the function of one column.
    """

    def __init__(self, n_features: int, hidden: int, n_outputs: int) -> None:
        super().__init__()
        n_kept = n_features // 2
        self.sizes = [n_kept, n_features - n_kept]
        last = nn.Linear(hidden, n_outputs * self.sizes[1])
        # The coupling starts as the identity.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.conditioner = nn.Sequential(
            nn.Linear(n_kept, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), last
        )

    @abstractmethod
    def transform(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The changed columns, and the logs of their derivatives in nats, (n, m) each.

        Parameters
        ----------
        x : Tensor of shape (n, m)
        outputs : Tensor of shape (n, n_outputs * m)
            What the network says.
        """

    @abstractmethod
    def transform_back(self, y: Tensor, outputs: Tensor) -> Tensor:
        """Undo `transform`, (n, m) to (n, m)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Transform ``x``, (n, d); also the log-determinants in nats, (n,)."""
        kept, changed = x.split(self.sizes, dim=1)
        changed, log_slope = self.transform(changed, self.conditioner(kept))
        return torch.cat([kept, changed], dim=1), log_slope.sum(dim=1)

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`, (n, d) to (n, d)."""
        kept, changed = y.split(self.sizes, dim=1)
        return torch.cat([kept, self.transform_back(changed, self.conditioner(kept))], dim=1)


class RowFlow(nn.Module):
    """A flow from rows to independent standard normal variables.

    Columns are standardised by the moments of the training data (part of the density, not
    trained). Then linear maps and couplings alternate.

    Parameters
    ----------
    input_shape : sequence of int
        ``(d,)``.
    make_coupling : callable
        From the number of columns to a coupling.
    n_layers : int
        Couplings; with a single column there is nothing to couple.
    noise : float
        Standard deviation of the normal noise added to rows in training, in units of the columns'
        standard deviations.

    Raises
    ------
    ValueError
        If ``input_shape`` is not that of a row, or ``noise`` is negative.
    """

    input_kind = "continuous"
    location: Tensor
    scale: Tensor

    def __init__(
        self,
        input_shape: Sequence[int],
        make_coupling: Callable[[int], RowCoupling],
        *,
        n_layers: int,
        noise: float,
    ) -> None:
        super().__init__()
        if noise < 0:
            raise ValueError(f"noise must not be negative, a standard deviation; got {noise}")
        self.input_shape = check_row_shape(input_shape)
        self.n_layers = n_layers
        self.noise = noise
        n_features = self.input_shape[0]
        self.register_buffer("location", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.layers = nn.ModuleList()
        for _ in range(n_layers if n_features > 1 else 0):
            self.layers.append(LinearMap(n_features))
            self.layers.append(make_coupling(n_features))
        self.layers.append(LinearMap(n_features))

    @torch.no_grad()
    def initialize(self, X: Tensor) -> None:
        """Take the moments that standardise the columns from a batch, (n, d)."""
        self.location.copy_(X.mean(dim=0))
        deviation = X.std(dim=0, correction=0)
        # A constant column has a density only with some width given to it; a small one would
        # throw rows that differ there out of the range of numbers.
        constant = deviation < _SMALLEST_DEVIATION
        self.scale.copy_(torch.where(constant, torch.ones_like(deviation), deviation))

    def encode(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Latent variables and log-determinants.

        Parameters
        ----------
        X : Tensor of shape (n, d)

        Returns
        -------
        z : Tensor of shape (n, d)
        log_determinant : Tensor of shape (n,)
            In nats, that of the standardisation included.
        """
        z = (X - self.location) / self.scale
        total = -self.scale.log().sum().expand(len(X))
        for layer in self.layers:
            z, log_determinant = layer(z)
            total = total + log_determinant
        return z, total

    def decode(self, z: Tensor) -> Tensor:
        """Undo `encode`, (n, d) to (n, d)."""
        for layer in reversed(cast("list[LinearMap | RowCoupling]", list(self.layers))):
            z = layer.inverse(z)
        return z * self.scale + self.location

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
        z, log_determinant = self.encode(X)
        return log_determinant + standard_log_density(z)

    def training_loss(self, X: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Negative log-density of rows to which noise is added.

        Parameters
        ----------
        X : Tensor of shape (n, d)
        generator : torch.Generator, optional
            Source of the noise.

        Returns
        -------
        Tensor of shape (n,)
            Nats.
        """
        if self.noise == 0:
            return -self.log_prob(X)
        drawn = torch.randn(X.shape, generator=generator, dtype=X.dtype, device=X.device)
        return -self.log_prob(X + self.noise * self.scale * drawn)

    def log_prob_contributions(self, X: Tensor) -> Tensor:
        """The two parts of `log_prob`: rows sum to it.

        Parameters
        ----------
        X : Tensor of shape (n, d)

        Returns
        -------
        Tensor of shape (n, 2)
            Nats: log-density of the latent variables, log-determinant.
        """
        z, log_determinant = self.encode(X)
        return torch.stack([standard_log_density(z), log_determinant], dim=1)

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
        shape = (n, *self.input_shape)
        return self.decode(
            torch.randn(
                shape, generator=generator, dtype=self.scale.dtype, device=self.scale.device
            )
        )


def standard_log_density(z: Tensor) -> Tensor:
    """Log-density of a standard normal distribution, (n, d) to (n,) nats."""
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(dim=1)

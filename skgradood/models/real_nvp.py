"""RealNVP for rows: affine couplings between learnt linear maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from skgradood.models._rows import check_row_shape
from skgradood.models.glow.coupling import bounded

_SCALE_BOUND = 2.0
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
        solved = torch.linalg.solve(self.weight.double(), (y - self.shift).double().T)
        return solved.T.to(y.dtype)


class RowCoupling(nn.Module):
    """Scale and shift the second part of a row by functions of the first.

    Parameters
    ----------
    n_features : int
        Columns, at least 2.
    hidden : int
        Width of the two hidden layers that compute scale and shift.
    """

    def __init__(self, n_features: int, hidden: int) -> None:
        super().__init__()
        n_kept = n_features // 2
        self.sizes = [n_kept, n_features - n_kept]
        last = nn.Linear(hidden, 2 * self.sizes[1])
        # The coupling starts as the identity.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.conditioner = nn.Sequential(
            nn.Linear(n_kept, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), last
        )

    def _log_scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.conditioner(kept).chunk(2, dim=1)
        return bounded(raw, _SCALE_BOUND), shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Transform ``x``, (n, d); also the log-determinants in nats, (n,)."""
        kept, changed = x.split(self.sizes, dim=1)
        log_scale, shift = self._log_scale_and_shift(kept)
        return torch.cat([kept, changed * log_scale.exp() + shift], dim=1), log_scale.sum(dim=1)

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`, (n, d) to (n, d)."""
        kept, changed = y.split(self.sizes, dim=1)
        log_scale, shift = self._log_scale_and_shift(kept)
        return torch.cat([kept, (changed - shift) * (-log_scale).exp()], dim=1)


class RealNVP(nn.Module):
    """A flow from rows to independent standard normal variables.

    Columns are standardised by the moments of the training data (part of the density, not
    trained). Then linear maps and affine couplings alternate; log-scales are bounded, so that
    neither direction can overflow. With a single column there is nothing to couple, and the model
    is a normal distribution.

    Parameters
    ----------
    input_shape : sequence of int
        ``(d,)``.
    n_layers : int, default=8
        Couplings.
    hidden : int, default=64
        Width of the two hidden layers of every coupling.
    noise : float, default=0.0
        Standard deviation of the normal noise added to rows in training, in units of the columns'
        standard deviations. On whole numbers, or few rows, a density without it grows without
        bound around the training rows.

    Raises
    ------
    ValueError
        If ``input_shape`` is not that of a row, or ``noise`` is negative.

    References
    ----------
    Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017.
    """

    input_kind = "continuous"
    location: Tensor
    scale: Tensor

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        n_layers: int = 8,
        hidden: int = 64,
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        if noise < 0:
            raise ValueError(f"noise must not be negative, a standard deviation; got {noise}")
        self.input_shape = check_row_shape(input_shape)
        self.n_layers = n_layers
        self.hidden = hidden
        self.noise = noise
        n_features = self.input_shape[0]
        self.register_buffer("location", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.layers = nn.ModuleList()
        for _ in range(n_layers if n_features > 1 else 0):
            self.layers.append(LinearMap(n_features))
            self.layers.append(RowCoupling(n_features, hidden))
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
        return log_determinant + _standard_log_density(z)

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
        return torch.stack([_standard_log_density(z), log_determinant], dim=1)

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


def _standard_log_density(z: Tensor) -> Tensor:
    """Log-density of a standard normal distribution, (n, d) to (n,) nats."""
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(dim=1)

"""RealNVP for rows: affine couplings between learnt linear maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from skgradood.models._row_flow import RowCoupling, RowFlow
from skgradood.models.glow.coupling import bounded

_SCALE_BOUND = 2.0


class AffineRowCoupling(RowCoupling):
    """Scale and shift the second part of a row by functions of the first.

    Parameters
    ----------
    n_features : int
        Columns, at least 2.
    hidden : int
        Width of the two hidden layers that compute scale and shift.
    """

    def __init__(self, n_features: int, hidden: int) -> None:
        super().__init__(n_features, hidden, n_outputs=2)

    def transform(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The changed columns and their log-scales in nats, (n, m) each."""
        raw, shift = outputs.chunk(2, dim=1)
        log_scale = bounded(raw, _SCALE_BOUND)
        return x * log_scale.exp() + shift, log_scale

    def transform_back(self, y: Tensor, outputs: Tensor) -> Tensor:
        """Undo `transform`, (n, m) to (n, m)."""
        raw, shift = outputs.chunk(2, dim=1)
        return (y - shift) * (-bounded(raw, _SCALE_BOUND)).exp()


class RealNVP(RowFlow):
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

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        n_layers: int = 8,
        hidden: int = 64,
        noise: float = 0.0,
    ) -> None:
        super().__init__(
            input_shape,
            lambda n_features: AffineRowCoupling(n_features, hidden),
            n_layers=n_layers,
            noise=noise,
        )
        self.hidden = hidden

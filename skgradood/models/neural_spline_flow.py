"""A neural spline flow for rows: rational-quadratic couplings between learnt linear maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from skgradood.models._row_flow import RowCoupling, RowFlow
from skgradood.models._splines import (
    SMALLEST_BIN,
    Spline,
    evaluate,
    invert,
    make_spline,
    n_spline_outputs,
)

_MOST_BINS = int(0.5 / SMALLEST_BIN)


class SplineRowCoupling(RowCoupling):
    """Bend every column of the second part of a row by a spline that the first part determines.

    Parameters
    ----------
    n_features : int
        Columns, at least 2.
    hidden : int
        Width of the two hidden layers that compute the splines.
    n_bins : int
        Pieces of every spline.
    tail_bound : float
        Outside (-tail_bound, tail_bound) columns stay as they are.
    """

    def __init__(self, n_features: int, hidden: int, n_bins: int, tail_bound: float) -> None:
        super().__init__(n_features, hidden, n_outputs=n_spline_outputs(n_bins))
        self.tail_bound = tail_bound

    def _make_splines(self, outputs: Tensor) -> Spline:
        return make_spline(outputs.unflatten(1, (self.sizes[1], -1)), self.tail_bound)

    def transform(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The changed columns and the logs of their slopes in nats, (n, m) each."""
        return evaluate(self._make_splines(outputs), x, self.tail_bound)

    def transform_back(self, y: Tensor, outputs: Tensor) -> Tensor:
        """Undo `transform`, (n, m) to (n, m)."""
        return invert(self._make_splines(outputs), y, self.tail_bound)


class NeuralSplineFlow(RowFlow):
    """A flow from rows to independent standard normal variables, through splines.

    As `RealNVP`, but the couplings bend columns by monotonic rational-quadratic splines instead of
    scaling and shifting them, so that fewer of them describe densities with several modes.
    Outside an interval around the mean, couplings are the identity. With a single column there is
    nothing to couple, and the model is a normal distribution.

    Parameters
    ----------
    input_shape : sequence of int
        ``(d,)``.
    n_layers : int, default=4
        Couplings.
    hidden : int, default=64
        Width of the two hidden layers of every coupling.
    n_bins : int, default=8
        Pieces of every spline.
    tail_bound : float, default=3.0
        Half the length of the interval, in units of the columns' standard deviations.
    noise : float, default=0.0
        Standard deviation of the normal noise added to rows in training, in units of the columns'
        standard deviations. On whole numbers, or few rows, a density without it grows without
        bound around the training rows.

    Raises
    ------
    ValueError
        If ``input_shape`` is not that of a row, ``noise`` is negative, ``tail_bound`` not positive
        or ``n_bins`` out of range.

    References
    ----------
    Durkan, Bekasov, Murray and Papamakarios, "Neural spline flows", NeurIPS 2019.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        n_layers: int = 4,
        hidden: int = 64,
        n_bins: int = 8,
        tail_bound: float = 3.0,
        noise: float = 0.0,
    ) -> None:
        if not 2 <= n_bins <= _MOST_BINS:
            raise ValueError(f"n_bins must be between 2 and {_MOST_BINS}; got {n_bins}")
        if not tail_bound > 0:
            raise ValueError(
                f"tail_bound must be positive, a number of standard deviations; got {tail_bound}"
            )
        super().__init__(
            input_shape,
            lambda n_features: SplineRowCoupling(n_features, hidden, n_bins, tail_bound),
            n_layers=n_layers,
            noise=noise,
        )
        self.hidden = hidden
        self.n_bins = n_bins
        self.tail_bound = tail_bound

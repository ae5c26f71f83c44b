"""A linear flow: the normal distribution with full covariance, all of it in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skgradood.gradients.precision import in_float64
from skgradood.models._rows import check_row_shape

_SMALLEST_DEVIATION = 1e-6


class LinearFlow(nn.Module):
    """x = A z + b with standard normal z and a lower triangular A: the normal distribution.

    The covariance is A A^T. The diagonal of A is positive, so that every covariance has one A,
    and the Fisher information an inverse. As a yardstick for engines and Fisher approximations it
    is what `DiagonalGaussian` is not: its Fisher information has blocks.

    With z = A^-1 (x - b), Lambda = (A A^T)^-1 and i >= j, the score is

    - A^-T z with respect to ``shift``, which is b;
    - (A^-T (z z^T - I))_ij with respect to A_ij,

    and the Fisher information

    - Lambda for b, and none between b and A;
    - Lambda_ik for A_ij and A_kj, the entries of one column; none between columns;
    - Lambda_jj + A_jj^-2 for a diagonal entry with itself.

    Parameters of the module are the strict lower triangle row by row, ``lower``, and the logs of
    the diagonal, ``log_diagonal``, whose score has a factor A_jj.

    Parameters
    ----------
    input_shape : sequence of int
        ``(d,)``.

    Raises
    ------
    ValueError
        If ``input_shape`` is not that of a row.

    Examples
    --------
    >>> import torch
    >>> from skgradood.models import LinearFlow
    >>> flow = LinearFlow((2,))
    >>> flow.initialize(torch.tensor([[1.0, 1.0], [-1.0, 1.0], [0.0, 4.0]]))
    >>> flow.fisher_information().shape
    torch.Size([5, 5])
    """

    input_kind = "continuous"
    rows: Tensor
    columns: Tensor

    def __init__(self, input_shape: Sequence[int]) -> None:
        super().__init__()
        self.input_shape = check_row_shape(input_shape)
        d = self.input_shape[0]
        self.shift = nn.Parameter(torch.zeros(d))
        self.lower = nn.Parameter(torch.zeros(d * (d - 1) // 2))
        self.log_diagonal = nn.Parameter(torch.zeros(d))
        rows, columns = torch.tril_indices(d, d, offset=-1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)

    def matrix(self) -> Tensor:
        """A, (d, d)."""
        d = len(self.log_diagonal)
        lower = self.lower.new_zeros(d * d).scatter(0, self.rows * d + self.columns, self.lower)
        return lower.reshape(d, d) + torch.diag(self.log_diagonal.exp())

    @torch.no_grad()
    def initialize(self, X: Tensor) -> None:
        """Set b and A to the maximum of the likelihood of a batch, (n, d).

        Where the covariance of the batch has no inverse, variances are raised by a millionth of
        their mean first.
        """
        self.shift.copy_(X.mean(dim=0))
        centred = in_float64(X - X.mean(dim=0))
        covariance = centred.T @ centred / len(X)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if failed or factor.diagonal().min() < _SMALLEST_DEVIATION * factor.diagonal().max():
            width = max(_SMALLEST_DEVIATION * float(covariance.diagonal().mean()), 1e-12)
            factor = torch.linalg.cholesky(
                covariance + width * torch.eye(len(covariance)).to(covariance)
            )
        self.lower.copy_(factor.to(self.lower)[self.rows, self.columns])
        self.log_diagonal.copy_(factor.diagonal().log())

    def encode(self, X: Tensor) -> Tensor:
        """Latent variables z of rows, (n, d) to (n, d)."""
        centred = (X - self.shift).T
        return torch.linalg.solve_triangular(self.matrix(), centred, upper=False).T

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
        log_density = -0.5 * (self.encode(X) ** 2 + math.log(2 * math.pi)).sum(dim=1)
        return log_density - self.log_diagonal.sum()

    @torch.no_grad()
    def fisher_information(self) -> Tensor:
        """The Fisher information of one row, in closed form.

        Returns
        -------
        Tensor of shape (P, P)
            Rows and columns in the order of ``parameters()``: ``shift``, ``lower``,
            ``log_diagonal``. Nats squared over squared units of the parameters.
        """
        matrix = self.matrix()
        d = len(matrix)
        precision = torch.cholesky_inverse(matrix)
        diagonal = torch.arange(d, device=matrix.device)
        row, column = torch.cat([self.rows, diagonal]), torch.cat([self.columns, diagonal])
        of_matrix = precision[row][:, row] * (column[:, None] == column)
        on_diagonal = (row == column).nonzero().squeeze(1)
        of_matrix[on_diagonal, on_diagonal] += matrix.diagonal() ** -2
        per_parameter = torch.cat([torch.ones_like(self.lower), matrix.diagonal()])
        of_matrix = of_matrix * per_parameter * per_parameter[:, None]
        return torch.block_diag(precision, of_matrix)

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
            dtype=self.shift.dtype,
            device=self.shift.device,
        )
        return noise @ self.matrix().T + self.shift

"""Invertible 1x1 convolutions: the learnt permutations between the steps of a flow."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skgradood.gradients.precision import in_float64


class InvertibleConv(nn.Module, ABC):
    """An invertible 1x1 convolution, initialised as a random rotation of the channels.

    Subclasses say how the matrix is parametrised; the determinant comes with it
    (Kingma and Dhariwal 2018, section 3.2).
    """

    @abstractmethod
    def weight_and_log_determinant(self) -> tuple[Tensor, Tensor]:
        """The (C, C) matrix and the log of its absolute determinant, in nats."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the channels of ``x``; also the log-determinant, one number for all samples.

        Parameters
        ----------
        x : Tensor of shape (n, C, H, W)

        Returns
        -------
        y : Tensor of shape (n, C, H, W)
        log_determinant : Tensor of shape ()
            In nats.
        """
        weight, log_determinant = self.weight_and_log_determinant()
        positions = x.shape[2] * x.shape[3]
        return F.conv2d(x, weight[:, :, None, None]), positions * log_determinant

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`, (n, C, H, W) to (n, C, H, W)."""
        weight, _ = self.weight_and_log_determinant()
        # In float64: the error of an inverse adds up over the steps of a flow.
        inverse = torch.linalg.inv(in_float64(weight)).to(y)
        return F.conv2d(y, inverse[:, :, None, None])


class PlainInvertibleConv(InvertibleConv):
    """The matrix itself is the parameter; the determinant is computed from it.

    Parameters
    ----------
    n_channels : int
        Channels of the input, C.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_random_rotation(n_channels))

    def weight_and_log_determinant(self) -> tuple[Tensor, Tensor]:
        """The (C, C) matrix and the log of its absolute determinant, in nats."""
        return self.weight, torch.linalg.slogdet(self.weight).logabsdet


class LUInvertibleConv(InvertibleConv):
    """The matrix as P L (U + diag(s)) with a fixed permutation P (equation 10 of the paper).

    Only the entries that the factors can vary are parameters: the strict triangles, packed into
    vectors, and log |s|. The signs of s stay as drawn.

    Parameters
    ----------
    n_channels : int
        Channels of the input, C.
    """

    permutation: Tensor
    signs: Tensor
    lower_index: Tensor
    upper_index: Tensor

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        permutation, lower, upper = torch.linalg.lu(_random_rotation(n_channels))
        diagonal = upper.diagonal()
        rows, columns = torch.tril_indices(n_channels, n_channels, offset=-1)
        self.lower = nn.Parameter(lower[rows, columns])
        self.upper = nn.Parameter(upper[columns, rows])
        self.log_diagonal = nn.Parameter(diagonal.abs().log())
        self.register_buffer("permutation", permutation)
        self.register_buffer("signs", diagonal.sign())
        self.register_buffer("lower_index", rows * n_channels + columns)
        self.register_buffer("upper_index", columns * n_channels + rows)

    def weight_and_log_determinant(self) -> tuple[Tensor, Tensor]:
        """The (C, C) matrix and the log of its absolute determinant, in nats."""
        n = len(self.log_diagonal)
        empty = self.lower.new_zeros(n * n)
        lower = empty.scatter(0, self.lower_index, self.lower).reshape(n, n)
        upper = empty.scatter(0, self.upper_index, self.upper).reshape(n, n)
        diagonal = torch.diag(self.signs * self.log_diagonal.exp())
        identity = torch.eye(n, dtype=lower.dtype, device=lower.device)
        weight = self.permutation @ (lower + identity) @ (upper + diagonal)
        return weight, self.log_diagonal.sum()


def _random_rotation(n_channels: int) -> Tensor:
    return nn.init.orthogonal_(torch.empty(n_channels, n_channels))

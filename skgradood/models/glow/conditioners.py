"""The networks inside a Glow, which compute scales, shifts and means from other channels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod

from torch import nn


class Conditioner(ABC):
    """Makes networks from (n, n_in, H, W) to (n, n_out, H, W).

    Their last layer starts at zero, so that what they drive starts as the identity.
    """

    @abstractmethod
    def network(self, n_in: int, n_hidden: int, n_out: int, size: tuple[int, int]) -> nn.Module:
        """A network with two hidden layers.

        Parameters
        ----------
        n_in, n_out : int
            Channels.
        n_hidden : int
            Channels or units of the hidden layers.
        size : (int, int)
            Height and width.
        """

    @abstractmethod
    def last(self, n_in: int, n_out: int, size: tuple[int, int]) -> nn.Module:
        """One linear layer that starts at zero."""


class Convolutions(Conditioner):
    """Convolutions; the one between the hidden layers is pointwise (Kingma and Dhariwal 2018).

    Parameters
    ----------
    kernel_size : int
        Odd. With 1, every position of the squeezed image is seen alone.
    """

    def __init__(self, kernel_size: int) -> None:
        self.kernel_size = kernel_size

    def _conv(self, n_in: int, n_out: int) -> nn.Conv2d:
        return nn.Conv2d(n_in, n_out, self.kernel_size, padding=self.kernel_size // 2)

    def network(self, n_in: int, n_hidden: int, n_out: int, size: tuple[int, int]) -> nn.Module:
        """Three convolutions."""
        return nn.Sequential(
            self._conv(n_in, n_hidden),
            nn.ReLU(),
            nn.Conv2d(n_hidden, n_hidden, kernel_size=1),
            nn.ReLU(),
            self.last(n_hidden, n_out, size),
        )

    def last(self, n_in: int, n_out: int, size: tuple[int, int]) -> nn.Module:
        """A convolution that starts at zero."""
        return _zeroed(self._conv(n_in, n_out))


class Dense(Conditioner):
    """Fully connected layers, which see all positions at once and tell them apart."""

    def network(self, n_in: int, n_hidden: int, n_out: int, size: tuple[int, int]) -> nn.Module:
        """Three fully connected layers on flattened images."""
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(n_in * prod(size), n_hidden),
            nn.ReLU(),
            nn.Linear(n_hidden, n_hidden),
            nn.ReLU(),
            _zeroed(nn.Linear(n_hidden, n_out * prod(size))),
            nn.Unflatten(1, (n_out, *size)),
        )

    def last(self, n_in: int, n_out: int, size: tuple[int, int]) -> nn.Module:
        """A fully connected layer on flattened images that starts at zero."""
        return nn.Sequential(
            nn.Flatten(),
            _zeroed(nn.Linear(n_in * prod(size), n_out * prod(size))),
            nn.Unflatten(1, (n_out, *size)),
        )


CONDITIONERS: dict[str, Conditioner] = {
    "convolutional": Convolutions(3),
    "dense": Dense(),
    "local": Convolutions(1),
}


def _zeroed(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer

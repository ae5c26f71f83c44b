"""The networks of random network distillation, and how the predictor learns the targets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

_N_HALVINGS = 3


class FeatureNetwork(nn.Module):
    """A small network from samples to features, random until it is trained.

    Parameters
    ----------
    input_shape : sequence of int
        ``(C, H, W)`` or ``(d,)``.
    n_features : int
        Length of what comes out.
    width : int
        Channels after the first convolution, or units of a hidden layer divided by 4.
    depth : int
        Hidden layers after the first part. A predictor has more than its targets.
    """

    def __init__(self, input_shape: Sequence[int], n_features: int, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if len(input_shape) == 3:
            n_channels, height, size = input_shape
            channels = [n_channels, *(width * 2**i for i in range(_N_HALVINGS))]
            for n_in, n_out in itertools.pairwise(channels):
                layers += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.LeakyReLU()]
                height, size = math.ceil(height / 2), math.ceil(size / 2)
            layers.append(nn.Flatten())
            hidden = channels[-1] * height * size
        else:
            hidden = 4 * width
            layers += [nn.Linear(input_shape[0], hidden), nn.LeakyReLU()]
        for _ in range(depth):
            layers += [nn.Linear(hidden, 4 * width), nn.LeakyReLU()]
            hidden = 4 * width
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, n_features))

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, n_features) of samples."""
        return self.layers(x)


class Distillation(nn.Module):
    """A predictor and the fixed random targets that it learns, one for every set of samples.

    Parameters
    ----------
    input_shape : sequence of int
        ``(C, H, W)`` or ``(d,)``.
    n_targets : int
        One for the samples themselves, and one for every blurred copy of them.
    n_features, width : int
        See `FeatureNetwork`.
    """

    def __init__(
        self, input_shape: Sequence[int], n_targets: int, n_features: int, width: int
    ) -> None:
        super().__init__()
        self.predictor = FeatureNetwork(input_shape, n_features, width, depth=2)
        self.targets = nn.ModuleList(
            FeatureNetwork(input_shape, n_features, width, depth=0) for _ in range(n_targets)
        )
        self.targets.requires_grad_(False)

    def distance(self, x: Tensor, target: int = 0) -> Tensor:
        """Squared distance ||f(x) - g_target(x)||^2 of every sample, (n,)."""
        return (self.predictor(x) - self.targets[target](x)).square().sum(dim=1)

    def learn(
        self,
        sets: Sequence[np.ndarray],
        prepare: Callable[[np.ndarray], Tensor],
        *,
        max_epochs: int,
        lr: float,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        """Train the predictor on the sum of the sets' mean distances.

        Parameters
        ----------
        sets : sequence of ndarray of shape (n, ...)
            The samples, then each of their blurred copies, in the same order.
        prepare : callable
            From samples to what the networks take.
        max_epochs, batch_size : int
        lr : float
            Of Adam.
        generator : torch.Generator
            Of the order of the samples.

        Raises
        ------
        RuntimeError
            If the loss is not finite.
        """
        optimizer = torch.optim.Adam(self.predictor.parameters(), lr=lr)
        for epoch in range(1, max_epochs + 1):
            for batch in _batches(len(sets[0]), batch_size, generator):
                distances = [
                    self.distance(prepare(samples[batch]), target).mean()
                    for target, samples in enumerate(sets)
                ]
                loss = torch.stack(distances).sum()
                if not torch.isfinite(loss):
                    raise RuntimeError(
                        f"training of the predictor diverged in epoch {epoch}: the loss became "
                        f"{loss.item()}. Lower lr (now {lr}), or check the range of the data."
                    )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All weights by name."""
        return {name: value.cpu().numpy() for name, value in self.state_dict().items()}

    def from_arrays(self, arrays: Mapping[str, np.ndarray]) -> Distillation:
        """Take weights that `to_arrays` gave."""
        self.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
        return self


def _batches(n: int, batch_size: int, generator: torch.Generator) -> Iterator[np.ndarray]:
    order = torch.randperm(n, generator=generator).numpy()
    for start in range(0, n, batch_size):
        yield order[start : start + batch_size]

"""Densities of the latent variables that leave a flow at one scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skgradood.models.glow.coupling import bounded

_LOG_SCALE_BOUND = 4.0


def normal_log_prob(z: Tensor, mean: Tensor | float, log_scale: Tensor) -> Tensor:
    """Log-density of independent normal variables, elementwise, in nats."""
    return -0.5 * ((z - mean) * (-log_scale).exp()) ** 2 - log_scale - 0.5 * math.log(2 * math.pi)


class StandardPrior(nn.Module):
    """Standard normal latent variables.

    Parameters
    ----------
    shape : sequence of int
        ``(C, H, W)`` of the latent variables.
    """

    zero: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        # Carries dtype and device.
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def mean_and_log_scale(self, rest: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, broadcastable to the latent variables."""
        return self.zero, self.zero

    def log_prob(self, z: Tensor, rest: Tensor | None) -> Tensor:
        """Log-density of ``z`` given the variables that go on to coarser scales.

        Parameters
        ----------
        z : Tensor of shape (n, C, H, W)
        rest : Tensor of shape (n, C, H, W)
            Read by `ConditionalPrior` only.

        Returns
        -------
        Tensor of shape (n,)
            Nats.
        """
        mean, log_scale = self.mean_and_log_scale(rest)
        return normal_log_prob(z, mean, log_scale).sum(dim=(1, 2, 3))

    def sample(self, n: int, rest: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Draw n latent variables, (n, C, H, W)."""
        mean, log_scale = self.mean_and_log_scale(rest)
        noise = torch.randn(
            (n, *self.shape), generator=generator, dtype=mean.dtype, device=mean.device
        )
        return mean + log_scale.exp() * noise


class TopPrior(StandardPrior):
    """Mean and scale learnt per channel; for the coarsest scale.

    Parameters
    ----------
    shape : sequence of int
        ``(C, H, W)`` of the latent variables.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.mean = nn.Parameter(torch.zeros(shape[0]))
        self.log_scale = nn.Parameter(torch.zeros(shape[0]))

    def mean_and_log_scale(self, rest: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, broadcastable to the latent variables."""
        return self.mean[:, None, None], bounded(self.log_scale, _LOG_SCALE_BOUND)[:, None, None]


class ConditionalPrior(StandardPrior):
    """Mean and scale computed from the variables that go on to coarser scales.

    Parameters
    ----------
    shape : sequence of int
        ``(C, H, W)`` of the latent variables.
    conv : nn.Module
        Computes means and raw log-scales, (n, 2 C, H, W), from the variables that go on.
    """

    def __init__(self, shape: Sequence[int], conv: nn.Module) -> None:
        super().__init__(shape)
        self.conv = conv

    def mean_and_log_scale(self, rest: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, (n, C, H, W) each."""
        mean, raw = self.conv(rest).chunk(2, dim=1)
        return mean, bounded(raw, _LOG_SCALE_BOUND)


class ClassPrior(StandardPrior):
    """One mode a class, with a mean and a scale for every latent variable; for the coarsest scale.

    The probabilities of the classes are learnt as well.

    Parameters
    ----------
    shape : sequence of int
        ``(C, H, W)`` of the latent variables.
    n_classes : int
        Classes, K.
    """

    def __init__(self, shape: Sequence[int], n_classes: int) -> None:
        super().__init__(shape)
        self.mean = nn.Parameter(torch.zeros(n_classes, *shape))
        self.log_scale = nn.Parameter(torch.zeros(n_classes, *shape))
        self.class_logits = nn.Parameter(torch.zeros(n_classes))

    def joint_log_prob(self, z: Tensor) -> Tensor:
        """Log-density of latent variables together with each class, log p(z, k).

        Parameters
        ----------
        z : Tensor of shape (n, C, H, W)

        Returns
        -------
        Tensor of shape (n, K)
            Nats.
        """
        log_scale = bounded(self.log_scale, _LOG_SCALE_BOUND)
        given_class = normal_log_prob(z[:, None], self.mean, log_scale).sum(dim=(2, 3, 4))
        return given_class + self.class_logits.log_softmax(dim=0)

    def log_prob(self, z: Tensor, rest: Tensor | None) -> Tensor:
        """Log-density of the mixture of all classes, (n, C, H, W) to (n,) nats."""
        return self.joint_log_prob(z).logsumexp(dim=1)

    def sample(
        self,
        n: int,
        rest: Tensor | None,
        generator: torch.Generator | None,
        label: int | None = None,
    ) -> Tensor:
        """Draw n latent variables, (n, C, H, W), of one class or of all."""
        shares = self.class_logits.softmax(dim=0)
        if label is None:
            classes = torch.multinomial(shares, n, replacement=True, generator=generator)
        else:
            classes = torch.full((n,), label, device=shares.device)
        noise = torch.randn(
            (n, *self.shape), generator=generator, dtype=shares.dtype, device=shares.device
        )
        scale = bounded(self.log_scale, _LOG_SCALE_BOUND).exp()
        return self.mean[classes] + scale[classes] * noise

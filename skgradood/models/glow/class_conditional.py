"""Glow with one latent mode a class: what labels are trained with, and what is known of them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from skgradood.models._pixels import N_VALUES, to_unit
from skgradood.models.glow.level import Level
from skgradood.models.glow.prior import ClassPrior


class ClassConditional(nn.Module):
    """What a Glow does with classes; its coarsest prior is then a `ClassPrior`."""

    levels: nn.ModuleList
    n_classes: int | None

    @abstractmethod
    def encode(self, y: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Latent variables of every scale, finest first, and their log-density contributions."""

    def labelled_training_loss(
        self, X: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Losses of images whose classes are known, under the same noise as `training_loss`.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.
        y : Tensor of shape (n,), int64
            Classes, 0...n_classes - 1.
        generator : torch.Generator, optional
            Source of the noise.

        Returns
        -------
        negative_log_likelihood : Tensor of shape (n,)
            -log p(x, y) = -log p(x | y) - log p(y), nats.
        cross_entropy : Tensor of shape (n,)
            -log p(y | x), nats.
        """
        log_density, log_posterior = self._with_classes(self._dequantised(X, generator))
        cross_entropy = -log_posterior.gather(1, y[:, None]).squeeze(1)
        return cross_entropy - log_density, cross_entropy

    def class_log_prob(self, X: Tensor) -> Tensor:
        """Log-likelihood of images given each class, log p(x | k), at the midpoints as `log_prob`.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.

        Returns
        -------
        Tensor of shape (n, n_classes)
            Nats.

        Raises
        ------
        TypeError
            If the model has no classes.
        """
        log_density, log_posterior = self._with_classes(to_unit(X, self._dtype))
        log_share = self._class_prior().class_logits.log_softmax(dim=0)
        return log_density[:, None] + log_posterior - log_share

    def class_posterior(self, X: Tensor) -> Tensor:
        """Probabilities of the classes given images, p(k | x).

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.

        Returns
        -------
        Tensor of shape (n, n_classes)
            Rows sum to one.

        Raises
        ------
        TypeError
            If the model has no classes.
        """
        return self._with_classes(to_unit(X, self._dtype))[1].exp()

    def adapted(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state of a model without classes, for this one: all classes begin with its mode.

        Parameters
        ----------
        state : mapping of str to Tensor
            As ``state_dict()`` returns it; a state of another kind comes back as it is.

        Returns
        -------
        dict of str to Tensor
        """
        state = dict(state)
        start = f"levels.{len(self.levels) - 1}.prior."
        is_unconditional = f"{start}mean" in state and f"{start}class_logits" not in state
        if self.n_classes is None or not is_unconditional:
            return state
        prior = self._class_prior()
        for name in ("mean", "log_scale"):
            shared = state[start + name][:, None, None]
            state[start + name] = shared.expand_as(prior.mean).clone()
        state[f"{start}class_logits"] = torch.zeros_like(prior.class_logits)
        return state

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def _levels(self) -> list[Level]:
        return cast("list[Level]", list(self.levels))

    def _class_prior(self) -> ClassPrior:
        prior = self._levels()[-1].prior
        if not isinstance(prior, ClassPrior):
            raise TypeError("this Glow has no classes; make it with n_classes=K")
        return prior

    def _dequantised(self, X: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = torch.rand(X.shape, generator=generator, dtype=self._dtype, device=X.device)
        return to_unit(X, self._dtype, noise)

    def _with_classes(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Log-likelihoods, (n,), and log-probabilities of the classes, (n, n_classes), nats."""
        prior = self._class_prior()
        latents, contributions = self.encode(y)
        log_density = torch.stack(contributions).sum(dim=0) - y[0].numel() * math.log(N_VALUES)
        return log_density, prior.joint_log_prob(latents[-1]).log_softmax(dim=1)

"""Distributions of a pixel's values, given what the network says about the pixel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from skgradood.gradients.precision import in_float64

# Far narrower than a bin of 256 values and far wider than all of them: exp() stays finite.
_LOG_SCALE_LIMITS = (-7.0, 7.0)


class Categorical:
    """Logits of every value of every channel.

    Parameters
    ----------
    n_channels : int
        C.
    n_values : int
        Values of a channel.
    """

    def __init__(self, n_channels: int, n_values: int) -> None:
        self.n_channels = n_channels
        self.n_values = n_values
        # Each channel has features of its own, which have seen the channels before it.
        self.n_groups = n_channels
        self.n_outputs = n_values * n_channels
        self.output_groups = torch.arange(n_channels).repeat(n_values)
        #: Channels that can be drawn from one pass through the network, in order.
        self.drawn_together = [slice(c, c + 1) for c in range(n_channels)]

    def marginal_outputs(self, X: Tensor) -> Tensor:
        """What the network should say before it knows more than how often values come.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W), uint8

        Returns
        -------
        Tensor of shape (n_outputs,), float64
        """
        values = X.long().transpose(0, 1).flatten(1)
        counts = torch.stack([torch.bincount(v, minlength=self.n_values) for v in values], dim=1)
        # Values that did not come may come: all of them together as often as one that did once.
        return (in_float64(counts) + 1 / self.n_values).log().flatten()

    def log_prob(self, outputs: Tensor, X: Tensor) -> Tensor:
        """Log-probability of every pixel.

        Parameters
        ----------
        outputs : Tensor of shape (n, n_outputs, H, W)
        X : Tensor of shape (n, C, H, W)
            Values 0...n_values - 1.

        Returns
        -------
        Tensor of shape (n, H, W)
            Nats, channels summed.
        """
        return -F.cross_entropy(self._logits(outputs), X.long(), reduction="none").sum(dim=1)

    def draw(self, outputs: Tensor, channels: slice, generator: torch.Generator | None) -> Tensor:
        """Draw channels of every pixel.

        Parameters
        ----------
        outputs : Tensor of shape (n, n_outputs, H, W)
            Of a pass in which the channels before are those that were drawn.
        channels : slice
            One of ``drawn_together``.
        generator : torch.Generator or None
            Source of the draw.

        Returns
        -------
        Tensor of shape (n, channels, H, W), int64
        """
        probabilities = self._logits(outputs)[:, :, channels].movedim(1, -1).softmax(dim=-1)
        drawn = torch.multinomial(probabilities.flatten(0, -2), 1, generator=generator)
        return drawn.reshape(probabilities.shape[:-1])

    def _logits(self, outputs: Tensor) -> Tensor:
        return outputs.unflatten(1, (self.n_values, self.n_channels))


class LogisticMixture:
    """A mixture of logistic distributions, rounded to the values of a channel.

    The components are shared by a pixel's channels. Within one, the mean of a channel depends
    linearly on the values of the channels before it (Salimans et al. 2017, section 2.2). What
    lies below the smallest value or above the largest belongs to that value, so that the
    probabilities of all values sum to one.

    Parameters
    ----------
    n_channels : int
        C.
    n_values : int
        Values of a channel.
    n_components : int
        K.
    """

    def __init__(self, n_channels: int, n_values: int, n_components: int) -> None:
        self.n_channels = n_channels
        self.n_values = n_values
        self.n_components = n_components
        # All channels of a pixel are predicted at once, from other pixels.
        self.n_groups = 1
        n_pairs = n_channels * (n_channels - 1) // 2
        self._sizes = [1, n_channels, n_channels, n_pairs]
        self.n_outputs = n_components * sum(self._sizes)
        self.output_groups = torch.zeros(self.n_outputs, dtype=torch.long)
        self.drawn_together = [slice(0, n_channels)]

    def marginal_outputs(self, X: Tensor) -> Tensor:
        """Components spread over the values that come, as `Categorical.marginal_outputs`."""
        values = self._to_unit(in_float64(X), torch.float64).transpose(0, 1).flatten(1)
        shares = (torch.arange(self.n_components, device=values.device) + 0.5) / self.n_components
        places = (shares * values.shape[1]).long()
        means = values.sort(dim=1).values[:, places].T
        deviations = values.std(dim=1, correction=0).clamp_min(1 / (self.n_values - 1))
        log_scales = deviations.log().expand_as(means)
        rest = [torch.zeros(self.n_components, size, device=values.device) for size in self._sizes]
        return torch.cat([rest[0], means, log_scales, rest[3]], dim=1).flatten()

    def log_prob(self, outputs: Tensor, X: Tensor) -> Tensor:
        """Log-probability of every pixel, as `Categorical.log_prob`."""
        logits, means, log_scales, coefficients = self._parameters(outputs)
        values = self._to_unit(X, outputs.dtype)
        of_components = logits.log_softmax(dim=1)
        for c in range(self.n_channels):
            mean = self._conditional_mean(means, coefficients, values, c)
            value = values[:, c, None]
            scale = log_scales[:, :, c]
            of_components = of_components + self._log_mass(value, mean, scale)
        return of_components.logsumexp(dim=1)

    def draw(self, outputs: Tensor, channels: slice, generator: torch.Generator | None) -> Tensor:
        """Draw all channels of every pixel, as `Categorical.draw`."""
        logits, means, log_scales, coefficients = self._parameters(outputs)
        probabilities = logits.softmax(dim=1).movedim(1, -1)
        flat = torch.multinomial(probabilities.flatten(0, -2), 1, generator=generator)
        component = flat.reshape(probabilities.shape[:-1])[:, None, None]
        chosen = [t.take_along_dim(component, dim=1) for t in (means, log_scales, coefficients)]
        means, log_scales, coefficients = chosen
        drawn = torch.zeros_like(means[:, 0])
        for c in range(self.n_channels):
            mean = self._conditional_mean(means, coefficients, drawn, c)[:, 0]
            uniform = torch.rand(
                mean.shape, generator=generator, dtype=mean.dtype, device=mean.device
            )
            noise = uniform.logit(eps=torch.finfo(mean.dtype).tiny)
            continuous = mean + log_scales[:, 0, c].exp() * noise
            # The next channel's mean depends on the value that is drawn, not on what was rounded.
            drawn[:, c] = self._to_unit(self._from_unit(continuous), mean.dtype)
        return self._from_unit(drawn)

    def _parameters(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (n, K, H, W); means, log-scales, coefficients (n, K, C or pairs, H, W)."""
        parts = outputs.unflatten(1, (self.n_components, -1)).split(self._sizes, dim=2)
        logits, means, log_scales, coefficients = parts
        log_scales = log_scales.clamp(*_LOG_SCALE_LIMITS)
        return logits[:, :, 0], means, log_scales, coefficients.tanh()

    def _conditional_mean(
        self, means: Tensor, coefficients: Tensor, values: Tensor, channel: int
    ) -> Tensor:
        """Means of one channel given the channels before it, (n, K, H, W)."""
        first = channel * (channel - 1) // 2
        mean = means[:, :, channel]
        for earlier in range(channel):
            slope = coefficients[:, :, first + earlier]
            mean = mean + slope * values[:, earlier, None]
        return mean

    def _log_mass(self, value: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        """Log-probability of the bin around a value under one logistic distribution."""
        half_bin = 1 / (self.n_values - 1)
        precision = (-log_scale).exp()
        upper = (value - mean + half_bin) * precision
        lower = (value - mean - half_bin) * precision
        # s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)) holds far out in the tails, too.
        below, above = F.logsigmoid(upper), F.logsigmoid(-lower)
        inner = below + above + torch.log(-torch.expm1(-2 * half_bin * precision))
        is_first, is_last = value < half_bin - 1, value > 1 - half_bin
        return torch.where(is_first, below, torch.where(is_last, above, inner))

    def _to_unit(self, X: Tensor, dtype: torch.dtype) -> Tensor:
        """Values onto [-1, 1]."""
        return X.to(dtype) * (2 / (self.n_values - 1)) - 1

    def _from_unit(self, values: Tensor) -> Tensor:
        """The value whose bin holds a number."""
        rounded = ((values + 1) * ((self.n_values - 1) / 2)).round()
        return rounded.clamp(0, self.n_values - 1).long()

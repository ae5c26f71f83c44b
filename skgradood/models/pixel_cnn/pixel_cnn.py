"""PixelCNN: every pixel predicted from the pixels before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from skgradood.models._options import look_up
from skgradood.models._pixels import N_VALUES, check_image_shape, to_unit
from skgradood.models.pixel_cnn.gated import GatedLayer
from skgradood.models.pixel_cnn.likelihoods import Categorical, LogisticMixture
from skgradood.models.pixel_cnn.masked import MaskedConv2d, channel_groups, pointwise_conv

_LIKELIHOODS: dict[str, Callable[[int, int], Categorical | LogisticMixture]] = {
    "categorical": lambda n_channels, n_components: Categorical(n_channels, N_VALUES),
    "logistic_mixture": lambda n_channels, n_components: LogisticMixture(
        n_channels, N_VALUES, n_components
    ),
}


class PixelCNN(nn.Module):
    """Gated PixelCNN of images of 256 grey values a channel.

    The log-likelihood is exact: log p(x) is the sum over pixels, row by row from the top left, of
    the log-probability of a pixel given those before it; the channels of a pixel follow one
    another in the same way. Sampling runs the network once a pixel.

    Parameters
    ----------
    input_shape : sequence of int
        ``(C, H, W)``.
    likelihood : {"categorical", "logistic_mixture"}, default="categorical"
        Distribution of a value: a probability for each of the 256, where a channel of a pixel sees
        those before it through masks between groups of channels; or a mixture of logistic
        distributions rounded to the 256 values, whose means depend linearly on the channels before.
        The former suits grey values that come in steps, the latter is smaller and knows their
        order.
    width : int, default=48
        Channels of each stack, rounded up to a multiple of C with categorical colours.
    n_layers : int, default=6
        Gated layers after the first.
    kernel_size : int, default=3
        Odd; the first layer has a kernel that is four wider.
    n_components : int, default=5
        Components of the mixture.

    Raises
    ------
    ValueError
        If ``input_shape`` is not that of an image, ``kernel_size`` is even, or for an unknown
        option.

    References
    ----------
    van den Oord et al., "Conditional image generation with PixelCNN decoders", NeurIPS 2016;
    Salimans et al., "PixelCNN++", ICLR 2017.
    """

    input_kind = "image"

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        likelihood: str = "categorical",
        width: int = 48,
        n_layers: int = 6,
        kernel_size: int = 3,
        n_components: int = 5,
    ) -> None:
        super().__init__()
        self.input_shape = check_image_shape(input_shape, smallest=1)
        if kernel_size % 2 == 0 or kernel_size < 1:
            raise ValueError(f"kernel_size must be odd and positive; got {kernel_size}")
        n_channels = self.input_shape[0]
        self.likelihood = likelihood
        self.width = width
        self.n_layers = n_layers
        self.kernel_size = kernel_size
        self.n_components = n_components
        self.distribution = look_up(_LIKELIHOODS, likelihood, "likelihood")(
            n_channels, n_components
        )
        n_groups = self.distribution.n_groups
        width += -width % n_groups
        self.first = GatedLayer(n_channels, width, kernel_size + 4, n_groups=n_groups, first=True)
        self.layers = nn.ModuleList(
            GatedLayer(width, width, kernel_size, n_groups=n_groups, first=False)
            for _ in range(n_layers)
        )
        groups = channel_groups(width, n_groups)
        self.head = nn.Sequential(
            nn.ReLU(),
            pointwise_conv(groups, groups),
            nn.ReLU(),
            pointwise_conv(groups, self.distribution.output_groups),
        )

    @torch.no_grad()
    def initialize(self, X: Tensor) -> None:
        """Start from how often values come in a batch, (n, C, H, W), in place of guessing it."""
        last = cast("MaskedConv2d", self.head[-1])
        cast("Tensor", last.conv.bias).copy_(self.distribution.marginal_outputs(X))

    def log_prob(self, X: Tensor) -> Tensor:
        """Log-likelihood of images.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.

        Returns
        -------
        Tensor of shape (n,)
            Nats.
        """
        return self.log_prob_pixels(X).sum(dim=(1, 2))

    def log_prob_pixels(self, X: Tensor) -> Tensor:
        """Log-probability of every pixel given those before it; sums to `log_prob`.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.

        Returns
        -------
        Tensor of shape (n, H, W)
            Nats.
        """
        return self.distribution.log_prob(self.predict(X), X)

    def predict(self, X: Tensor) -> Tensor:
        """What the network says about every pixel.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.

        Returns
        -------
        Tensor of shape (n, outputs, H, W)
            Parameters of the distribution of each pixel, from the pixels before it.
        """
        above = left = 2 * to_unit(X, next(self.parameters()).dtype)
        above, left = self.first(above, left)
        for layer in self.layers:
            above, left = layer(above, left)
        return self.head(left)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw images from the model, pixel by pixel.

        Parameters
        ----------
        n : int
            How many.
        generator : torch.Generator, optional
            Source of the noise, on the model's device.

        Returns
        -------
        Tensor of shape (n, C, H, W), uint8
        """
        device = next(self.parameters()).device
        X = torch.zeros(n, *self.input_shape, dtype=torch.uint8, device=device)
        for row in range(self.input_shape[1]):
            # Rows beyond the network's reach, and those below, do not matter.
            window = X[:, :, max(0, row - self._reach()) : row + 1]
            for column in range(self.input_shape[2]):
                for channels in self.distribution.drawn_together:
                    outputs = self.predict(window)[:, :, -1:, column : column + 1]
                    drawn = self.distribution.draw(outputs, channels, generator)
                    window[:, channels, -1, column] = drawn[:, :, 0, 0].to(torch.uint8)
        return X

    def _reach(self) -> int:
        """How many rows above a pixel the network sees."""
        return (self.kernel_size + 4) // 2 + self.n_layers * (self.kernel_size // 2)

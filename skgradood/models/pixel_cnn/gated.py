"""The gated layer of two stacks."""

from __future__ import annotations

from torch import Tensor, nn

from skgradood.models.pixel_cnn.masked import (
    channel_groups,
    horizontal_conv,
    pointwise_conv,
    vertical_conv,
)


class GatedLayer(nn.Module):
    """One layer of the vertical and the horizontal stack.

    The vertical stack holds what lies in the rows above, the horizontal one what lies to the
    left; since the former feeds the latter, together they see every earlier pixel, without a
    blind spot (van den Oord et al. 2016, figure 2).

    Parameters
    ----------
    n_in : int
        Channels of both stacks before the layer.
    width : int
        Channels of both stacks after it.
    kernel_size : int
        Odd.
    n_groups : int
        Into how many groups the channels are divided, one for each colour that they predict; 1
        where all colours of a pixel are predicted at once.
    first : bool
        Whether this layer reads the image, in which a pixel must not see itself.
    """

    def __init__(
        self, n_in: int, width: int, kernel_size: int, *, n_groups: int, first: bool
    ) -> None:
        super().__init__()
        groups = channel_groups(width, n_groups)
        gates = groups.repeat(2)
        inputs = channel_groups(n_in, n_groups)
        self.vertical = vertical_conv(n_in, 2 * width, kernel_size, first=first)
        self.horizontal = horizontal_conv(inputs, gates, kernel_size, first=first)
        # The rows above may tell every group everything.
        self.vertical_to_horizontal = nn.Conv2d(2 * width, 2 * width, 1)
        self.output = pointwise_conv(groups, groups)
        self.is_residual = not first

    def forward(self, above: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """Both stacks, (n, channels, H, W) each, one layer on."""
        vertical = self.vertical(above)
        horizontal = self.horizontal(left) + self.vertical_to_horizontal(vertical)
        out = self.output(_gate(horizontal))
        return _gate(vertical), left + out if self.is_residual else out


def _gate(x: Tensor) -> Tensor:
    """``tanh(a) * sigmoid(b)`` of the two halves of the channels."""
    content, gate = x.chunk(2, dim=1)
    return content.tanh() * gate.sigmoid()

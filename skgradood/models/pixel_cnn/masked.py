"""Convolutions that see earlier pixels only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def channel_groups(n_channels: int, n_groups: int) -> Tensor:
    """The group of every channel, (n_channels,): equal shares, in order."""
    return torch.arange(n_channels) * n_groups // n_channels


def group_mask(groups_in: Tensor, groups_out: Tensor, *, strict: bool) -> Tensor:
    """Which input channel an output channel may see: those of earlier groups, or its own too.

    Parameters
    ----------
    groups_in, groups_out : Tensor of shape (channels,)
        The group of every channel: the colour that it may speak about.
    strict : bool
        Whether an output channel must not see its own group.

    Returns
    -------
    Tensor of shape (channels out, channels in), bool
    """
    seen, seeing = groups_in[None, :], groups_out[:, None]
    return seen < seeing if strict else seen <= seeing


class MaskedConv2d(nn.Module):
    """A convolution whose masked taps do not exist: they see nothing and have no gradient.

    The mask multiplies the weight in every forward pass. Setting masked weights to zero through
    ``weight.data`` instead leaves their gradients, which then count in every norm of a score.
    The input is padded at its top and on both sides, or on the left only, so that the output has
    its size and lies with the last row and column of the kernel's reach.

    Parameters
    ----------
    mask : Tensor of shape (channels out, channels in, kernel height, kernel width)
        True where there is a tap.
    padding : tuple of int
        Left, right, top.
    """

    mask: Tensor | None

    def __init__(self, mask: Tensor, padding: tuple[int, int, int] = (0, 0, 0)) -> None:
        super().__init__()
        n_out, n_in, height, width = mask.shape
        self.conv = nn.Conv2d(n_in, n_out, (height, width))
        self.padding = (*padding, 0)
        # Without a mask the weight meets the data itself, which spares engines a detour.
        values = None if mask.all() else mask.to(self.conv.weight.dtype)
        self.register_buffer("mask", values, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x``, (n, channels in, H, W) to (n, channels out, H, W)."""
        weight = self.conv.weight if self.mask is None else self.conv.weight * self.mask
        return F.conv2d(F.pad(x, self.padding), weight, self.conv.bias)


def vertical_conv(n_in: int, n_out: int, kernel_size: int, *, first: bool) -> MaskedConv2d:
    """A convolution over the rows above; later ones see the features of their own row as well.

    Those features know nothing of the row itself, since the first convolution does not see it.
    """
    reach = kernel_size // 2
    mask = torch.ones(n_out, n_in, reach + 1, kernel_size, dtype=torch.bool)
    if first:
        mask[:, :, -1] = False
    return MaskedConv2d(mask, (reach, reach, reach))


def horizontal_conv(
    groups_in: Tensor, groups_out: Tensor, kernel_size: int, *, first: bool
) -> MaskedConv2d:
    """A convolution over the pixels to the left, and earlier channels of the pixel itself."""
    reach = kernel_size // 2
    mask = torch.ones(len(groups_out), len(groups_in), 1, reach + 1, dtype=torch.bool)
    mask[:, :, 0, -1] = group_mask(groups_in, groups_out, strict=first)
    return MaskedConv2d(mask, (reach, 0, 0))


def pointwise_conv(groups_in: Tensor, groups_out: Tensor) -> MaskedConv2d:
    """A 1x1 convolution in which channels see their own group and earlier ones."""
    return MaskedConv2d(group_mask(groups_in, groups_out, strict=False)[:, :, None, None])

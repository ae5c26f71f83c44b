"""Models of usual sizes for the speed benchmark, with random weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skgradood.models import VAE, Glow, RealNVP


@dataclass(frozen=True)
class Entry:
    """A model, and what a batch of n samples for it looks like."""

    make: Callable[[], nn.Module]
    batch: Callable[[int], Tensor]


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_in, H, W) to (n, n_out, H / stride, W / stride)."""
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(h)) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 for images of 32 x 32; log p of the predicted class stands in for a density."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()
        ]  # fmt: skip
        n_in = 64
        for n_out, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [ResidualBlock(n_in, n_out, stride), ResidualBlock(n_out, n_out, 1)]
            n_in = n_out
        self.body = nn.Sequential(*blocks)
        self.head = nn.Linear(512, 10)

    def log_prob(self, X: Tensor) -> Tensor:
        """(n, 3, 32, 32) to (n,)."""
        return self.head(self.body(X).mean((2, 3))).log_softmax(1).amax(1)


class UNet(nn.Module):
    """Three levels with skips and group norm; the squared error of a denoiser as likelihood."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        widths = (width, 2 * width, 2 * width)
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        n_in = width
        for n_out in widths:
            self.down.append(self._block(n_in, n_out))
            n_in = n_out
        for n_skip, n_out in zip(reversed(widths), (2 * width, width, width), strict=True):
            self.up.append(self._block(n_in + n_skip, n_out))
            n_in = n_out
        self.last = nn.Conv2d(n_in, 3, 3, padding=1)

    @staticmethod
    def _block(n_in: int, n_out: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, padding=1), nn.GroupNorm(8, n_out), nn.SiLU(),
            nn.Conv2d(n_out, n_out, 3, padding=1), nn.GroupNorm(8, n_out), nn.SiLU(),
        )  # fmt: skip

    def log_prob(self, X: Tensor) -> Tensor:
        """(n, 3, 32, 32) to (n,)."""
        h, skips = self.first(X), []
        for block in self.down:
            h = block(h)
            skips.append(h)
            h = F.avg_pool2d(h, 2)
        for block in self.up:
            h = F.interpolate(h, scale_factor=2.0)
            h = block(torch.cat([h, skips.pop()], 1))
        return -(self.last(h) - X).square().sum((1, 2, 3))


class CausalTransformer(nn.Module):
    """Six layers of 256, 8 heads, over 64 tokens; embeddings tied to the head."""

    def __init__(self, size: int = 256, width: int = 256, n_layers: int = 6) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size, width)
        self.positions = nn.Parameter(0.02 * torch.randn(64, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 8, 4 * width, batch_first=True, norm_first=True)
            for _ in range(n_layers)
        )

    def log_prob(self, X: Tensor) -> Tensor:
        """Rows of tokens (n, 64) to (n,)."""
        mask = nn.Transformer.generate_square_subsequent_mask(X.shape[1], device=X.device)
        h = self.tokens(X) + self.positions[: X.shape[1]]
        for layer in self.layers:
            h = layer(h, src_mask=mask, is_causal=True)
        return self._log_likelihood(h, X)

    def _log_likelihood(self, h: Tensor, X: Tensor) -> Tensor:
        logits = F.linear(h, self.tokens.weight).log_softmax(-1)[:, :-1]
        return logits.gather(-1, X[:, 1:, None]).sum((1, 2))


class ExpertLayer(nn.Module):
    """Attention whose projections are einsums over heads, then two of eight experts a position."""

    def __init__(self, width: int, n_heads: int = 8, n_experts: int = 8) -> None:
        super().__init__()
        size, hidden = width // n_heads, 2 * width
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.projections = nn.Parameter(torch.randn(3, width, n_heads, size) / math.sqrt(width))
        self.joined = nn.Parameter(torch.randn(n_heads, size, width) / math.sqrt(width))
        self.router = nn.Linear(width, n_experts)
        self.up = nn.Parameter(torch.randn(n_experts, hidden, width) / math.sqrt(width))
        self.down = nn.Parameter(torch.randn(n_experts, width, hidden) / math.sqrt(hidden))

    def forward(self, x: Tensor) -> Tensor:
        """(n, positions, width) to the same."""
        h = self.norm1(x)
        q, k, v = (torch.einsum("btw,whd->bhtd", h, p) for p in self.projections)
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + torch.einsum("bhtd,hdw->btw", h, self.joined)
        return x + self._by_experts(self.norm2(x).flatten(0, 1)).view_as(x)

    def _by_experts(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(2, -1)
        out = torch.zeros_like(x)
        for k in range(len(self.up)):
            rows, places = torch.where(chosen == k)
            h = F.linear(F.gelu(F.linear(x[rows], self.up[k])), self.down[k])
            out.index_add_(0, rows, h * weights[rows, places, None])
        return out


class ExpertTransformer(CausalTransformer):
    """Four layers of 256 with 8 heads and 8 experts of 512 units, over 64 tokens."""

    def __init__(self, size: int = 256, width: int = 256, n_layers: int = 4) -> None:
        super().__init__(size, width, 0)
        self.layers = nn.ModuleList(ExpertLayer(width) for _ in range(n_layers))

    def log_prob(self, X: Tensor) -> Tensor:
        """Rows of tokens (n, 64) to (n,)."""
        h = self.tokens(X) + self.positions[: X.shape[1]]
        for layer in self.layers:
            h = layer(h)
        return self._log_likelihood(h, X)


class GatedLayer(nn.Module):
    """Two stacks of gated causal convolutions: rows above, and what is left in the row.

    Shifted convolutions instead of masked ones (Salimans et al., ICLR 2017), gated and joined as
    in van den Oord et al. (NeurIPS 2016).
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, *, first: bool) -> None:
        super().__init__()
        half = kernel // 2
        # Only the first layer leaves out the row, and the pixel, that it stands at.
        reach = half + 1 if first else half
        self.pads = ((half, half, reach, 0), (reach, 0, 0, 0))
        self.first = first
        self.above = nn.Conv2d(n_in, 2 * n_out, (half + 1, kernel))
        self.left = nn.Conv2d(n_in, 2 * n_out, (1, half + 1))
        self.join = nn.Conv2d(2 * n_out, 2 * n_out, 1)
        self.out = nn.Conv2d(n_out, n_out, 1)

    def forward(self, above: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """Both stacks, (n, n_in, H, W) to (n, n_out, H, W)."""
        height, width = left.shape[2:]
        new_above = self.above(F.pad(above, self.pads[0]))[:, :, :height]
        new_left = self.left(F.pad(left, self.pads[1]))[..., :width] + self.join(new_above)
        new_left = self.out(F.glu(new_left, 1))
        return F.glu(new_above, 1), new_left if self.first else left + new_left


class GatedPixelCNN(nn.Module):
    """Seven gated layers of 64 over 28 x 28 grey pixels, and a softmax over 256 values."""

    def __init__(self, width: int = 64, n_layers: int = 7) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            GatedLayer(1 if k == 0 else width, width, 7 if k == 0 else 3, first=k == 0)
            for k in range(n_layers)
        )
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, 256, 1)
        )

    def log_prob(self, X: Tensor) -> Tensor:
        """(n, 1, 28, 28) of 0 to 255 to (n,)."""
        above = left = X / 127.5 - 1
        for layer in self.layers:
            above, left = layer(above, left)
        return -F.cross_entropy(self.head(left), X[:, 0].long(), reduction="none").sum((1, 2))


class RowMLP(nn.Module):
    """An autoencoder of rows with 256 units."""

    def __init__(self, d: int = 32, width: int = 256) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(d, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, d),
        )  # fmt: skip

    def log_prob(self, X: Tensor) -> Tensor:
        """(n, d) to (n,)."""
        return -0.5 * (X - self.net(X)).square().sum(1)


class RecurrentModel(nn.Module):
    """A GRU cell of 256 units that predicts each of 50 steps from those before."""

    def __init__(self, d: int = 32, width: int = 256) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(d, width), nn.Linear(width, d)

    def log_prob(self, X: Tensor) -> Tensor:
        """(n, 50, d) to (n,)."""
        state = X.new_zeros(len(X), self.cell.hidden_size)
        steps = []
        for x in X.unbind(1):
            steps.append(x - self.head(state))
            state = self.cell(x, state)
        return -0.5 * torch.stack(steps, 1).square().sum((1, 2))


def _pixels(*shape: int) -> Callable[[int], Tensor]:
    return lambda n: torch.randint(0, 256, (n, *shape), dtype=torch.uint8)


def _glow(n_steps: int, n_levels: int, hidden: int, *shape: int) -> nn.Module:
    glow = Glow(input_shape=shape, n_levels=n_levels, n_steps=n_steps, hidden_channels=hidden)
    glow.initialize(_pixels(*shape)(64))
    return _without_zeros(glow)


@torch.no_grad()
def _without_zeros(module: nn.Module) -> nn.Module:
    """Small numbers for parameters that are zero until they are trained.

    No gradient passes the last convolution of an untrained coupling, and zeros cost less than
    numbers.
    """
    for parameter in module.parameters():
        if not parameter.any():
            parameter.normal_(std=0.01 / math.sqrt(parameter[0].numel()))
    return module


ZOO = {
    "VAE": Entry(lambda: VAE(input_shape=(1, 32, 32)), _pixels(1, 32, 32)),
    "Glow": Entry(lambda: _glow(16, 2, 200, 1, 28, 28), _pixels(1, 28, 28)),
    "PixelCNN": Entry(GatedPixelCNN, _pixels(1, 28, 28)),
    "ResNet-18": Entry(ResNet18, lambda n: torch.randn(n, 3, 32, 32)),
    "U-Net": Entry(UNet, lambda n: torch.randn(n, 3, 32, 32)),
    "transformer": Entry(CausalTransformer, lambda n: torch.randint(0, 256, (n, 64))),
    "experts": Entry(ExpertTransformer, lambda n: torch.randint(0, 256, (n, 64))),
    "row MLP": Entry(RowMLP, lambda n: torch.randn(n, 32)),
    "row flow": Entry(
        lambda: _without_zeros(RealNVP(input_shape=(8,))), lambda n: torch.randn(n, 8)
    ),
    "GRU cell": Entry(RecurrentModel, lambda n: torch.randn(n, 50, 32)),
}

# For machines with time, or a GPU.
LARGE = {
    "Glow, large": Entry(lambda: _glow(32, 3, 512, 3, 32, 32), _pixels(3, 32, 32)),
    # The sizes of GPT-2.
    "transformer, large": Entry(
        lambda: CausalTransformer(50257, 768, 12), lambda n: torch.randint(0, 50257, (n, 64))
    ),
}

"""Image classifiers as their papers describe them, narrow, in plain torch.

torchvision cannot be installed everywhere; these follow the same descriptions, layer by layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut (He et al. 2016, figure 5; stride in the
    3x3 convolution)."""

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        n_out = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(n_in, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, n_out, 1, bias=False), nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += shortcut
        return self.relu(out)


class ResNet50(nn.Module):
    """3, 4, 6 and 3 bottlenecks (He et al. 2016, table 1)."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4 * width, 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(4 * width), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        n_in = 4 * width
        for stage, depth in enumerate((3, 4, 6, 3), 1):
            own = width * 2 ** (stage - 1)
            blocks = []
            for k in range(depth):
                blocks.append(Bottleneck(n_in, own, 2 if k == 0 and stage > 1 else 1))
                n_in = 4 * own
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(n_in, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class LayerNorm2d(nn.LayerNorm):
    """A norm over the channels of an image."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = nn.functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """7x7 depthwise convolution, norm, inverted bottleneck, layer scale (Liu et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.expand, self.reduce = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.layer_scale = nn.Parameter(torch.full((width, 1, 1), 1e-1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.reduce(nn.functional.gelu(self.expand(y))).permute(0, 3, 1, 2)
        return x + self.layer_scale * y


class ConvNeXt(nn.Module):
    """A patchify stem, two stages and the downsampling between them."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=4),
            LayerNorm2d(width, eps=1e-6),
            ConvNeXtBlock(width),
            ConvNeXtBlock(width),
            LayerNorm2d(width, eps=1e-6),
            nn.Conv2d(width, 2 * width, 2, stride=2),
            ConvNeXtBlock(2 * width),
        )
        self.norm, self.head = nn.LayerNorm(2 * width), nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.features(x).mean((-2, -1))))


class EncoderBlock(nn.Module):
    """Attention and a perceptron, each after a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        y, _ = self.attention(y, y, y, need_weights=False)
        x = self.dropout(y) + x
        return x + self.mlp(self.ln_2(x))


class ViT(nn.Module):
    """Patches, a class token, learned positions (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int = 12, heads: int = 3, patch: int = 8, side: int = 32) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, (side // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(2)))
        self.ln, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_proj(x).reshape(len(x), self.class_token.shape[-1], -1).permute(0, 2, 1)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1) + self.positions
        return self.head(self.ln(self.blocks(x))[:, 0])


class SqueezeExcitation(nn.Module):
    """Channels weighted by a bottleneck of their means (Hu et al. 2018)."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.fc2(nn.functional.silu(self.fc1(self.avgpool(x))))
        return torch.sigmoid(scale) * x


class MBConv(nn.Module):
    """Expansion, depthwise convolution, squeeze-excitation, projection (Tan and Le 2019)."""

    def __init__(self, n_in: int, n_out: int, *, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = n_in * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += self._unit(n_in, hidden, 1)
        layers += self._unit(hidden, hidden, kernel, stride, groups=hidden)
        layers += [SqueezeExcitation(hidden, max(1, n_in // 4))]
        layers += self._unit(hidden, n_out, 1)[:2]
        self.block, self.residual = nn.Sequential(*layers), stride == 1 and n_in == n_out

    @staticmethod
    def _unit(
        n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> list[nn.Module]:
        return [
            nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(n_out),
            nn.SiLU(inplace=True),
        ]

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        if self.residual:
            y += x
        return y


class EfficientNet(nn.Module):
    """The first stages of B0, narrow, with its head."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *MBConv._unit(3, width, 3, 2),
            MBConv(width, width, expansion=1, kernel=3, stride=1),
            MBConv(width, 2 * width, expansion=6, kernel=3, stride=2),
            MBConv(2 * width, 2 * width, expansion=6, kernel=3, stride=1),
            MBConv(2 * width, 3 * width, expansion=6, kernel=5, stride=2),
            *MBConv._unit(3 * width, 6 * width, 1),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(6 * width, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))

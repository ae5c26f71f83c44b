"""Modules that pick parameters by the data, or meet them where no gradient is kept."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class NearestCode(nn.Module):
    """The nearest of some codes, found without gradients, or picked by a product with ones."""

    def __init__(self, d: int, *, by: str) -> None:
        super().__init__()
        self.encoder, self.codes, self.by = nn.Linear(d, 3), nn.Embedding(6, 3), by

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x)
        if self.by == "look-up":
            with torch.no_grad():
                nearest = torch.cdist(h, self.codes.weight).argmin(1)
            code = self.codes(nearest)
        else:
            nearest = torch.cdist(h, self.codes.weight.detach()).argmin(1, keepdim=True)
            ones = torch.zeros(len(h), 6, dtype=h.dtype, device=h.device)
            ones.scatter_(1, nearest, 1.0)
            code = ones @ self.codes.weight
        return torch.cat([code - h.detach(), h - code.detach()], 1)


class FixedPoint(nn.Module):
    """An equilibrium that is looked for without gradients, and one step with them."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.step = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            state = torch.zeros_like(x)
            for _ in range(5):
                state = torch.tanh(0.3 * self.step(state) + x)
        return torch.tanh(0.3 * self.step(state) + x)


class Binned(nn.Module):
    """Embeddings of bins that NumPy finds."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.linear, self.embedding = nn.Linear(d, d), nn.Embedding(4, d)

    def forward(self, x: Tensor) -> Tensor:
        bins = np.digitize(x[:, 0].cpu().numpy(), [-1.0, 0.0, 1.0])
        return self.linear(x) + self.embedding(torch.as_tensor(bins, device=x.device))

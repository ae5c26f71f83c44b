"""Modules that use parameters in unusual ways, for the case dictionary."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def randomise(module: nn.Module, scale: float = 1.0) -> None:
    """Fill parameters and statistics from a fixed seed: zero initialisations hide errors."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "parametrizations" in name and "original" in name and parameter.ndim == 2:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(noise)
                continue
            fan_in = max(1, parameter.shape[1:].numel()) if parameter.ndim > 1 else 4
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((scale * noise / math.sqrt(fan_in)).to(parameter.dtype))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)


class SelfBilinear(nn.Module):
    def __init__(self, d: int, out: int) -> None:
        super().__init__()
        self.form = nn.Bilinear(d, d, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.form(x, x.sin())


class CausalTokens(nn.Module):
    """A causal model of token rows: cumulative means of embeddings predict the next token."""

    def __init__(
        self, size: int, width: int, *, tied: bool = False, padding_idx: int | None = None
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size, width, padding_idx=padding_idx)
        self.positions = nn.Embedding(16, width)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, size, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def log_prob(self, X: Tensor) -> Tensor:
        h = self.tokens(X) + self.positions(torch.arange(X.shape[1], device=X.device))
        counts = torch.arange(1, X.shape[1] + 1, dtype=h.dtype, device=h.device)[:, None]
        logits = self.head(torch.tanh(self.mix(h.cumsum(1) / counts)))
        picked = logits.log_softmax(-1)[:, :-1].gather(-1, X[:, 1:, None])
        return picked.squeeze(-1).sum(1)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, *, batch_first: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=batch_first)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class SequenceFirstAttention(nn.Module):
    """The batch is the second dimension while parameters act."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(0, 1)
        return self.attention(y, y, y)[0].transpose(0, 1)


class Spread(nn.Module):
    """Parameters that have a slice for every row before they meet data, all of them the same."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(d))
        self.shift = nn.Parameter(torch.zeros(1, d))
        self.level, self.gap = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(1))

    def log_prob(self, x: Tensor) -> Tensor:
        n, ones = len(x), torch.ones(len(x), dtype=x.dtype, device=x.device)
        log_determinant = x.new_zeros(n) + torch.linalg.slogdet(self.weight).logabsdet
        level = self.level.expand(n) - ones
        shift = torch.zeros(n, 1, dtype=x.dtype, device=x.device) + self.shift
        columns = (ones + self.gap)[None].expand(x.shape[1], n)  # the rows lie in the second
        y = x @ self.weight + shift
        y = y * columns.T + (ones - self.gap)[:, None]  # what is subtracted is not the same
        return log_determinant + level * y[:, 0] - y.square().sum(1)


class ClassToken(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(4, width))
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.positions
        return torch.tanh(self.layer(tokens))[:, 0]


class Twice(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x)))


class FunctionalChild(nn.Module):
    """The child's forward never runs, so hooks on it see nothing."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.child = nn.Linear(d_in, d_out)

    def forward(self, x: Tensor) -> Tensor:
        h = F.linear(x, self.child.weight, self.child.bias)
        return torch.tanh(h) @ self.child.weight


class MaskedLinear(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(d, d))
        self.log_scale = nn.Parameter(torch.zeros(d))
        self.register_buffer("mask", torch.ones(d, d).tril(-1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.mask * self.weight) * torch.exp(self.log_scale) + x


class MatrixProducts(nn.Module):
    """matmul from either side, vectors, batches of matrices, addmm."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.zeros(4, 3))
        self.right = nn.Parameter(torch.zeros(d, 4))
        self.vector = nn.Parameter(torch.zeros(4))
        self.heads = nn.Parameter(torch.zeros(2, d, 4))
        self.bias = nn.Parameter(torch.zeros(4))
        self.square = nn.Parameter(torch.zeros(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        a = torch.matmul(self.left, x) @ self.right
        b = (x @ self.right) @ self.vector
        c = (x[:, None] @ self.heads).tanh().sum((1, 2))
        d = torch.addmm(self.bias, c, self.square, beta=0.5, alpha=2.0)
        return torch.cat([a.flatten(1), b, d], 1)


class Einsum(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.core = nn.Parameter(torch.zeros(3, d, 2))
        self.table = nn.Parameter(torch.zeros(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.einsum("ntd,tdk->nk", x, self.core)
        return torch.einsum("nk,kj->nj", h.tanh(), self.table)


class ElementwiseZoo(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(d))
        self.b = nn.Parameter(torch.zeros(3, 1))
        self.c = nn.Parameter(torch.zeros(()))
        self.e = nn.Parameter(torch.zeros(3, d))

    def forward(self, x: Tensor) -> Tensor:
        y = 1.5 - self.a * x
        y = torch.maximum(y, self.b) + self.c / (1.1 + x.square())
        y = torch.where(x > 0, y, self.e)
        y = torch.addcmul(y, self.a, x, value=0.3)
        y = torch.lerp(y, self.e, x.sigmoid())
        y *= self.b.exp()
        y += self.c
        y -= y.mean((1, 2), keepdim=True)
        return torch.logaddexp(y, self.a) * (2.0**self.c) + (self.c - x) ** 2


class InitialState(nn.Module):
    """A recurrence from a constant state, so that parameters first meet constants of n rows."""

    def __init__(self, d: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(d, width)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), self.width, dtype=x.dtype, device=x.device)
        for t in range(x.shape[1]):
            h = torch.tanh(self.inner(h) + self.outer(x[:, t]))
        return h


class Assignment(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.first = nn.Linear(d // 2, d // 2)
        self.rest = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        out = torch.zeros_like(x)
        out[:, :half] = self.first(x[:, half:])
        out[:, -1] = self.rest
        return out


class InPlaceResidual(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.layer = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        h += self.layer(x.tanh())
        return h.mul_(0.5).clamp_(-3, 3)


class WithUnused(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.used = nn.Linear(d, 2)
        self.unused = nn.Linear(d, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)
        return self.used(x)


class WithoutElements(nn.Module):
    """A linear map, and one through a layer of no units, of which only the bias has elements."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.d = d
        self.plain = nn.Linear(d, 3)
        self.to_nothing = nn.Parameter(torch.zeros(0, d))
        self.at_nothing = nn.Parameter(torch.zeros(0))
        self.from_nothing = nn.Parameter(torch.zeros(3, 0))
        self.bias = nn.Parameter(torch.zeros(3))
        self.unused = nn.Parameter(torch.zeros(4, 0, 2))

    def forward(self, x: Tensor) -> Tensor:
        nothing = F.linear(x, self.to_nothing, self.at_nothing).tanh()
        return self.plain(x).sin() + F.linear(nothing, self.from_nothing, self.bias)


class MovingBatch(nn.Module):
    """The samples move through the dimensions by every kind of reshaping."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.a = nn.Linear(d, d)
        self.b = nn.Parameter(torch.zeros(d))
        self.c = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x.permute(1, 0, 2))
        y = y.flatten(0, 1) * self.b
        y = y.reshape(x.shape[1], len(x), -1).movedim(1, 0)
        y = self.c(y.mT.contiguous()).mT
        halves = torch.cat([part + self.b[: part.shape[-1]] for part in y.chunk(2, -1)], -1)
        return torch.stack([halves, y], 1).flatten(2)


class Windows(nn.Module):
    """Windows folded into the batch dimension, as in windowed attention."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.layer = nn.Linear(d, d)
        self.conv = nn.Conv1d(d, 2, 2)
        self.scale = nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        windows = x.reshape(n * 2, t // 2, d)
        y = torch.tanh(self.layer(windows)) * self.scale
        y = self.conv(y.mT)
        return y.reshape(n, -1)


class Mixture(nn.Module):
    """Mixture of diagonal Gaussians by torch.distributions."""

    def __init__(self, k: int, d: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(k))
        self.means = nn.Parameter(torch.zeros(k, d))
        self.log_scales = nn.Parameter(torch.zeros(k, d))

    def log_prob(self, X: Tensor) -> Tensor:
        normal = torch.distributions.Normal(self.means, self.log_scales.exp())
        components = normal.log_prob(X[:, None]).sum(-1)
        return torch.logsumexp(components + self.logits.log_softmax(0), 1)


class LogDeterminantOnly(nn.Module):
    """One matrix enters through its determinant alone, the other through both paths."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.volume = nn.Parameter(torch.eye(d))
        self.shift = nn.Parameter(torch.zeros(d))

    def log_prob(self, X: Tensor) -> Tensor:
        determinant = torch.linalg.slogdet(self.volume)[1]
        return determinant - 0.5 * (X - self.shift).square().sum(1)


class LinearFlow(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(d))

    def log_prob(self, X: Tensor) -> Tensor:
        z = X @ self.matrix.T
        d = X.shape[1]
        normal = -0.5 * z.square().sum(1) - 0.5 * d * math.log(2 * math.pi)
        return normal + torch.slogdet(self.matrix)[1]


class Constant(nn.Module):
    """A log-likelihood that the data do not enter."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(d))

    def log_prob(self, X: Tensor) -> Tensor:
        return self.a.sin().sum().expand(len(X))


class Noisy(nn.Module):
    """Draws noise in its log-likelihood, from the generator it is given or the global one."""

    def __init__(self, d: int, *, explicit: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(d, d)
        self.explicit = explicit

    def log_prob(self, X: Tensor, generator: torch.Generator | None = None) -> Tensor:
        chosen = generator if self.explicit else None
        noise = torch.randn(X.shape, generator=chosen, dtype=X.dtype, device=X.device)
        noise = noise + torch.rand(len(X), 1, generator=chosen, dtype=X.dtype, device=X.device)
        return -self.layer(X + noise).square().sum(1)


def partly_frozen() -> nn.Module:
    """A bias, and a whole first layer, without gradients."""
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
    for parameter in (*net[0].parameters(), net[2].bias, net[4].weight):
        parameter.requires_grad_(False)
    return net


class Keeping(nn.Module):
    """Leaves what a pass computed in attributes, the weight as weight normalisation does."""

    input_kind = "continuous"

    def __init__(self, d: int = 3) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.randn(2, d))
        self.length = nn.Parameter(torch.ones(2))

    def log_prob(self, X: Tensor) -> Tensor:
        self.weight = self.length[:, None] * F.normalize(self.direction, dim=1)
        outputs = F.linear(X, self.weight).tanh()
        self.seen = {"outputs": [outputs], "weight": self.weight}
        return -X.square().sum(1) / 2 + outputs.sum(1)

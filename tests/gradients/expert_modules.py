"""Mixtures of experts: each position of a sample goes to some of several small networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Experts(nn.Module):
    """Two experts of four for every position, in one of the ways in which they are written.

    Parameters
    ----------
    d : int
        Features.
    by : str
        The name of a method below.
    """

    n_experts, n_chosen = 4, 2

    def __init__(self, d: int, by: str) -> None:
        super().__init__()
        self.by = by
        self.router = nn.Linear(d, self.n_experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(d, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, d))
            for _ in range(self.n_experts)
        )
        self.up = nn.Parameter(torch.zeros(self.n_experts, 8, d))
        self.down = nn.Parameter(torch.zeros(self.n_experts, d, 8))
        self.shift = nn.Parameter(torch.zeros(self.n_experts, d))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)
        weights, chosen = self.router(flat).softmax(-1).topk(self.n_chosen, -1)
        return getattr(self, self.by)(flat, weights, chosen).view_as(x) + x

    def masks(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            mask = (chosen == k).any(-1)
            weight = (weights * (chosen == k)).sum(-1)
            out[mask] = out[mask] + expert(x[mask]) * weight[mask].unsqueeze(-1)
        return out

    def first_by_masks(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        out = torch.zeros(x.shape, dtype=x.dtype, device=x.device)
        for k, expert in enumerate(self.experts):
            mask = chosen[:, 0] == k
            if mask.any():
                out[mask] = expert(x[mask])
        return out * weights[:, :1]

    def positions(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            rows, places = torch.where(chosen == k)
            out[rows] += weights[rows, places, None] * expert(x[rows])
        return out

    def sums(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Only of the experts that anyone in the batch has chosen."""
        out = torch.zeros(x.shape, dtype=x.dtype, device=x.device)
        mask = F.one_hot(chosen, self.n_experts).permute(2, 1, 0)
        for k in torch.greater(mask.sum((-1, -2)), 0).nonzero():
            places, rows = torch.where(mask[k[0]])
            h = F.linear(x[rows], self.up[k[0]]).tanh() @ self.down[k[0]].mT
            h = (h + self.shift[k[0]]) * weights[rows, places].unsqueeze(1)
            out.index_add_(0, rows, h)
        return out

    def scatters(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            rows = (chosen == k).any(-1).nonzero().squeeze(-1)
            picked = x.index_select(0, rows)
            out = out.scatter_add(0, rows[:, None].expand_as(picked), expert(picked))
        return out * weights.sum(-1, keepdim=True)

    def sorted_rows(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """All rows of one expert after those of another."""
        order = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=self.n_experts).tolist()
        parts = x[order // self.n_chosen].split(counts)
        h = torch.cat([e(part) for e, part in zip(self.experts, parts, strict=True)])
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        h = (h * weights.flatten()[order, None])[back]
        return h.view(len(x), self.n_chosen, -1).sum(1)

    def sorted_values(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """The same with matrices in stacks, and shifts that the sorted experts pick."""
        experts, order = chosen.flatten().sort(stable=True)
        ends = experts.bincount(minlength=self.n_experts).cumsum(0)
        rows, matrices = x[order // self.n_chosen], self.up.mT
        if x.dtype == torch.float32:  # of double precision torch has none
            h = F.grouped_mm(rows, matrices, offs=ends.int())
        else:
            runs = rows.tensor_split(ends[:-1].tolist())
            h = torch.cat([run @ matrices[k] for k, run in enumerate(runs)])
        h = torch.einsum("nf,nof->no", h.tanh(), self.down[experts]) + self.shift[experts]
        out = torch.zeros_like(x)
        return out.index_add(0, order // self.n_chosen, h * weights.flatten()[order].unsqueeze(-1))


WAYS = (
    *("masks", "first_by_masks", "positions", "sums", "scatters", "sorted_rows"),
    "sorted_values",
)


class ImageExperts(nn.Module):
    """Every image goes to one of three convolutions; those of the last share its filters."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Tanh())
            for _ in range(3)
        )
        self.scale = nn.Parameter(torch.zeros(3, 4, 1, 1))
        self.table = nn.Embedding(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        chosen = (x[:, 0, 0, 0] > 0).long() + (x[:, 1, 1, 1] > 0).long()
        out = torch.zeros(len(x), 4, 5, 5, dtype=x.dtype, device=x.device)
        for k, expert in enumerate(self.experts):
            mask = chosen == k
            out[mask] = expert(x[mask]) * self.scale[k] + self.table(chosen[mask])[..., None, None]
        return out


class SequenceExperts(nn.Module):
    """Every sequence goes to one of two recurrent networks."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.GRU(d, 3, batch_first=True) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(*x.shape[:2], 3, dtype=x.dtype, device=x.device)
        for k, expert in enumerate(self.experts):
            mask = (x[:, 0, 0] > 0) == bool(k)
            if mask.any():
                out[mask] = expert(x[mask])[0]
        return out


class Stacked(nn.Module):
    """Layers that are slices of one tensor, transposed, or cut from a wide one."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(2, d, d))
        self.biases = nn.Parameter(torch.zeros(d, 2))
        self.wide = nn.Parameter(torch.zeros(d, 3 * d))
        self.kernel = nn.Parameter(torch.zeros(3, d, d))

    def forward(self, x: Tensor) -> Tensor:
        for weight, bias in zip(self.weights, self.biases.unbind(1), strict=True):
            x = F.linear(x, weight, bias).tanh() @ weight.T
        queries, keys, values = (x @ part for part in self.wide.chunk(3, -1))
        x = F.scaled_dot_product_attention(queries, keys, values)
        return (
            F.conv1d(x.mT, self.kernel.permute(1, 2, 0), padding=1)
            + F.linear(x, self.kernel[0].T.reshape(4, 4)).mT
        )


class OverlappingParts(nn.Module):
    """Parts of one tensor that have elements in common, and one that repeats an element."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(d + 1, d))
        self.shift = nn.Parameter(torch.zeros(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = (x @ self.weight[1:]).tanh() @ self.weight[:-1] + self.shift.expand(1, 4)
        return x @ self.weight[:4, :2] + x @ self.weight.T[:, ::3] + self.shift[0]


class LimitedExperts(nn.Module):
    """Experts that take two rows each: whether a row is served depends on those before it."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(d, d) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            first = ((x[:, 0] > 0) == bool(k)).float().argsort(descending=True, stable=True)
            first = first[: min(2, int(((x[:, 0] > 0) == bool(k)).sum()))]
            out.index_add_(0, first, expert(x[first]))
        return out + x

"""One torch function a case: ways in which parameters meet data, and how samples get mixed.

Where a case has n = 4 samples, other dimensions are often 4 as well, so that what goes by sizes
alone goes wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Function = Callable[[SimpleNamespace, Tensor], Tensor]


class Operation(nn.Module):
    """A function of named parameters and of data."""

    def __init__(self, function: Function, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def forward(self, x: Tensor) -> Tensor:
        out = self.function(SimpleNamespace(**dict(self.named_parameters())), x)
        return out.unsqueeze(1) if out.ndim == 1 else out


@dataclass(frozen=True)
class Use:
    """A function ``f(parameters, x)``, the parameters' shapes, and that of x; see `Case`."""

    function: Function
    shapes: dict[str, tuple[int, ...]]
    x: tuple[int, ...] = (4, 4)
    func: bool = True
    looks: bool = False

    def build(self) -> nn.Module:
        return Operation(self.function, **self.shapes)


def _lower(p: SimpleNamespace) -> Tensor:
    return p.w.tril(-1) + torch.eye(p.w.shape[-1], dtype=p.w.dtype, device=p.w.device) * 2


def _add_in_place(p: SimpleNamespace, x: Tensor) -> Tensor:
    total = p.w.exp().expand(len(x), -1).clone()
    total += x
    total *= p.w
    return total.tanh()


def _method_in_place(p: SimpleNamespace, x: Tensor) -> Tensor:
    total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    total += p.w.exp().sum()
    total.add_((x * p.w).sum(1), alpha=0.5)
    return total.sin() * total


def _constant_in_place(p: SimpleNamespace, x: Tensor) -> Tensor:
    total = torch.ones(len(x), 4, dtype=x.dtype, device=x.device)
    total.addcmul_(x, p.w, value=2.0)
    return total.tanh()


def _masked(p: SimpleNamespace, x: Tensor) -> Tensor:
    inside = x.abs() < 1
    widths = p.w.softmax(-1).expand(len(x), *p.w.shape)[inside]
    out = torch.zeros_like(x)
    out[inside] = (x[inside, None] * widths + p.v).tanh().sum(-1)
    out[~inside] = x[~inside]
    return out


def _reordered(p: SimpleNamespace, x: Tensor) -> Tensor:
    order = torch.arange(len(x), device=x.device).roll(1)
    return ((x[order] * p.w).tanh() + p.w)[order.argsort()]


def _nll(p: SimpleNamespace, x: Tensor) -> Tensor:
    return F.gaussian_nll_loss(
        x @ p.w, x, F.softplus(p.v).expand_as(x), full=True, reduction="none"
    )


def _divergence(p: SimpleNamespace, x: Tensor) -> Tensor:
    log_q = (x * p.w).log_softmax(-1)
    return F.kl_div(log_q, p.v.softmax(0).expand_as(x), reduction="none").sum(-1)


def _scattered_targets(p: SimpleNamespace, x: Tensor) -> Tensor:
    classes = x.argmax(-1)
    logits = x @ p.w
    picked = logits.log_softmax(-1).gather(1, classes[:, None]).squeeze(1)
    return picked + logits[torch.arange(len(x), device=x.device), classes] * p.w[0, 0]


def _sorted_and_back(p: SimpleNamespace, x: Tensor) -> Tensor:
    order = x.sum(1).argsort()
    h = (x[order] @ p.w).sin()
    back = torch.empty_like(h)
    back[order] = h
    return back * torch.index_add(input=torch.zeros_like(h), dim=0, index=order, source=h)


def _at_one_of_several(p: SimpleNamespace, x: Tensor) -> Tensor:
    """A tensor without dimensions picks as a number does, not as a tensor of places."""
    rows = (x[:, 0] > -9).nonzero()[:, 0]
    out = torch.zeros(2, x.shape[1], len(x), dtype=x.dtype, device=x.device)
    out[torch.tensor(1), :, rows] = x.T
    return out[1].T @ p.w


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    ones = torch.ones(x.shape[1], dtype=x.dtype, device=x.device)
    return 0.3 * ones, 2 * ones


def _rows_by_keywords(p: SimpleNamespace, x: Tensor) -> Tensor:
    rows = torch.argwhere(input=x[:, 0] > 0)[:, 0]
    picked = torch.index_select(input=x @ p.w, dim=0, index=rows)
    ordered = torch.gather(input=picked, dim=1, index=picked.argsort(1, descending=True))
    both = torch.index_add(input=x, dim=0, index=rows, source=ordered)
    return both.masked_scatter(mask=both > 1, source=(both * p.v)[both > 1])


def _values_in_order(p: SimpleNamespace, x: Tensor) -> Tensor:
    order = x[:, 0].argsort(stable=True)
    values = torch.sort(input=x[:, 0], stable=True).values * p.v[0]
    back = torch.zeros_like(order).scatter_(0, order, torch.arange(len(x), device=x.device))
    return (x[order] * p.v).tanh()[back] * values[back][:, None]


def _triangular(p: SimpleNamespace, x: Tensor) -> Tensor:
    factor = p.w.tril(-1)
    rows = factor[1:]
    factor.diagonal().copy_(p.v.exp())
    started = torch.zeros_like(factor)
    started.diagonal().add_(p.v.cos())
    return x @ factor.T + (x @ rows.T).sum(-1, keepdim=True) + x @ started


W = {"w": (4,)}
MATRIX = {"w": (4, 4)}
VECTOR = {"v": (4,)}

USES: dict[str, Use] = {
    # Products.
    "outer_of_a_scalar": Use(lambda p, x: torch.outer(x.sum(1), p.w), W),
    "ger_by_keywords": Use(lambda p, x: torch.ger(vec2=x[:, 0], input=p.w).T, W),
    "mv": Use(lambda p, x: torch.mv(x, p.w), W),
    "mv_by_keyword": Use(lambda p, x: x.mv(vec=p.w), W),
    "addmv": Use(lambda p, x: torch.addmv(x[:, 0], x, p.w, beta=0.5), W),
    "inner": Use(lambda p, x: torch.inner(p.w, x).T, MATRIX),
    "inner_of_a_vector": Use(lambda p, x: torch.inner(x, p.w), W),
    "tensordot_number": Use(lambda p, x: torch.tensordot(x, p.w, 2), {"w": (4, 4, 3)}, (4, 4, 4)),
    "tensordot_lists": Use(
        lambda p, x: torch.tensordot(p.w, x, dims=([0, -1], [2, 1])).T, {"w": (4, 3, 4)}, (4, 4, 4)
    ),
    "multi_dot": Use(
        lambda p, x: torch.linalg.multi_dot([x, p.w, p.v.T, p.w]), {"w": (4, 4), "v": (4, 4)}
    ),
    "vector_before_matrices": Use(lambda p, x: torch.matmul(p.w, x) + x[:, 0], W, (4, 4, 4)),
    "linear_with_one_bias": Use(
        lambda p, x: F.linear(x, p.w, p.v) + F.linear(x, p.w, p.v[0]), MATRIX | {"v": (1,)}
    ),
    "aten_linear": Use(lambda p, x: torch.ops.aten.linear(x, p.w), MATRIX),
    "aten_addmm": Use(lambda p, x: torch.ops.aten.addmm.default(p.v, x, p.w), MATRIX | {"v": (4,)}),
    "linear_of_swapped_keywords": Use(
        lambda p, x: F.linear(weight=p.w, input=x.mT), MATRIX, (4, 4, 4)
    ),
    "einsum_ellipsis": Use(lambda p, x: torch.einsum("...i,ji->...j", x, p.w), MATRIX, (4, 4, 4)),
    "einsum_ellipsis_of_both": Use(
        lambda p, x: torch.einsum("i...,...ij", p.w, x).movedim(-1, 1), {"w": (4, 4)}, (4, 4, 4, 2)
    ),
    "einsum_ellipsis_of_one": Use(
        lambda p, x: torch.einsum("...ij,...jk", p.w, x), {"w": (1, 3, 4)}, (4, 4, 2)
    ),
    "einsum_sublists": Use(
        lambda p, x: torch.einsum(p.w, [3, 2], x, [0, ..., 2], [0, ..., 3]), MATRIX, (4, 4, 4)
    ),
    "einsum_of_data_alone": Use(
        lambda p, x: (torch.einsum("bld->lbd", x).contiguous() * p.w).transpose(0, 1), W, (4, 4, 4)
    ),
    "matmul_of_data_and_constant": Use(
        lambda p, x: (x @ torch.arange(4, dtype=x.dtype, device=x.device)).sin()[:, None] * p.w, W
    ),
    # Systems, distances, similarities.
    "solve_triangular_rows": Use(
        lambda p, x: torch.linalg.solve_triangular(_lower(p), x[..., None], upper=False), MATRIX
    ),
    "solve_triangular_columns": Use(
        lambda p, x: torch.linalg.solve_triangular(_lower(p), x.T, upper=False).T, MATRIX
    ),
    "solve_triangular_stacks_of_columns": Use(
        lambda p, x: torch.linalg.solve_triangular(
            _lower(p), x.permute(1, 2, 0), upper=False, unitriangular=True
        ).permute(2, 0, 1),
        {"w": (4, 4, 4)}, (4, 4, 4),
    ),
    "solve_triangular_from_the_right": Use(
        lambda p, x: torch.linalg.solve_triangular(_lower(p), x[:, None], left=False, upper=False),
        MATRIX,
    ),
    "solve_with_data_as_matrix": Use(
        lambda p, x: torch.linalg.solve(x + 9 * torch.eye(4, dtype=x.dtype, device=x.device), p.w),
        {"w": (1, 4, 2)}, (4, 4, 4),
    ),
    "cholesky_solve": Use(lambda p, x: torch.cholesky_solve(x.T, _lower(p)).T, MATRIX),
    "cdist": Use(lambda p, x: torch.cdist(x, p.w), MATRIX),
    "cdist_in_other_order": Use(lambda p, x: torch.cdist(x2=x, x1=p.w, p=1.0).T, MATRIX),
    "cdist_of_sets": Use(lambda p, x: torch.cdist(x, p.w), {"w": (3, 4)}, (4, 4, 4)),
    "cosine_similarity": Use(
        lambda p, x: F.cosine_similarity(x[:, None], p.w[None], dim=-1), MATRIX
    ),
    "cosine_similarity_default_dim": Use(lambda p, x: F.cosine_similarity(x, p.w), {"w": (1, 4)}),
    "pairwise_distance": Use(lambda p, x: F.pairwise_distance(x, p.w), W),
    # Tables.
    "larger_of_two": Use(lambda p, x: torch.max(x, p.w[0]) + torch.min(p.v, x), MATRIX | VECTOR),
    "linear_to_a_number": Use(lambda p, x: F.linear(x, p.v).tanh(), VECTOR),
    "table_a_column": Use(
        lambda p, x: p.w.log_softmax(1)[torch.arange(4, device=x.device), x.long() % 4], MATRIX,
        looks=True,
    ),
    "table_of_pairs": Use(
        lambda p, x: p.w[x.long() % 4, x.long() % 3 - 3].exp(), MATRIX, looks=True
    ),
    "columns_looked_up": Use(
        lambda p, x: (p.w[:, x[:, 0].long() % 4] * x.mT).mT, MATRIX, looks=True
    ),
    "take": Use(lambda p, x: torch.take(p.w, x.long() % 16), MATRIX),
    "embedding_bag_mean": Use(lambda p, x: F.embedding_bag(x.long() % 4, p.w), MATRIX),
    "embedding_bag_weighted": Use(
        lambda p, x: F.embedding_bag(
            x.long() % 4, p.w, mode="sum", per_sample_weights=x * p.v, padding_idx=1
        ),
        MATRIX | {"v": (4,)},
    ),
    "embedding_bag_padded_mean": Use(
        lambda p, x: F.embedding_bag(x.long() % 4, p.w, padding_idx=0), MATRIX
    ),
    "embedding_bag_max": Use(lambda p, x: F.embedding_bag(x.long() % 4, p.w, mode="max"), MATRIX),
    "embedding_twice_and_tied": Use(
        lambda p, x: F.embedding(x.long() % 4, p.w) @ p.w.T + p.w[x.long() % 4], MATRIX
    ),
    "rows_by_keywords": Use(_rows_by_keywords, MATRIX | VECTOR, func=False, looks=True),
    "sorted_and_back": Use(_sorted_and_back, MATRIX, func=False, looks=True),
    "at_one_of_several": Use(_at_one_of_several, MATRIX, func=False, looks=True),
    "values_in_order": Use(_values_in_order, VECTOR, func=False, looks=True),
    "field": Use(
        lambda p, x: F.grid_sample(
            p.w.expand(len(x), -1, -1, -1), x[:, None, None, :2].tanh(), align_corners=False
        ).flatten(1),
        {"w": (1, 2, 4, 4)},
    ),
    "one_of_several_outputs": Use(
        lambda p, x: (
            torch.native_batch_norm(x, None, None, *_statistics(x), False, 0.1, 1e-3)[0] * p.w
        ),
        W,
        looks=True,
    ),
    "choice_of_numbers": Use(lambda p, x: torch.where(x > 0, 2.0, 0.5) * p.w, W),
    "gather_within_samples": Use(_scattered_targets, MATRIX, looks=True),
    # Masks, order, assignment.
    "masked_parts": Use(_masked, {"w": (4, 3), "v": (3,)}, func=False, looks=True),
    "reordered_samples": Use(_reordered, W, looks=True),
    "derived_in_place": Use(_add_in_place, W, func=False),
    "derived_in_place_by_method": Use(_method_in_place, W, func=False),
    "constant_in_place": Use(_constant_in_place, W, func=False),
    "written_into_views_of_parameters": Use(_triangular, MATRIX | {"v": (4,)}),
    # Kinks: slopes at zero are torch's own.
    "prelu_at_zero": Use(
        lambda p, x: F.prelu(x * p.w - (x * p.w).detach(), p.v) + p.v, W | {"v": (1,)}
    ),
    # Attention.
    "attention_with_learned_bias": Use(
        lambda p, x: F.scaled_dot_product_attention(x, x, x, attn_mask=p.w), {"w": (1, 2, 4, 4)},
        (4, 2, 4, 3),
    ),
    "attention_bias_without_batch": Use(
        lambda p, x: F.scaled_dot_product_attention(x, x, attn_mask=p.w, value=p.v),
        {"w": (4, 4), "v": (2, 4, 3)}, (4, 2, 4, 3),
    ),
    "attention_with_learned_queries": Use(
        lambda p, x: F.scaled_dot_product_attention(p.w, x, x), {"w": (1, 4, 3)}, (4, 4, 3)
    ),
    "attention_in_windows": Use(
        lambda p, x: F.scaled_dot_product_attention(
            *[x.reshape(len(x) * 2, 2, -1, 2)] * 3, attn_mask=p.w
        ).reshape(len(x), -1),
        {"w": (1, 2, 4, 4)}, (4, 4, 2, 4),
    ),
    # Losses.
    "gaussian_nll_loss": Use(_nll, MATRIX | {"v": (4,)}, looks=True),
    "kl_div": Use(_divergence, {"w": (4,), "v": (4,)}),
    "binary_cross_entropy": Use(
        lambda p, x: F.binary_cross_entropy_with_logits(
            p.w.expand_as(x), (x > 0).to(x.dtype), reduction="none"
        ),
        W,
    ),
    "poisson_nll_loss": Use(
        lambda p, x: F.poisson_nll_loss(target=x.exp(), input=p.w, reduction="none"), W
    ),
    "constants_like_data": Use(
        lambda p, x: x * torch.arange(4).to(x) * p.w.type_as(x)
        + torch.ones(4).to(x).expand_as(x) * p.w, W
    ),
    "expand_as": Use(lambda p, x: p.w.expand_as(other=x).cumsum(1) * x, W),
    # Not contiguous, broadcast, expanded.
    "not_contiguous": Use(
        lambda p, x: (x.mT[:, ::2] @ p.w.T[:, :3]).mT * p.v[None].expand(3, 2).T.mT,
        {"w": (4, 4), "v": (2,)}, (4, 4, 4),
    ),
    "one_row_for_all": Use(
        lambda p, x: p.w.expand(len(x), 4).cos() * x + p.w.repeat(len(x), 1), {"w": (1, 4)}
    ),
    "normalised_over_features": Use(
        lambda p, x: F.normalize(x * p.w, dim=1) + (x * p.w).norm(dim=1, keepdim=True) / math.pi, W
    ),
}  # fmt: skip

# What couples the samples while shapes stay as they are: refused without any verification.
COUPLINGS: dict[str, Use] = {
    "softmax": Use(lambda p, x: (x * p.w).softmax(0) * p.w, W),
    "log_softmax_of_positions": Use(lambda p, x: F.log_softmax(x, dim=0) @ p.w, W, (4, 4, 4)),
    "cumsum": Use(lambda p, x: x.cumsum(0) * p.w, W),
    "cumprod": Use(lambda p, x: torch.cumprod(x, dim=0) * p.w, W),
    "cummax": Use(lambda p, x: torch.cummax(x, 0)[0] * p.w, W),
    "sort": Use(lambda p, x: torch.sort(x, dim=0)[0] * p.w, W),
    "flip": Use(lambda p, x: (x * p.w) + (x * p.w).flip(0), W),
    "flip_alone": Use(lambda p, x: (x * p.w).flip(0), W),
    "roll": Use(lambda p, x: torch.roll(x, 1, 0) * p.w, W),
    "swap_of_inner_rows": Use(lambda p, x: (x * p.w)[[0, 2, 1, 3]], W),
    "gather": Use(
        lambda p, x: (x * p.w).gather(0, torch.tensor([0, 2, 1, 3])[:, None].expand(4, 4)), W
    ),
    "take_along_dim": Use(
        lambda p, x: torch.take_along_dim(x * p.w, x.argsort(0), 0) * p.w, W
    ),
    "index_select": Use(lambda p, x: x.index_select(0, torch.tensor([0, 2, 1, 3])) * p.w + x, W),
    "rows_in_the_order_of_data": Use(lambda p, x: (x * p.w)[x[:, 0].argsort()], W),
    "normalize": Use(lambda p, x: F.normalize(x, dim=0) * p.w, W),
    "norm_over_samples": Use(lambda p, x: x.norm(dim=0) * p.w.sum() + x @ p.w, W),
    "maximum_over_samples": Use(lambda p, x: x.max(0)[0] * p.w.sum() + x @ p.w, W),
    "mean_in_the_place_of_features": Use(lambda p, x: x.mean(0) * p.w.sum() + x @ p.w, W),
    "transposed": Use(lambda p, x: (x.T * p.w).sum(1), W),
    "einsum_transposes": Use(lambda p, x: torch.einsum("bl->lb", x).clone() * p.w, W),
    "gram_matrix": Use(lambda p, x: (x @ x.T) * p.w, W),
    "attention_over_samples": Use(
        lambda p, x: F.scaled_dot_product_attention(x, x, x) @ p.w, MATRIX
    ),
    "assignment_to_another_sample": Use(lambda p, x: _assigned(x * p.w), W),
    "in_place_view_of_another_sample": Use(lambda p, x: _added(x * p.w), W),
    "fourier_transform": Use(lambda p, x: torch.fft.fft(x, dim=0).real * p.w, W),
    "layer_norm_of_all": Use(lambda p, x: F.layer_norm(x, x.shape) * p.w, W),
    "layer_norm_of_all_with_a_scale": Use(
        lambda p, x: F.layer_norm(x, x.shape, p.w.expand(x.shape)), W
    ),
    "group_norm_of_all": Use(lambda p, x: F.group_norm(x[None], 1, p.w, p.w)[0], W),
    "cumsum_of_constants_like_data": Use(
        lambda p, x: torch.ones(4).to(x).expand_as(x).cumsum(0) * p.w + x, W
    ),
    "halves_of_the_batch": Use(lambda p, x: _halves_added(x * p.w) * p.w, W),
    "cumsum_of_equal_rows": Use(
        lambda p, x: torch.ones_like(x).cumsum(0) * p.w + x, W
    ),
    "scatter_over_samples": Use(
        lambda p, x: torch.zeros_like(x).scatter(0, torch.tensor([[1, 1, 2, 3]] * 4).T, x) * p.w, W
    ),
    "index_add": Use(lambda p, x: x.index_add(0, torch.tensor([1, 0, 3, 2]), x) * p.w, W),
}  # fmt: skip


def _halves_added(y: Tensor) -> Tensor:
    out = y.clone()
    halves = out.view(2, -1, y.shape[1])
    halves[0].add_(halves[1])
    return out


def _assigned(y: Tensor) -> Tensor:
    out = y.clone()
    out[1:] = y[:-1]
    return out


def _added(y: Tensor) -> Tensor:
    out = y.clone()
    later = out[1:]
    later += y[:-1]
    return out

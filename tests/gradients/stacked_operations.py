"""Products by stacks of matrices: one for each head, or expert, the samples before it or after."""

from __future__ import annotations

import torch

from tests.gradients.operations import Use

STACKS: dict[str, Use] = {
    "matrices_of_heads": Use(lambda p, x: x @ p.w, {"w": (4, 3, 2)}, (4, 4, 5, 3)),
    "matrices_of_heads_from_the_left": Use(
        lambda p, x: torch.matmul(p.w, x), {"w": (2, 4, 3)}, (4, 2, 3, 4)
    ),
    "matrices_broadcast_over_heads": Use(
        lambda p, x: x[:, None] @ p.w + x[:, :, None] @ p.v,
        {"w": (4, 4, 3), "v": (4, 3)},
        (4, 4, 4),
    ),
    "matrices_of_which_one_is_alone": Use(lambda p, x: x @ p.w, {"w": (1, 4, 3)}, (4, 2, 4, 4)),
    "every_row_to_every_expert": Use(
        lambda p, x: torch.bmm(x.repeat(3, 1).view(3, len(x), 4), p.w).movedim(1, 0),
        {"w": (3, 4, 2)},
    ),
    "experts_with_rows_last": Use(lambda p, x: (p.w @ x.T).movedim(-1, 0), {"w": (3, 2, 4)}),
    "experts_of_derived_weights": Use(
        lambda p, x: (x.expand(4, len(x), 4) @ p.w.exp()).sum(0), {"w": (4, 4, 2)}
    ),
    "einsum_heads_to_features": Use(
        lambda p, x: torch.einsum("bthd,hdf->btf", x, p.w), {"w": (2, 3, 4)}, (4, 4, 2, 3)
    ),
    "einsum_features_to_heads": Use(
        lambda p, x: torch.einsum("fhd,btf->hbtd", p.w, x).transpose(0, 1),
        {"w": (4, 2, 3)},
        (4, 5, 4),
    ),
    "einsum_one_matrix_a_head": Use(
        lambda p, x: torch.einsum("bthd,hkd->bhkt", x, p.w), {"w": (2, 3, 4)}, (4, 5, 2, 4)
    ),
    "einsum_interleaved": Use(
        lambda p, x: torch.einsum("btf,hfd->bthd", x, p.w), {"w": (2, 4, 3)}, (4, 5, 4)
    ),
    "einsum_sums_positions": Use(
        lambda p, x: torch.einsum("bti,io->bo", x, p.w), {"w": (4, 3)}, (4, 4, 4)
    ),
    "einsum_sums_what_is_free": Use(lambda p, x: torch.einsum("bi,io->b", x, p.w), {"w": (4, 3)}),
    "einsum_broadcasts": Use(
        lambda p, x: torch.einsum("bhi,hio->bho", x, p.w), {"w": (1, 4, 3)}, (4, 2, 4)
    ),
    "einsum_of_parameters_by_sample": Use(
        lambda p, x: torch.einsum("bi,bio->bo", x, p.w.expand(len(x), -1, -1)), {"w": (1, 4, 3)}
    ),
    "einsum_numbers": Use(lambda p, x: torch.einsum("bi,i->bi", x, p.w), {"w": (4,)}),
}

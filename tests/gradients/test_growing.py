"""Tensors that grow by batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skgradood.gradients.growing import GrowingTensor


@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=8),
    dim=st.sampled_from([0, 1]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.int64]),
)
def test_all_that_was_appended_in_order(sizes, dim, dtype):
    parts = [
        torch.full((n, 3) if dim == 0 else (3, n), k, dtype=dtype) for k, n in enumerate(sizes)
    ]
    growing = GrowingTensor(dim)
    for part in parts:
        growing.append(part)
    assert torch.equal(growing.whole(), torch.cat(parts, dim))


def test_parts_are_copied_without_their_graph():
    part = torch.ones(2, requires_grad=True)
    growing = GrowingTensor()
    growing.append(part * 2)
    growing.append(part)
    part.data.zero_()
    assert not growing.whole().requires_grad
    assert growing.whole().tolist() == [2.0, 2.0, 1.0, 1.0]


def test_nothing_yet():
    with pytest.raises(ValueError, match="no batch is complete"):
        GrowingTensor().whole()

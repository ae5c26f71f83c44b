from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skgradood.utils import make_groups


@given(st.integers(1, 30), st.integers(1, 10), st.integers(0, 5))
def test_groups_hold_each_sample_at_most_once(n, group_size, seed):
    X = np.arange(2 * n, dtype=float).reshape(n, 2)
    if n < group_size:
        with pytest.raises(ValueError, match=f"group_size={group_size}.*only {n}"):
            make_groups(X, group_size)
        return
    groups = make_groups(X, group_size, random_state=seed)
    assert groups.shape == (n // group_size, group_size, 2)
    first = groups.reshape(-1, 2)[:, 0]
    assert len(set(first)) == len(first)
    np.testing.assert_array_equal(groups, make_groups(X, group_size, random_state=seed))


def test_the_samples_left_over_are_chosen_at_random():
    X = np.arange(5.0)[:, None]
    dropped = {
        (set(range(5)) - set(make_groups(X, 4, random_state=seed).ravel())).pop()
        for seed in range(60)
    }
    assert dropped == set(range(5))


def test_images_keep_their_dtype_and_get_channels_first():
    X = np.zeros((6, 8, 8), dtype=np.uint8)
    groups = make_groups(X, 3, random_state=0)
    assert groups.shape == (2, 3, 1, 8, 8)
    assert groups.dtype == np.uint8


@pytest.mark.parametrize("group_size", [0, -1, 2.0, "2", True])
def test_group_size_is_a_positive_integer(group_size):
    with pytest.raises(ValueError, match="group_size must be a positive integer"):
        make_groups(np.zeros((4, 2)), group_size)

"""Seeds that an estimator keeps."""

from __future__ import annotations

import numpy as np

from skgradood.utils.seeds import fixed_seed


def test_a_seed_is_fixed_whatever_is_given(untouched_global_state):
    assert fixed_seed(None) == fixed_seed(None) == 0
    assert fixed_seed(3) == fixed_seed(3) == fixed_seed(np.random.RandomState(3))
    assert fixed_seed(3) != fixed_seed(4)
    assert 0 <= fixed_seed(3) < 2**31


def test_a_random_state_moves_on():
    random_state = np.random.RandomState(3)
    assert fixed_seed(random_state) != fixed_seed(random_state)

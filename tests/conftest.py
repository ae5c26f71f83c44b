"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch


def _global_state() -> dict[str, Any]:
    """What a library must leave as it found it, in a form that == compares."""
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 (the one to guard)
    return {
        "random": random.getstate(),
        "numpy.random": (
            numpy_state["state"]["key"].tolist(),
            numpy_state["state"]["pos"],
            numpy_state["has_gauss"],
            numpy_state["gauss"],
        ),
        "torch generator": torch.get_rng_state().tolist(),
        "numpy errors": np.geterr(),
        "torch threads": torch.get_num_threads(),
        "torch default dtype": torch.get_default_dtype(),
        "torch grad mode": torch.is_grad_enabled(),
        "torch deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "matmul precision": torch.get_float32_matmul_precision(),
    }


@pytest.fixture
def untouched_global_state() -> Iterator[None]:
    """Fail the test if it leaves a global generator, flag or thread count changed.

    A test that asks for it must itself draw only from generators of its own, and build torch
    modules in fixtures requested before this one (initialising a module draws globally).
    """
    before = _global_state()
    yield
    after = _global_state()
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, f"changed during the test: {', '.join(changed)}"


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator of the test's own."""
    return np.random.default_rng(0)

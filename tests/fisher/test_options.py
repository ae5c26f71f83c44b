"""Modes, random projections, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skgradood.fisher import APPROXIMATIONS
from skgradood.fisher.basis import eigenbasis
from skgradood.fisher.views import mode_sizes
from tests.fisher import oracles
from tests.fisher.test_identities import network


@given(shape=st.lists(st.integers(1, 9), max_size=5), largest=st.integers(1, 100))
def test_modes_are_consecutive_dimensions(shape, largest):
    sizes = mode_sizes(shape, largest)
    assert math.prod(sizes) == math.prod(shape)
    assert len(sizes) == (1 if len(shape) < 2 else 2 if len(shape) == 2 else len(sizes))
    if len(shape) > 2:
        assert len(sizes) == (2 if math.prod(shape[1:]) <= largest else 3)
        assert sizes[0] == shape[0]
        assert len(sizes) == 2 or sizes[1] == shape[1]


@pytest.mark.parametrize("max_factor_size", [1024, 8])
@pytest.mark.parametrize("sketch_size", [1, 7, 20, 10_000])
def test_sketches_have_orthonormal_columns_and_at_most_so_many(sketch_size, max_factor_size):
    module, X = network(10)
    options = {"sketch_size": sketch_size, "max_factor_size": max_factor_size}
    estimate = oracles.estimated(module, X, ["sketch"], **options)
    for (sketch,) in estimate.by_parameter.values():
        assert sketch.size <= sketch_size
        assert sketch.size == min(sketch_size, math.prod(sketch.shape)) or len(sketch.shape) > 1
        for vectors in sketch.basis.vectors:
            columns = vectors.shape[1]
            np.testing.assert_allclose(vectors.T @ vectors, np.eye(columns), atol=1e-12)


def test_a_sketch_of_all_coordinates_is_the_block():
    module, X = network(30)
    kinds, sizes = ["sketch", "block"], {"sketch_size": 10_000, "damping": 1e-2}
    sketch, block = oracles.statistics(module, X, oracles.estimated(module, X, kinds, **sizes))
    np.testing.assert_allclose(sketch, block, rtol=1e-7)


def test_sketches_are_seeded():
    module, X = network(30)

    def form(seed):
        estimate = oracles.estimated(module, X, ["sketch"], sketch_size=5, random_state=seed)
        return oracles.statistics(module, X, estimate)

    np.testing.assert_array_equal(form(0), form(0))
    assert not np.allclose(form(0), form(1))


def test_a_block_that_is_too_large_says_what_to_do():
    module, X = network(3)
    with pytest.raises(
        ValueError, match=r"'body.0.weight' would have 54 rows.*max_block_size=50.*'ekfac'"
    ):
        oracles.estimated(module, X, ["block"], max_block_size=50)


def test_a_sketch_with_channels_is_refused_before_any_pass():
    module, X = network(3)
    with pytest.raises(ValueError, match=r"layers='channel'.*one of \['identity'.*got 'sketch'"):
        oracles.estimated(module, X, ["diagonal", "sketch"], layers="channel")
    sketch = APPROXIMATIONS["sketch"]
    estimate = oracles.estimated(module, X, ["sketch"])
    for method, arguments in (("whitened", (torch.zeros(1, 54),)), ("effective_dims", ())):
        with pytest.raises(ValueError, match="not the parameter's own"):
            getattr(estimate.by_parameter["body.0.weight"][0], method)(*arguments)
    assert not sketch.has_channels


def test_eigenbases_where_divide_and_conquer_does_not_converge(monkeypatch):
    rng = np.random.default_rng(0)
    factor = torch.from_numpy(rng.normal(size=(8, 3)))
    matrix = factor @ factor.mT

    def failing(matrix):
        raise torch.linalg.LinAlgError("failed to converge")

    expected, _ = eigenbasis(matrix)
    monkeypatch.setattr(torch.linalg, "eigh", failing)
    values, vectors = eigenbasis(matrix)
    np.testing.assert_allclose(values, expected, atol=1e-12)
    np.testing.assert_allclose((vectors * values) @ vectors.mT, matrix, atol=1e-12)

"""Products by stacks of matrices are linear maps, of which no gradient a sample is kept."""

from __future__ import annotations

import pytest
import torch

from skgradood.gradients import GradientEngine, SquaredNorms, layer_layout
from skgradood.gradients.contributions import OuterContribution
from skgradood.gradients.derived import ScaledContribution
from skgradood.gradients.parts import PartsContribution
from tests.gradients.cases import CASES

LINEAR = [
    *("matrices_of_heads", "matrices_of_heads_from_the_left", "matrices_broadcast_over_heads"),
    *("matrices_of_which_one_is_alone", "every_row_to_every_expert", "experts_with_rows_last"),
    *("einsum_ellipsis", "einsum_heads_to_features", "einsum_features_to_heads"),
    *("einsum_one_matrix_a_head", "einsum_sums_positions", "einsum_interleaved"),
]
OF_EACH_SAMPLE = ["einsum_sums_what_is_free", "einsum_broadcasts", "einsum_numbers"]


def kinds_of(name: str) -> set[type]:
    module, X = CASES[name].make(torch.float64)
    kinds: set[type] = set()

    class Kinds(SquaredNorms):
        def update(self, gradient):
            for contribution in gradient.contributions:
                parts = isinstance(contribution, PartsContribution)
                received = contribution.received if parts else [contribution]
                kinds.update(type(part) for part in received)
            super().update(gradient)

    GradientEngine(module, engine="capture").run(X, Kinds(layer_layout(module)))
    return kinds


@pytest.mark.parametrize("name", LINEAR)
def test_stacks_of_matrices(name):
    assert kinds_of(name) == {OuterContribution}


def test_a_stack_made_by_a_function_is_carried_down_as_a_whole():
    assert kinds_of("experts_of_derived_weights") == {ScaledContribution}


@pytest.mark.parametrize("name", OF_EACH_SAMPLE)
def test_what_is_no_linear_map_has_a_gradient_for_every_sample(name):
    assert OuterContribution not in kinds_of(name)

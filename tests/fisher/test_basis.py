"""Rotations along every mode, of whatever size, are those of one tensor contraction."""

import pytest
import torch

from skgradood.fisher.basis import KroneckerBasis
from skgradood.gradients.contributions import Factors


def vectors(size, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, columns, dtype=torch.float64, generator=generator)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


# Thin matrices are multiplied otherwise than wide ones.
SIZES = [(5,), (40, 3), (3, 40), (50, 40), (6, 50, 9), (6, 50, 40), (40, 9, 50), (4, 3, 2)]


@pytest.mark.parametrize("columns", [None, 2])
@pytest.mark.parametrize("left_out", [None, 0, -1])
@pytest.mark.parametrize("sizes", SIZES)
def test_rotation_is_a_contraction_of_every_mode(sizes, left_out, columns):
    bases = [vectors(size, columns or size, seed) for seed, size in enumerate(sizes)]
    rotated = list(bases)
    if left_out is not None:
        rotated[left_out] = None
        bases[left_out] = torch.eye(sizes[left_out], dtype=torch.float64)
    basis = KroneckerBasis(sizes, tuple(rotated))
    gradients = normal(7, *sizes)
    modes, coordinates = "abc"[: len(sizes)], "xyz"[: len(sizes)]
    pairs = ",".join(f"{a}{x}" for a, x in zip(modes, coordinates, strict=True))
    expected = torch.einsum(f"n{modes},{pairs}->n{coordinates}", gradients, *bases)
    torch.testing.assert_close(basis.rotate(gradients), expected, rtol=1e-12, atol=1e-11)
    assert basis.n_coordinates == expected[0].numel()


@pytest.mark.parametrize("positions", [1, 20, 60])
@pytest.mark.parametrize("sizes", [(40, 3), (3, 40), (50, 40), (6, 50)])
def test_products_of_rotated_factors_are_rotated_products(sizes, positions):
    basis = KroneckerBasis(sizes, tuple(vectors(size, size, k) for k, size in enumerate(sizes)))
    left, right = (normal(7, 1, size, positions) for size in sizes)
    rotated = basis.rotate_factors(Factors(left, right))
    product = (left[:, 0] @ right[:, 0].mT, rotated.left[:, 0] @ rotated.right[:, 0].mT)
    torch.testing.assert_close(product[1], basis.rotate(product[0]), rtol=1e-12, atol=1e-10)

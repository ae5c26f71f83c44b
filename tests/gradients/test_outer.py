"""Squares of outer products that are not formed equal those of products that are, in float64."""

import pytest
import torch

from skgradood.gradients.outer import sum_of_outer_squares_over_rows, weighted_sums_of_outer_squares


def factors(m, p, q, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(m, p, generator=generator, dtype=dtype)
    right = torch.randn(m, q, generator=generator, dtype=dtype)
    return left, right, torch.rand(p * q, generator=generator, dtype=dtype)


def formed_squares(left, right):
    return (left.double()[:, :, None] * right.double()[:, None]).square()


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (130, 20, 31)])
@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 6), (torch.float64, 12)])
def test_equals_formed_products(shape, dtype, digits):
    left, right, weights = factors(*shape, dtype=dtype)
    squares = formed_squares(left, right)
    expected = torch.stack([squares.sum((1, 2)), squares.flatten(1) @ weights.double()])
    sums = weighted_sums_of_outer_squares(left, right, weights, with_norms=True)
    assert sums.dtype == torch.float64
    torch.testing.assert_close(sums, expected, rtol=10.0**-digits, atol=0)
    over_rows = sum_of_outer_squares_over_rows(left, right).double()
    torch.testing.assert_close(over_rows, squares.sum(0), rtol=10.0**-digits, atol=0)


@pytest.mark.parametrize("scale", [1e25, 1e-25, 0.0])
def test_what_squares_beyond_float32_is_kept(scale):
    left, right, weights = factors(4, 20, 30)
    left[1] *= scale
    squares = formed_squares(left, right)
    expected = torch.stack([squares.sum((1, 2)), squares.flatten(1) @ weights.double()])
    sums = weighted_sums_of_outer_squares(left, right, weights, with_norms=True)
    torch.testing.assert_close(sums, expected, rtol=1e-6, atol=0)


def test_zeros_beside_what_is_beyond_float32_are_zero():
    left, right, weights = factors(4, 20, 30)
    left[1] = 0
    right[1] *= 1e25
    sums = weighted_sums_of_outer_squares(left, right, weights, with_norms=True)
    assert sums[:, 1].tolist() == [0, 0]
    assert (sums[:, [0, 2, 3]] > 0).all()


@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_sums_over_rows_beyond_float32_are_kept(scale):
    left, right, _ = factors(4, 20, 30)
    left = left * scale
    expected = formed_squares(left, right).sum(0)
    torch.testing.assert_close(
        sum_of_outer_squares_over_rows(left, right).double(), expected, rtol=1e-6, atol=0
    )

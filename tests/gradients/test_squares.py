"""Squares summed block by block equal those of coordinates that are formed whole, in float64."""

import pytest
import torch

from skgradood.gradients import squares
from skgradood.gradients.squares import (
    Products,
    Rows,
    sum_of_squares_over_rows,
    weighted_sums_of_squares,
)


def factors(m, p, q, positions, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(m, p, positions, generator=generator, dtype=dtype)
    right = torch.randn(m, q, positions, generator=generator, dtype=dtype)
    return left, right, torch.rand(p * q, generator=generator, dtype=dtype)


def sources(left, right):
    product = left @ right.mT
    return {"products": Products(left, right), "rows": Rows(product)}


# Blocks of part of a row of the tensor's matrix, of some of its rows, and of several samples; those
# of products are limited to a few rows and columns besides.
@pytest.mark.parametrize("side", [16, 512])
@pytest.mark.parametrize("block", [5, 64, 1000, 1 << 19])
@pytest.mark.parametrize("kind", ["products", "rows"])
@pytest.mark.parametrize("shape", [(7, 13, 11, 3), (3, 40, 130, 6), (70, 2, 3, 2)])
def test_sums_do_not_depend_on_the_blocks(monkeypatch, side, block, kind, shape):
    monkeypatch.setattr(squares, "_SIDE", side)
    monkeypatch.setattr(squares, "_BLOCK", block)
    left, right, weights = factors(*shape, dtype=torch.float64)
    source = sources(left, right)[kind]
    expected = (left @ right.mT).flatten(1).square()

    norms, forms = weighted_sums_of_squares(source, weights, with_norms=True)
    torch.testing.assert_close(norms, expected.sum(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(forms, expected @ weights, rtol=1e-12, atol=0)
    torch.testing.assert_close(weighted_sums_of_squares(source, weights)[0], forms, rtol=0, atol=0)
    torch.testing.assert_close(
        sum_of_squares_over_rows(source), expected.sum(0), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("kind", ["products", "rows"])
def test_sums_in_float32_within_a_block_keep_six_digits(kind):
    left, right, weights = factors(2, 600, 1100, 8)
    source = sources(left, right)[kind]
    expected = (left.double() @ right.double().mT).flatten(1).square()

    norms, forms = weighted_sums_of_squares(source, weights, with_norms=True)
    assert norms.dtype == forms.dtype == torch.float64
    torch.testing.assert_close(norms, expected.sum(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(forms, expected @ weights.double(), rtol=1e-6, atol=0)
    over_rows = sum_of_squares_over_rows(source)
    assert (over_rows - expected.sum(0)).abs().max() < 1e-6 * expected.sum(0).max()


@pytest.mark.parametrize("scale", [1e25, 1e-25, 0.0])
@pytest.mark.parametrize("kind", ["products", "rows"])
def test_what_squares_beyond_float32_is_kept(kind, scale):
    left, right, weights = factors(3, 70, 90, 1)
    left[1] *= scale
    source = sources(left, right)[kind]
    expected = (left.double() @ right.double().mT).flatten(1).square()

    sums = weighted_sums_of_squares(source, weights, with_norms=True)
    assert sums.isfinite().all()
    expected = torch.stack([expected.sum(1), expected @ weights.double()])
    torch.testing.assert_close(sums, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1e25, 1e-25])
@pytest.mark.parametrize("kind", ["products", "rows"])
def test_sums_over_rows_beyond_float32_are_kept(kind, scale):
    left, right, _ = factors(3, 7, 9, 2)
    left = left * scale
    expected = (left.double() @ right.double().mT).flatten(1).square().sum(0)
    over_rows = sum_of_squares_over_rows(sources(left, right)[kind]).double()
    torch.testing.assert_close(over_rows, expected, rtol=1e-5, atol=0)


def test_a_tensor_without_numbers_has_sums_of_nothing():
    source = Rows(torch.ones(3, 0))
    assert sum_of_squares_over_rows(source).shape == (0,)
    sums = weighted_sums_of_squares(source, torch.ones(0), with_norms=True)
    assert sums.tolist() == [[0] * 3] * 2

"""Factors of gradients, and what is known of tensors."""

import pytest
import torch

from skgradood.gradients.capture.tensor_table import TensorTable
from skgradood.gradients.contributions import OuterContribution
from skgradood.gradients.convolution import ConvolutionContribution, ConvolutionGeometry


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def strided_convolution():
    geometry = ConvolutionGeometry((2, 1), (1, 2), (1, 2), 1, False, (0, 0))
    shape = torch.Size((4, 5, 3, 2))
    return ConvolutionContribution(normal(3, 2, 5, 7, 6), normal(3, 2, 4, 4, 8), shape, geometry)


def linear_map(*, transposed):
    shape = torch.Size((4, 5, 6))
    widths = (4, 30) if transposed else (30, 4)
    return OuterContribution(normal(3, 7, widths[0]), normal(3, 7, widths[1]), shape, transposed)


CASES = {
    "strided convolution": strided_convolution,
    "linear map": lambda: linear_map(transposed=False),
    "transposed linear map": lambda: linear_map(transposed=True),
}


@pytest.mark.parametrize("name", CASES)
def test_products_of_factors_are_gradients_and_channels_rotate(name):
    contribution = CASES[name]()
    rows, vectors = slice(1, 3), normal(5, 2)
    gradients = contribution.dense(rows)
    left, right = contribution.factors(rows)
    torch.testing.assert_close((left @ right.mT).reshape(gradients.shape), gradients)

    rotated = torch.einsum("moc...,ck->mok...", gradients, vectors)
    left, right = contribution.factors(rows, vectors)
    torch.testing.assert_close((left @ right.mT).reshape(rotated.shape), rotated)


def test_a_table_tells_tensors_apart_and_keeps_none_alive():
    table = TensorTable()
    first, second = torch.zeros(2), torch.zeros(2)
    table[first] = None
    assert first in table
    assert table[first] is None
    assert second not in table
    assert table.get(second, "nothing") == "nothing"
    with pytest.raises(KeyError):
        table[second]

    # The place in memory of a tensor that is gone may be another's.
    place = id(first)
    del first
    newcomers = [torch.zeros(2) for _ in range(100)]
    assert not any(tensor in table for tensor in newcomers if id(tensor) == place)

    table[second] = "value"
    assert table.pop(second) == "value"
    assert second not in table

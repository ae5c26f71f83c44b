"""Squared norms of rows equal those in float64, also where squares leave the range of float32."""

import pytest
import torch

from skgradood.gradients.contributions import EmbeddingContribution, OuterContribution
from skgradood.gradients.sums import sum_of_squares


# Shorter and longer than the rows that are summed in pieces.
@pytest.mark.parametrize("length", [1, 100, 4096, 70_000])
@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-25, 0.0])
def test_squares_beyond_float32_are_kept(length, scale):
    rows = torch.randn(3, length, generator=torch.Generator().manual_seed(0))
    rows[1] *= scale
    norms = sum_of_squares(rows)
    assert norms.dtype == torch.float64
    torch.testing.assert_close(norms, rows.double().square().sum(1), rtol=1e-6, atol=0)


def test_what_is_not_finite_stays_so():
    rows = torch.ones(3, 10)
    rows[0, 3], rows[2, 4] = torch.inf, torch.nan
    norms = sum_of_squares(rows)
    assert norms[0] == torch.inf
    assert norms[1].item() == pytest.approx(10)
    assert norms[2].isnan()


@pytest.mark.parametrize("scale", [1e25, 1e-25, 0.0])
def test_gram_norms_beyond_float32_are_kept(scale):
    generator = torch.Generator().manual_seed(0)
    activations = torch.randn(3, 4, 50, generator=generator)
    gradients = torch.randn(3, 4, 60, generator=generator)
    gradients[1] *= scale
    formed = gradients.double().mT @ activations.double()
    contribution = OuterContribution(activations, gradients, torch.Size((60, 50)))
    torch.testing.assert_close(
        contribution.squared_norm(), formed.square().sum((1, 2)), rtol=1e-5, atol=0
    )


def outer():
    generator = torch.Generator().manual_seed(0)
    factors = (torch.randn(3, 4, width, generator=generator) for width in (50, 60))
    return OuterContribution(*factors, torch.Size((60, 50)))


def test_zeros_beside_what_is_beyond_float32_are_zero():
    contribution = outer()
    contribution.activations[1] *= 1e25
    contribution.output_gradients[1] = 0
    assert contribution.squared_norm()[1] == 0


@pytest.mark.parametrize("factor", ["activations", "output_gradients"])
def test_no_gradient_is_formed_for_a_factor_of_zeros(factor, monkeypatch):
    contribution = outer()
    expected = contribution.squared_norm()
    expected[2] = 0
    getattr(contribution, factor)[2] = 0
    monkeypatch.setattr(OuterContribution, "dense", lambda *_: pytest.fail("formed"))
    torch.testing.assert_close(contribution.squared_norm(), expected)


@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-25, 0.0])
def test_norms_of_tables_beyond_float32_are_kept_and_lose_no_digits(scale):
    generator = torch.Generator().manual_seed(0)
    gradients = scale * torch.randn(3, 4, 5, generator=generator)
    gradients[1, 2] = -gradients[1, 0] * (1 - 1e-5)  # cancels where both pick one row
    indices = torch.tensor([[0, 1, 2, 3], [7, 7, 7, 7], [5, 0, 5, 0]])
    gradients[1, 1] = gradients[1, 3] = 0
    contribution = EmbeddingContribution(indices, gradients, torch.Size((9, 5)))
    formed = torch.zeros(3, 9, 5, dtype=torch.float64).scatter_add_(
        1, indices[..., None].expand_as(gradients), gradients.double()
    )
    torch.testing.assert_close(
        contribution.squared_norm(), formed.square().sum((1, 2)), rtol=1e-5, atol=0
    )

"""Rational-quadratic splines against formulas and derivatives that are not theirs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skgradood.models._splines import evaluate, invert, make_spline, n_spline_outputs

BOUND = 2.5


def splines(n, n_bins=5, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(n, n_spline_outputs(n_bins), generator=generator, dtype=torch.float64)
    return make_spline(scale * raw, BOUND)


def values(n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(n, generator=generator, dtype=torch.float64)


def by_the_paper(spline, i, x):
    """Equations 4 of the paper, for one number, in its own letters."""
    xs, ys, ds = (knots[i].numpy() for knots in spline)
    if not -BOUND < x < BOUND:
        return x
    k = int(np.searchsorted(xs, x, side="right")) - 1
    s = (ys[k + 1] - ys[k]) / (xs[k + 1] - xs[k])
    xi = (x - xs[k]) / (xs[k + 1] - xs[k])
    numerator = (ys[k + 1] - ys[k]) * (s * xi**2 + ds[k] * xi * (1 - xi))
    return ys[k] + numerator / (s + (ds[k + 1] + ds[k] - 2 * s) * xi * (1 - xi))


def test_values_are_those_of_the_paper():
    spline, x = splines(200), values(200)
    y, _ = evaluate(spline, x, BOUND)
    expected = [by_the_paper(spline, i, float(x[i])) for i in range(len(x))]
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_slopes_are_derivatives():
    spline, x = splines(200), values(200).requires_grad_()
    y, log_slope = evaluate(spline, x, BOUND)
    (derivative,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_slope.exp(), derivative)
    assert (derivative > 0).all()


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0])
def test_the_inverse_is_exact(scale):
    spline, x = splines(500, scale=scale), values(500)
    y, _ = evaluate(spline, x, BOUND)
    torch.testing.assert_close(invert(spline, y, BOUND), x, rtol=0, atol=1e-8)


def test_knots_lie_on_the_curve_and_the_ends_join_the_identity():
    spline = splines(20)
    for k in range(spline.x.shape[1]):
        y, log_slope = evaluate(spline, spline.x[:, k], BOUND)
        torch.testing.assert_close(y, spline.y[:, k])
        torch.testing.assert_close(log_slope.exp(), spline.slope[:, k])
    assert torch.equal(spline.slope[:, [0, -1]], torch.ones(20, 2).double())
    assert torch.equal(spline.x[:, [0, -1]], torch.tensor([[-BOUND, BOUND]] * 20).double())
    assert (spline.x.diff() > 0).all()
    assert (spline.y.diff() > 0).all()


def test_zeros_are_the_identity():
    spline, x = splines(50, scale=0.0), values(50)
    y, log_slope = evaluate(spline, x, BOUND)
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(log_slope, torch.zeros(50).double())


def test_extreme_numbers_of_the_network_stay_finite():
    spline, x = splines(200, scale=1e4), values(200).requires_grad_()
    y, log_slope = evaluate(spline, x, BOUND)
    (gradient,) = torch.autograd.grad(log_slope.sum(), x)
    for result in (y, log_slope, gradient, invert(spline, y, BOUND)):
        assert result.isfinite().all()

"""PixelCNN: which pixels see which, and probabilities that sum to one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Categorical

from skgradood.models import PixelCNN
from skgradood.models.pixel_cnn.masked import MaskedConv2d

LIKELIHOODS = ["categorical", "logistic_mixture"]


def make_model(shape, likelihood, *, seed=0, scale=0.5, **options):
    """A small float64 model away from its initial state, so that everything that may, matters."""
    torch.manual_seed(seed)
    options = {"width": 6, "n_layers": 2, "n_components": 3} | options
    model = PixelCNN(shape, likelihood=likelihood, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return model.eval()


def images(n, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)


def dependence(model, n_channels):
    """Which outputs (channels, H, W) depend on which values (C, H, W), in any of four images.

    The outputs are summed over all but ``n_channels`` groups, with weights that cancel nothing.
    """
    generator = torch.Generator().manual_seed(1)

    def outputs(x):
        predicted = model.predict(x[None])[0].unflatten(0, (-1, n_channels))
        weights = torch.randn(len(predicted), generator=generator, dtype=x.dtype)
        return (predicted * weights[:, None, None, None]).sum(0)

    images_ = images(4, model.input_shape).double()
    jacobians = [torch.autograd.functional.jacobian(outputs, x, vectorize=True) for x in images_]
    return (torch.stack(jacobians) != 0).any(dim=0)


def position(shape):
    """Where each pixel comes in raster order, (H, W)."""
    return torch.arange(shape[1] * shape[2]).reshape(shape[1:])


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5), (2, 6, 3)])
def test_every_pixel_depends_on_all_earlier_pixels_and_no_other_with_a_mixture(shape):
    """No later pixel, not itself, and no blind spot."""
    model = make_model(shape, "logistic_mixture", n_layers=4, width=24)
    depends = dependence(model, 1)[0]
    order = position(shape)
    expected = (order[:, :, None, None] > order[None, None]).unsqueeze(2)
    assert torch.equal(depends, expected.expand_as(depends))


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5), (2, 6, 3)])
def test_every_channel_depends_on_all_earlier_values_and_no_other_with_logits(shape):
    """Raster order over pixels; within a pixel, channel after channel."""
    model = make_model(shape, "categorical", n_layers=4, width=24)
    depends = dependence(model, shape[0])
    order = position(shape) * shape[0] + torch.arange(shape[0])[:, None, None]
    expected = order[..., None, None, None] > order
    assert torch.equal(depends, expected)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_masked_taps_have_no_gradient_at_all(likelihood):
    model = make_model((3, 5, 6), likelihood)
    model.log_prob(images(4, (3, 5, 6))).sum().backward()
    masked = [m for m in model.modules() if isinstance(m, MaskedConv2d) and m.mask is not None]
    assert len(masked) >= 2
    for layer in masked:
        gradient, taps = layer.conv.weight.grad, layer.mask.bool()
        assert (gradient[~taps] == 0).all()
        assert (gradient[taps] != 0).any()


def test_masking_through_data_leaves_gradients_at_masked_taps():
    """The known error: norms of scores then count weights that the model does not have."""
    model = make_model((1, 5, 6), "categorical")
    layer = model.first.vertical
    taps, layer.mask = layer.mask.bool(), None
    layer.conv.weight.data *= taps
    model.log_prob(images(4, (1, 5, 6))).sum().backward()
    assert layer.conv.weight.grad[~taps].abs().max() > 1e-3


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 2, 1), (2, 1, 1)])
def test_probabilities_of_all_images_of_two_values_sum_to_one(shape, likelihood):
    model = make_model(shape, likelihood)
    grid = torch.cartesian_prod(torch.arange(256), torch.arange(256)).reshape(-1, *shape)
    with torch.no_grad():
        total = model.log_prob(grid).logsumexp(0)
    assert float(total) == pytest.approx(0, abs=1e-9)


def test_log_prob_is_that_of_the_logits():
    model = make_model((2, 3, 4), "categorical")
    X = images(5, (2, 3, 4))
    logits = model.predict(X).reshape(5, 256, 2, 3, 4).permute(0, 2, 3, 4, 1)
    expected = Categorical(logits=logits).log_prob(X.long())
    torch.testing.assert_close(model.log_prob_pixels(X), expected.sum(1))
    torch.testing.assert_close(model.log_prob(X), expected.sum((1, 2, 3)))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 1, 1)])
def test_samples_have_the_probabilities_that_log_prob_says(shape, likelihood):
    model = make_model(shape, likelihood, seed=3)
    n = 20_000
    drawn = model.sample(n, torch.Generator().manual_seed(0)).reshape(n, 2).long().numpy()
    grid = torch.cartesian_prod(torch.arange(256), torch.arange(256)).reshape(-1, *shape)
    with torch.no_grad():
        probabilities = model.log_prob(grid).exp().reshape(256, 256).numpy()
    blocks = probabilities.reshape(16, 16, 16, 16).sum(axis=(1, 3)).ravel()
    counts = np.bincount(drawn[:, 0] // 16 * 16 + drawn[:, 1] // 16, minlength=256)
    assert _p_value(counts, n * blocks) > 1e-3
    for axis in range(2):
        marginal = np.bincount(drawn[:, axis], minlength=256)
        assert _p_value(marginal, n * probabilities.sum(axis=1 - axis)) > 1e-3


def _p_value(counts, expected):
    """Chi-square test, cells with few expected samples being joined."""
    order = np.argsort(expected)
    n_rare = int(np.searchsorted(np.cumsum(expected[order]), 10)) + 1
    rare, rest = order[:n_rare], order[n_rare:]
    counts = np.append(counts[rest], counts[rare].sum())
    expected = np.append(expected[rest], expected[rare].sum())
    assert len(counts) > 3
    return stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_rows_out_of_reach_are_left_out_of_sampling_and_change_nothing(likelihood):
    model = make_model((1, 9, 3), likelihood, n_layers=1, kernel_size=1)
    assert model._reach() == 2
    X = images(3, (1, 9, 3))
    with torch.no_grad():
        torch.testing.assert_close(model.predict(X[:, :, 4:7])[:, :, 2], model.predict(X)[:, :, 6])


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 4, 5)])
def test_samples_are_images_and_follow_the_generator(shape, likelihood):
    model = make_model(shape, likelihood).float()
    samples = [model.sample(4, torch.Generator().manual_seed(i)) for i in (0, 0, 1)]
    assert samples[0].shape == (4, *shape)
    assert samples[0].dtype == torch.uint8
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_initialize_starts_from_how_often_values_come(likelihood):
    model = make_model((2, 1, 2), likelihood, n_components=20)
    generator = torch.Generator().manual_seed(0)
    X = torch.randint(100, 104, (500, 2, 1, 2), generator=generator, dtype=torch.uint8)
    X[:, 1] += 50
    with torch.no_grad():
        model.head[-1].conv.weight.zero_()
        model.initialize(X)
        nats = model.log_prob(X).mean() / 4
    assert float(nats) == pytest.approx(-np.log(4), abs={"categorical": 0.02}.get(likelihood, 0.5))


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="likelihood must be one of 'categorical', 'logistic_mix"):
        PixelCNN((1, 8, 8), likelihood="normal")
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        PixelCNN((1, 8, 8), kernel_size=4)
    with pytest.raises(ValueError, match="channels, height, width"):
        PixelCNN((8, 8))

"""Glow against the change-of-variables formula, and what its parts promise."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal

from skgradood.models import Glow
from skgradood.models.glow.actnorm import ActNorm
from skgradood.models.glow.conditioners import CONDITIONERS
from skgradood.models.glow.coupling import AdditiveCoupling, AffineCoupling
from skgradood.models.glow.invertible_conv import LUInvertibleConv, PlainInvertibleConv

OPTIONS = {
    "affine, lu": {},
    "additive": {"coupling": "additive"},
    "plain": {"permutation": "plain"},
    "fixed prior": {"learned_prior": False},
    "one level": {"n_levels": 1},
    "dense": {"conditioner": "dense"},
    "dense, additive": {"conditioner": "dense", "coupling": "additive"},
    "local": {"conditioner": "local"},
}


def make_glow(shape=(1, 4, 8), **options):
    """A small float64 flow away from its initial state, so that every term counts."""
    torch.manual_seed(0)
    model = Glow(shape, **({"n_levels": 2, "n_steps": 2, "hidden_channels": 4} | options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.double().eval()


def images(n, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)


def flat_latents(model, y):
    return torch.cat([z.flatten(1) for z in model.encode(y)[0]], dim=1)


@pytest.mark.parametrize("name", OPTIONS)
def test_log_prob_is_the_change_of_variables_formula(name):
    model = make_glow(**OPTIONS[name])
    X = images(2, model.input_shape)
    y = (X.double() + 0.5) / 256 - 0.5
    for i in range(len(X)):
        jacobian = torch.autograd.functional.jacobian(
            lambda v: flat_latents(model, v[None])[0], y[i]
        ).reshape(X[i].numel(), -1)
        log_density = torch.linalg.slogdet(jacobian).logabsdet
        latents, _ = model.encode(y[i : i + 1])
        rest = None
        for z, level in zip(reversed(latents), reversed(model.levels), strict=True):
            mean, log_scale = level.prior.mean_and_log_scale(rest)
            log_density = log_density + Normal(mean, log_scale.exp()).log_prob(z).sum()
            # What conditions a finer scale is what went on from it: the coarser image.
            rest = level.decode(z, rest)
        expected = log_density - X[i].numel() * math.log(256)
        torch.testing.assert_close(model.log_prob(X)[i], expected)


@pytest.mark.parametrize("name", OPTIONS)
def test_decode_undoes_encode(name):
    model = make_glow(shape=(3, 8, 4), **OPTIONS[name])
    y = torch.rand(5, 3, 8, 4, dtype=torch.float64) - 0.5
    torch.testing.assert_close(model.decode(model.encode(y)[0]), y)


def test_contributions_sum_to_the_log_likelihood():
    model = make_glow()
    X = images(5, model.input_shape)
    contributions = model.log_prob_contributions(X)
    assert contributions.shape == (5, 2)
    torch.testing.assert_close(contributions.sum(dim=1), model.log_prob(X))


def test_probabilities_of_all_images_sum_to_about_one():
    """A density per unit of the grid: the sum over the grid approximates the integral."""
    torch.manual_seed(0)
    model = Glow((1, 2, 2), n_levels=1, n_steps=1, hidden_channels=2).double()
    with torch.no_grad():
        model.levels[0].steps[0].actnorm.log_scale.fill_(math.log(8.0))
    grid = torch.cartesian_prod(*[torch.arange(8, 256, 16)] * 4).reshape(-1, 1, 2, 2)
    total = model.log_prob(grid).detach().exp().sum() * 16**4
    assert float(total) == pytest.approx(1, abs=0.01)


def test_training_loss_averages_to_at_most_the_likelihood_of_the_bin():
    """Dequantisation noise comes from the generator, and its loss straddles the midpoint's."""
    model = make_glow()
    X = images(3, model.input_shape)
    losses = [model.training_loss(X, torch.Generator().manual_seed(i)) for i in (0, 0, 1)]
    torch.testing.assert_close(losses[0], losses[1])
    assert not torch.allclose(losses[0], losses[2])
    torch.testing.assert_close(losses[0], -model.log_prob(X), rtol=0.05, atol=5)


def test_initialize_standardises_the_output_of_every_actnorm():
    torch.manual_seed(0)
    model = Glow((1, 8, 8), n_steps=3, hidden_channels=4)
    outputs = []
    for module in model.modules():
        if isinstance(module, ActNorm):
            module.register_forward_hook(lambda m, args, out: outputs.append(out[0]))
    X = images(64, (1, 8, 8))
    model.initialize(X)
    outputs.clear()
    model.log_prob(X)
    assert len(outputs) == 6
    for y in outputs:
        assert y.mean(dim=(0, 2, 3)).abs().max() < 1e-3
        assert (y.std(dim=(0, 2, 3)) - 1).abs().max() < 0.05


def test_initialize_survives_constant_images():
    model = Glow((1, 8, 8), n_steps=3, hidden_channels=4)
    X = torch.zeros(16, 1, 8, 8, dtype=torch.uint8)
    model.initialize(X)
    assert model.log_prob(X).isfinite().all()


def test_lu_and_plain_start_as_the_same_rotation():
    torch.manual_seed(3)
    lu = LUInvertibleConv(6).double()
    torch.manual_seed(3)
    plain = PlainInvertibleConv(6).double()
    weight, log_determinant = lu.weight_and_log_determinant()
    torch.testing.assert_close(weight, plain.weight.detach(), rtol=1e-5, atol=1e-6)
    assert log_determinant.abs() < 1e-5
    torch.testing.assert_close(weight @ weight.T, torch.eye(6).double(), rtol=1e-5, atol=1e-5)


def test_lu_determinant_is_that_of_its_matrix():
    torch.manual_seed(0)
    conv = LUInvertibleConv(5).double()
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.add_(torch.randn_like(parameter))
    weight, log_determinant = conv.weight_and_log_determinant()
    torch.testing.assert_close(log_determinant, torch.linalg.slogdet(weight).logabsdet)
    assert sum(p.numel() for p in conv.parameters()) == 25


@pytest.mark.parametrize("conditioner", CONDITIONERS)
@pytest.mark.parametrize("coupling", ["affine", "additive"])
def test_couplings_start_as_the_identity(coupling, conditioner):
    network = CONDITIONERS[conditioner].network
    if coupling == "affine":
        coupling = AffineCoupling(network(2, 8, 4, (2, 2)), 2.0)
    else:
        coupling = AdditiveCoupling(network(2, 8, 2, (2, 2)))
    x = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    y, log_determinant = coupling(x)
    assert torch.equal(y, x)
    assert torch.equal(log_determinant, torch.zeros(3))


def test_scales_stay_bounded_whatever_the_network_says():
    coupling = AffineCoupling(CONDITIONERS["convolutional"].network(2, 8, 4, (2, 2)), 2.0)
    with torch.no_grad():
        coupling.conditioner[-1].bias.fill_(1e6)
    _, log_determinant = coupling(torch.randn(3, 4, 2, 2))
    torch.testing.assert_close(log_determinant, torch.full((3,), 2.0 * 2 * 4))


def test_samples_are_images_and_follow_the_generator():
    model = make_glow(shape=(3, 8, 12)).float()
    samples = [model.sample(4, torch.Generator().manual_seed(i)) for i in (0, 0, 1)]
    assert samples[0].shape == (4, 3, 8, 12)
    assert samples[0].dtype == torch.uint8
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])


@pytest.mark.parametrize(
    ("shape", "n_levels", "message"),
    [
        ((1, 28, 28), 3, "the largest n_levels that fits is 2"),
        ((1, 8, 8), 0, "the largest n_levels that fits is 3"),
        ((1, 27, 28), 1, "even height and width"),
        ((28, 28), 1, "channels, height, width"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(shape, n_levels, message):
    with pytest.raises(ValueError, match=message):
        Glow(shape, n_levels=n_levels)


def test_unknown_options_list_the_known_ones():
    with pytest.raises(ValueError, match="coupling must be one of 'affine', 'additive'"):
        Glow((1, 8, 8), coupling="spline")
    with pytest.raises(ValueError, match="permutation must be one of 'lu', 'plain'"):
        Glow((1, 8, 8), permutation="fixed")
    with pytest.raises(
        ValueError, match="conditioner must be one of 'convolutional', 'dense', 'loc"
    ):
        Glow((1, 8, 8), conditioner="patches")


def test_local_networks_see_each_patch_alone():
    """The same parameters are a model of patches, and an image is as many of them as it holds."""
    model = make_glow(shape=(3, 8, 12), conditioner="local")
    of_patches = Glow((3, 4, 4), n_levels=2, n_steps=2, hidden_channels=4, conditioner="local")
    of_patches = of_patches.double().eval()
    of_patches.load_state_dict(model.state_dict())
    X = images(3, (3, 8, 12))
    patches = X.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 4, 4)
    expected = of_patches.log_prob(patches).reshape(3, 6).sum(dim=1)
    torch.testing.assert_close(model.log_prob(X), expected)
    convolutional = make_glow(shape=(3, 8, 12))
    of_patches = make_glow(shape=(3, 4, 4))
    of_patches.load_state_dict(convolutional.state_dict())
    elsewhere = of_patches.log_prob(patches).reshape(3, 6).sum(dim=1)
    assert (convolutional.log_prob(X) - elsewhere).abs().min() > 1e-3


@pytest.mark.parametrize("conditioner", CONDITIONERS)
def test_only_dense_networks_see_the_whole_image(conditioner):
    """A pixel in one corner moves what is computed for the pixels of the other, or does not."""
    options = {"n_levels": 1, "n_steps": 1, "hidden_channels": 16, "conditioner": conditioner}
    model = make_glow(shape=(1, 8, 8), **options)
    y = images(1, (1, 8, 8)).double() / 256 - 0.5
    jacobian = torch.autograd.functional.jacobian(lambda v: model.encode(v)[0][0], y)
    last_by_first = jacobian[0, :, -1, -1, 0, 0, :2, :2]
    assert last_by_first.any().item() == (conditioner == "dense")


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 8, 64), (3, 32, 32)])
def test_shapes(shape):
    model = Glow(shape, n_steps=1, hidden_channels=4).eval()
    assert model.log_prob(images(2, shape)).shape == (2,)

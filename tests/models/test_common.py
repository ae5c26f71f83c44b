"""What every module of the package promises to engines and detectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skgradood.models import (
    VAE,
    DiagonalGaussian,
    GaussianDiffusion,
    Glow,
    LinearFlow,
    NeuralSplineFlow,
    PixelCNN,
    RealNVP,
)

MODELS = {
    "diagonal gaussian": lambda: DiagonalGaussian((4,)),
    "linear flow": lambda: LinearFlow((4,)),
    "spline flow": lambda: NeuralSplineFlow((4,), n_layers=2, hidden=8),
    "real nvp": lambda: RealNVP((4,), n_layers=2, hidden=8),
    "vae": lambda: VAE((1, 8, 8), latent_dim=3, width=4),
    "glow": lambda: Glow((1, 8, 8), n_steps=2, hidden_channels=4),
    "glow, plain, additive": lambda: Glow(
        (1, 8, 8), n_steps=2, hidden_channels=4, permutation="plain", coupling="additive"
    ),
    "glow, dense": lambda: Glow((1, 8, 8), n_steps=2, hidden_channels=16, conditioner="dense"),
    "glow, local": lambda: Glow((1, 8, 8), n_steps=2, hidden_channels=4, conditioner="local"),
    "glow, classes": lambda: Glow((1, 8, 8), n_steps=2, hidden_channels=4, n_classes=3),
    "pixel cnn": lambda: PixelCNN((1, 8, 8), width=4, n_layers=2),
    "pixel cnn, mixture": lambda: PixelCNN(
        (3, 8, 8), likelihood="logistic_mixture", width=4, n_layers=2
    ),
    "diffusion": lambda: GaussianDiffusion((1, 8, 8), n_timesteps=10, width=4, n_timesteps_eval=4),
}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    module = MODELS[request.param]().double()
    if hasattr(module, "initialize"):
        module.initialize(samples(module, 32))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def samples(module, n, seed=0):
    rng = np.random.default_rng(seed)
    if module.input_kind == "image":
        return torch.from_numpy(rng.integers(0, 256, (n, *module.input_shape), dtype=np.uint8))
    return torch.from_numpy(rng.normal(size=(n, *module.input_shape)))


def test_log_likelihoods_and_gradients_are_those_of_a_sample_alone(model):
    X = samples(model, 5)
    together = model.log_prob(X)
    for i in range(len(X)):
        alone = model.log_prob(X[i : i + 1])
        torch.testing.assert_close(together[i], alone[0])
        kept = torch.autograd.grad(together[i], list(model.parameters()), retain_graph=True)
        expected = torch.autograd.grad(alone[0], list(model.parameters()))
        for gradient, reference in zip(kept, expected, strict=True):
            torch.testing.assert_close(gradient, reference)


def test_every_parameter_has_a_score(model):
    gradients = torch.autograd.grad(model.log_prob(samples(model, 20)).sum(), model.parameters())
    names = [name for name, _ in model.named_parameters()]
    dead = [n for n, g in zip(names, gradients, strict=True) if not g.abs().max() > 1e-12]
    assert dead == []


def test_evaluation_is_deterministic_and_draws_nothing(model, untouched_global_state):
    X = samples(model, 5)
    assert torch.equal(model.log_prob(X), model.log_prob(X))
    assert model.log_prob(X).shape == (5,)


def test_samples_can_be_scored(model, untouched_global_state):
    drawn = model.sample(3, torch.Generator().manual_seed(0))
    assert drawn.shape == (3, *model.input_shape)
    assert model.log_prob(drawn).isfinite().all()


def test_the_state_dict_carries_everything(model):
    """A module made anew and given the state is the same model."""
    name = next(n for n, make in MODELS.items() if repr(make().double()) == repr(model))
    twin = MODELS[name]().double().eval()
    twin.load_state_dict(model.state_dict())
    X = samples(model, 5)
    assert torch.equal(twin.log_prob(X), model.log_prob(X))

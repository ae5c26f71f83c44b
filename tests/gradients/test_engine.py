"""Options, errors, verification, and what happens when memory runs out."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from skgradood.gradients import (
    EngineWarning,
    GradientEngine,
    SquaredNorms,
    StrategyRefused,
    layer_gradient_norms,
    layer_layout,
    layer_names,
    per_sample_gradients,
)
from skgradood.gradients.capture import CaptureStrategy
from skgradood.gradients.contributions import DenseContribution
from tests.gradients.building import SquaredOutput, seeded
from tests.gradients.cases import CASES


class Gaussian(nn.Module):
    """N(mean, exp(log_scale)²) for rows: ∂log p/∂mean = z/σ, ∂log p/∂log σ = z² − 1."""

    def __init__(self, d):
        super().__init__()
        self.mean = nn.Parameter(torch.linspace(-1, 1, d, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.linspace(-0.5, 0.5, d, dtype=torch.float64))

    def log_prob(self, X):
        z = (X - self.mean) * torch.exp(-self.log_scale)
        return (-0.5 * z.square() - self.log_scale - 0.5 * np.log(2 * np.pi)).sum(1)


@pytest.mark.parametrize("engine", ["auto", "capture", "func", "loop"])
def test_norms_of_a_gaussian_in_closed_form(engine):
    module, X = Gaussian(3), seeded((7, 3), torch.float64)
    mean, scale = module.mean.detach().numpy(), module.log_scale.detach().exp().numpy()
    z = (X.numpy() - mean) / scale
    expected = np.stack([((z / scale) ** 2).sum(1), ((z**2 - 1) ** 2).sum(1)], axis=1)
    np.testing.assert_allclose(layer_gradient_norms(module, X, engine=engine), expected)
    assert layer_names(module) == ["mean", "log_scale"]


def test_channels_and_log_likelihoods_of_a_gaussian():
    module, X = Gaussian(3), seeded((7, 3), torch.float64)
    z = (X - module.mean).detach() / module.log_scale.detach().exp()
    expected = torch.cat([(z / module.log_scale.detach().exp()) ** 2, (z**2 - 1) ** 2], 1)
    np.testing.assert_allclose(layer_gradient_norms(module, X, layers="channel"), expected)
    assert layer_names(module, layers="channel")[:4] == [
        "mean[0]", "mean[1]", "mean[2]", "log_scale[0]"
    ]  # fmt: skip
    values = per_sample_gradients(module, X, SquaredNorms(layer_layout(module)))
    normal = torch.distributions.Normal(module.mean, module.log_scale.exp())
    np.testing.assert_allclose(values, normal.log_prob(X).sum(1).detach())


def test_output_channels_of_a_transposed_convolution():
    module, X = CASES["conv_transpose2d_grouped"].make(torch.float64)
    norms = layer_gradient_norms(module, X, layers="channel")
    names = layer_names(module, layers="channel")
    assert names == [f"body.weight[{c}]" for c in range(6)] + [f"body.bias[{c}]" for c in range(6)]
    weight = module.body.weight
    for i in range(len(X)):
        (gradient,) = torch.autograd.grad(module.log_prob(X[i : i + 1]).sum(), weight)
        # 2 groups of (2 in, 3 out): output channel c belongs to group c // 3
        expected = [
            gradient[2 * (c // 3) : 2 * (c // 3) + 2, c % 3].square().sum() for c in range(6)
        ]
        np.testing.assert_allclose(norms[i, :6], torch.stack(expected))


def test_layers_of_modules_are_named_by_their_owner():
    module, _ = CASES["weight_norm"].make(torch.float32)
    assert layer_names(module) == [
        "body.0.bias",
        "body.0.parametrizations.weight.original0",
        "body.0.parametrizations.weight.original1",
    ]
    assert layer_names(module, layers="module") == ["body.0"]
    assert layer_names(Gaussian(2), layers="module") == ["Gaussian"]


def test_log_likelihood_may_be_a_callable_or_another_method():
    module, X = Gaussian(3), seeded((4, 3), torch.float64)
    module.doubled = lambda X: 2 * module.log_prob(X)
    norms = layer_gradient_norms(module, X)

    def tripled(module, X, generator):
        assert isinstance(generator, torch.Generator)
        return 3 * module.log_prob(X)

    np.testing.assert_allclose(layer_gradient_norms(module, X, log_likelihood="doubled"), 4 * norms)
    np.testing.assert_allclose(layer_gradient_norms(module, X, log_likelihood=tripled), 9 * norms)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"engine": "fast"}, ValueError, "engine must be one of .*'capture'.*'fast'"),
        ({"layers": "tensor"}, ValueError, "layers must be one of .*'parameter'.*'tensor'"),
        ({"batch_size": 0}, ValueError, "batch_size must be a positive integer"),
        ({"log_likelihood": "elbo"}, TypeError, r"Gaussian has no method elbo\(X\) -> \(n,\)"),
        ({"log_likelihood": 3}, TypeError, "method name or a callable"),
    ],
)
def test_wrong_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        layer_gradient_norms(Gaussian(3), torch.zeros(2, 3, dtype=torch.float64), **options)


@pytest.mark.parametrize("engine", ["auto", "capture", "func", "loop"])
@pytest.mark.parametrize(
    ("reduce", "message"),
    [
        (torch.mean, r"returned \(\) for [14] samples.*batch mean"),
        (lambda v: v[:, None], r"returned \(4, 1\) for 4 samples|returned \(1, 1\) for 1 samples"),
        (lambda v: v.detach(), "does not depend on any parameter"),
        (lambda v: 3.0, "returned float"),
    ],
    ids=["mean", "column", "detached", "number"],
)
def test_what_is_no_log_likelihood_is_refused(reduce, message, engine):
    module = Gaussian(3)
    X = seeded((4, 3), torch.float64)

    def wrong(module, X, generator):
        return reduce(module.log_prob(X))

    with pytest.raises((TypeError, ValueError, StrategyRefused), match=message):
        layer_gradient_norms(module, X, log_likelihood=wrong, engine=engine)


def test_modules_and_batches_that_cannot_be_measured():
    with pytest.raises(TypeError, match=r"torch\.nn\.Module; got str"):
        layer_gradient_norms("module", torch.zeros(2, 3))
    with pytest.raises(ValueError, match="no parameter with requires_grad"):
        layer_gradient_norms(Gaussian(3).requires_grad_(False), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"at least one sample; got shape \(0, 3\)"):
        layer_gradient_norms(Gaussian(3), torch.zeros(0, 3, dtype=torch.float64))


class HalfOfOneLayer(CaptureStrategy):
    """Claims half the gradient of the last layer."""

    def run(self, X, reducer):
        class Halving:
            def update(self, gradient):
                if gradient.name == "body.2.bias":
                    (contribution,) = gradient.contributions
                    gradient.contributions = [DenseContribution(contribution.gradients / 2)]
                reducer.update(gradient)

        return super().run(X, Halving())


def test_verification_finds_a_wrong_layer_and_names_it(monkeypatch):
    from skgradood.gradients import engine

    monkeypatch.setitem(engine.STRATEGIES, "capture", HalfOfOneLayer)
    module, X = CASES["mlp"].make(torch.float64)
    with pytest.raises(StrategyRefused, match=r"layer 'body\.2\.bias' of row"):
        layer_gradient_norms(module, X, engine="capture")
    with pytest.warns(EngineWarning, match=r"layer 'body\.2\.bias'"):
        norms = layer_gradient_norms(module, X)
    np.testing.assert_allclose(norms, layer_gradient_norms(module, X, engine="loop"))
    unverified = layer_gradient_norms(module, X, engine="capture", verify=False)
    np.testing.assert_allclose(unverified[:, -1], norms[:, -1] / 4)


class Forgetful(nn.Module):
    """Runs out of memory above a batch size."""

    def __init__(self, module, limit):
        super().__init__()
        self.module, self.limit, self.sizes = module, limit, []

    def log_prob(self, X):
        self.sizes.append(len(X))
        if len(X) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.module.log_prob(X)


def test_memory_running_out_halves_the_batch_once_a_halving(caplog):
    inner, _ = CASES["mlp"].make(torch.float64)
    X = seeded((32, 6), torch.float64)
    module = Forgetful(inner, limit=9)
    norms = layer_gradient_norms(module, X, verify=False, batch_size=32)
    np.testing.assert_allclose(norms, layer_gradient_norms(inner, X, engine="loop"))
    assert module.sizes == [32, 16, 8, 8, 8, 8]
    assert [record.args for record in caplog.records] == [(32, 16), (16, 8)]
    with pytest.raises(torch.OutOfMemoryError):
        layer_gradient_norms(Forgetful(inner, limit=0), X)


def test_gram_norms_survive_cancellation():
    """Gradients whose terms cancel almost completely keep their digits in float32."""
    module = SquaredOutput(nn.Identity())
    module.weight = nn.Parameter(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(6, 1, 64, generator=torch.Generator().manual_seed(1))
    X = torch.cat([x, x * (1 + 1e-4)], 1)

    def cancelling(module, X, generator):
        h = X @ module.weight
        return (h[:, 0].sum(1) - h[:, 1].sum(1)).square() * 0.5 + h[:, 0].sum(1) - h[:, 1].sum(1)

    norms = layer_gradient_norms(
        module, X, log_likelihood=cancelling, engine="capture", verify=False
    )
    exact = layer_gradient_norms(
        module.double(), X.double(), log_likelihood=cancelling, engine="loop"
    )
    np.testing.assert_allclose(norms, exact, rtol=2e-2)


def test_an_engine_warns_once_and_remembers():
    module, X = CASES["softmax_over_the_batch"].make(torch.float64)
    engine = GradientEngine(module)
    with pytest.warns(EngineWarning, match="cannot be told apart"):
        engine.run(X, SquaredNorms(layer_layout(module)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.run(X, SquaredNorms(layer_layout(module)))
    assert engine.strategy == "func"


class Kink(nn.Module):
    """A rectifier whose input is zero up to rounding, and falls on either side by batch size."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def log_prob(self, X):
        tiny = 1e-7 if len(X) > 1 else -1e-7
        return -(X * self.weight).sum(1) - 5 * torch.relu(self.weight.sum() - 3 + tiny)


def test_a_rectifier_at_its_kink_is_no_reason_to_fall_back():
    module, X = Kink(), torch.ones(4, 3)
    engine, norms = GradientEngine(module), SquaredNorms(layer_layout(module))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.run(X, norms)
    assert engine.strategy == "capture"
    alone = layer_gradient_norms(module, X, engine="loop")
    assert (np.abs(norms.result() / alone - 1) > 0.5).all()


@pytest.mark.parametrize("width", [3, 70, 5000])
def test_norms_beyond_the_range_of_float32_are_finite(width):
    module = SquaredOutput(nn.Linear(width, 2)).float()
    X = torch.full((3, width), 1e15)
    for engine in ("capture", "loop"):
        norms = layer_gradient_norms(module, X, engine=engine, verify=False)
        assert np.isfinite(norms).all()
        assert norms[:, 0].min() > np.finfo(np.float32).max


@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_half_precision_of_any_kind_is_served(engine):
    module, X = CASES["mlp"].make(torch.bfloat16)
    norms = layer_gradient_norms(module, X, engine=engine, verify=False)
    exact, X = module.double(), X.double()
    np.testing.assert_allclose(norms, layer_gradient_norms(exact, X), rtol=0.1)


def test_parameters_computed_in_another_precision():
    module = nn.Linear(2, 2).double()
    X = seeded((5, 2), torch.float64)

    def mixed(module, X, generator):
        scale = module.bias.float().exp().sum()
        return -(X * scale).square().sum(1) - module(X).square().sum(1)

    norms = layer_gradient_norms(module, X, log_likelihood=mixed, engine="capture")
    expected = layer_gradient_norms(module, X, log_likelihood=mixed, engine="loop")
    np.testing.assert_allclose(norms, expected, rtol=1e-5)


class ChangesItsWays(nn.Module):
    """Does the same for two rows or one in a way that capture has no rule for, nor func sees."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.same = [self.scale]

    def log_prob(self, X):
        if len(X) > 2:
            return -(X * self.scale).square().sum(1)
        places = torch.searchsorted(self.scale.cumsum(0), X.contiguous())
        return -(X * self.same[0]).square().sum(1) + 0 * places.sum(1)


def test_what_takes_over_in_a_later_batch_is_verified_too():
    module, X = ChangesItsWays(), torch.arange(15.0).reshape(5, 3)
    with pytest.warns(EngineWarning, match="computed by 'loop'.*func: its results are not"):
        norms = layer_gradient_norms(module, X, batch_size=3)
    np.testing.assert_allclose(norms[:, 0], (2 * X.square()).square().sum(1), rtol=1e-6)


def test_an_error_of_single_rows_tells_why_they_came_alone():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False))
    with pytest.raises(ValueError, match="more than 1 value per channel") as raised:
        layer_gradient_norms(
            module, torch.randn(5, 3), log_likelihood=lambda m, X, generator: m(X).sum(1)
        )
    (note,) = raised.value.__notes__
    assert "'loop'" in note
    assert "capture: batch_norm normalises with the statistics of the batch" in note


class Conjugating(CaptureStrategy):
    """Hands over the conjugates of complex gradients: their norms are right."""

    def run(self, X, reducer):
        class Conjugates:
            def update(self, gradient):
                dense = DenseContribution(gradient.dense().conj().resolve_conj())
                reducer.update(dataclasses.replace(gradient, contributions=[dense]))

        return super().run(X, Conjugates())


def test_verification_looks_at_gradients_not_only_at_their_norms(monkeypatch):
    from skgradood.gradients import engine

    monkeypatch.setitem(engine.STRATEGIES, "capture", Conjugating)
    module = nn.Module()
    module.w = nn.Parameter(torch.randn(3, 4, dtype=torch.complex64))
    module.log_prob = lambda X: torch.view_as_real(X * (1 + 1j) @ module.w.mT).sin().sum((1, 2))
    X = seeded((5, 4), torch.float32)
    with pytest.raises(StrategyRefused, match="a component of the gradient of layer 'w' of row"):
        layer_gradient_norms(module, X, engine="capture")


def test_a_squeezed_sample_is_told_of():
    module = nn.Linear(3, 1)
    with pytest.raises(TypeError, match=r"squeeze\(\) has taken the one sample's dimension"):
        layer_gradient_norms(
            module, torch.randn(4, 3), log_likelihood=lambda m, X, generator: m(X).squeeze()
        )


def test_dimensions_may_be_numpys():
    module = SquaredOutput(nn.Linear(4, 4))
    module.log_prob = lambda X: -module.body(X).unflatten(1, (2, 2)).sum(np.int64(1)).exp().sum(1)
    X = seeded((5, 4), torch.float32)
    engine = GradientEngine(module)
    norms = SquaredNorms(layer_layout(module))
    engine.run(X, norms)
    assert engine.strategy == "capture"
    np.testing.assert_allclose(
        norms.result(), layer_gradient_norms(module, X, engine="loop"), rtol=1e-4
    )

"""Lower precision: what is asked for happens, in every strategy, within its own rounding."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from skgradood import GradientNormTransformer
from skgradood.gradients import (
    EngineWarning,
    GradientEngine,
    SquaredNorms,
    StrategyRefused,
    layer_gradient_norms,
    layer_layout,
)
from tests.gradients.building import SquaredOutput, built, seeded
from tests.gradients.cases import CASES

EPS = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
# A custom function in them meets another precision than its author thought of.
TYPICAL = (
    *("mlp", "linear_over_positions", "conv1d", "conv2d", "conv2d_grouped", "conv_transpose2d"),
    *("batch_norm_eval", "layer_norm", "group_norm", "prelu", "embedding_sequence", "bilinear"),
    *("tied_embedding", "transformer_layer", "class_token", "weight_norm_conv", "einsum"),
    *("matrix_products", "vae", "glow_lu", "frozen_parameters", "noise_from_generator"),
)


def made(name):
    return CASES[name].make(torch.float32)


def autocast_norms(module, X, dtype):
    """Squared norms by plain autograd under torch's own autocast, one row at a time."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    rows = []
    for i in range(len(X)):
        with torch.autocast("cpu", dtype):
            value = module.log_prob(X[i : i + 1])
        gradients = torch.autograd.grad(value.float().sum(), parameters, allow_unused=True)
        rows.append([0.0 if g is None else float(g.double().square().sum()) for g in gradients])
    return np.array(rows)


def worst_relative_error(actual, expected):
    """Largest error relative to a layer's norm, or to 1e-3 of all layers' for small ones."""
    scale = expected + 1e-3 * expected.sum(1, keepdims=True)
    return float(np.max(np.abs(actual - expected) / scale))


@pytest.mark.parametrize("autocast", EPS)
@pytest.mark.parametrize("name", TYPICAL)
def test_autocast_is_torchs_own(name, autocast):
    module, X = made(name)
    norms = SquaredNorms(layer_layout(module))
    engine = GradientEngine(module, autocast=autocast)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        engine.run(X, norms)
    assert engine.strategy == "capture"
    loop = layer_gradient_norms(module, X, engine="loop", autocast=autocast)
    assert worst_relative_error(norms.result(), loop) < 16 * EPS[autocast]
    if not name.startswith("noise"):
        plain = autocast_norms(module.eval(), X, getattr(torch, autocast))
        assert worst_relative_error(loop, plain) < EPS[autocast]
        exact = layer_gradient_norms(module, X)
        # It is no more exact than it should be, either: something was computed in it.
        assert EPS[autocast] / 100 < worst_relative_error(loop, exact) < 32 * EPS[autocast]


@pytest.mark.parametrize("autocast", EPS)
@pytest.mark.parametrize("name", ["mlp", "conv2d", "bilinear", "tied_embedding"])
def test_func_serves_autocast_too(name, autocast):
    module, X = made(name)
    func = layer_gradient_norms(module, X, engine="func", autocast=autocast)
    loop = layer_gradient_norms(module, X, engine="loop", autocast=autocast)
    assert worst_relative_error(func, loop) < 16 * EPS[autocast]


@pytest.mark.parametrize("autocast", EPS)
def test_a_coupling_of_rows_is_seen_through_the_rounding(autocast):
    module, X = CASES["divided_by_the_batch_size"].make(torch.float32)
    with pytest.warns(EngineWarning, match="couple the rows"):
        norms = layer_gradient_norms(module, X, autocast=autocast)
    loop = layer_gradient_norms(module, X, engine="loop", autocast=autocast)
    assert worst_relative_error(norms, loop) < 8 * EPS[autocast]
    with pytest.raises(StrategyRefused, match="couple the rows"):
        layer_gradient_norms(module, X, engine="capture", autocast=autocast)


def test_double_precision_is_left_alone_as_torch_does():
    module, X = CASES["conv2d"].make(torch.float64)
    np.testing.assert_array_equal(
        layer_gradient_norms(module, X, autocast="bfloat16"), layer_gradient_norms(module, X)
    )


@pytest.mark.parametrize("engine", ["capture", "loop"])
def test_beyond_float16_norms_are_not_finite_rather_than_wrong(engine):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = SquaredOutput(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    for scale in (3e3, 6e4, 1e6):
        X = scale * seeded((3, 4), torch.float32)
        options = {"verify": False, "engine": engine}
        norms = layer_gradient_norms(module, X, autocast="float16", **options)
        exact = layer_gradient_norms(module, X, **options)
        finite = np.isfinite(norms)
        np.testing.assert_allclose(norms[finite], exact[finite], rtol=0.02)
        assert not finite.all() or scale == 3e3
        assert np.isfinite(layer_gradient_norms(module, X, autocast="bfloat16", **options)).all()


def test_the_transformer_takes_the_option():
    module, X = CASES["vae"].make(torch.float32)
    half = GradientNormTransformer(module, autocast="bfloat16").fit_transform(X.numpy())
    exact = GradientNormTransformer(module).fit_transform(X.numpy())
    assert 0 < worst_relative_error(half, exact) < 32 * EPS["bfloat16"]


def test_unknown_precisions_are_refused():
    module, X = CASES["mlp"].make(torch.float32)
    with pytest.raises(ValueError, match=r"autocast must be None or one of .*; got 'float8'"):
        layer_gradient_norms(module, X, autocast="float8")


class LanguageModel(nn.Module):
    """Computes in bfloat16, of its own accord or by its parameters, and returns float32."""

    def __init__(self, *, own_autocast: bool):
        super().__init__()
        self.tokens = nn.Embedding(100, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head, self.own_autocast = nn.Linear(64, 100), own_autocast

    def log_prob(self, X):
        length, dtype = X.shape[1] - 1, self.head.weight.dtype
        mask = nn.Transformer.generate_square_subsequent_mask(length, dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.own_autocast):
            h = self.layers(self.tokens(X[:, :-1]), mask=mask, is_causal=True)
            logits = self.head(h)
        return logits.float().log_softmax(-1).gather(2, X[:, 1:, None]).sum((1, 2))


@pytest.mark.parametrize("own_autocast", [True, False])
def test_values_in_whole_precision_may_be_computed_in_half(own_autocast):
    module = built(lambda: LanguageModel(own_autocast=own_autocast))
    module = module if own_autocast else module.bfloat16()
    X = torch.randint(0, 100, (8, 24), generator=torch.Generator().manual_seed(0))
    engine = GradientEngine(module)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        engine.run(X, SquaredNorms(layer_layout(module)))
    assert engine.strategy == "capture"

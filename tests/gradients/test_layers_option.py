"""Groupings of parameters: expressions, callables and dicts, against sums of plain norms."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from skgradood.gradients import (
    GradientEngine,
    LayerGradient,
    SquaredNorms,
    layer_gradient_norms,
    layer_layout,
    layer_names,
)
from skgradood.gradients.layers import trainable_parameters
from tests.gradients.building import seeded
from tests.gradients.cases import CASES
from tests.gradients.test_engines import autograd_norms


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_those_that_torch_names(name):
    """Each tensor once, tied or in a module that occurs twice, in torch's order."""
    module, _ = CASES[name].make(torch.float32)
    listed = trainable_parameters(module)
    expected = {n: p for n, p in module.named_parameters() if p.requires_grad}
    assert list(listed) == list(expected)
    assert all(listed[n] is expected[n] for n in expected)


class TwoParts(nn.Module):
    """A model whose parameters are `encoder.{0,2}.*`, `decoder.*` and `scale`."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.encoder = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
            self.decoder = nn.Linear(3, 4)
        self.scale = nn.Parameter(torch.tensor(0.3))

    def log_prob(self, X):
        residual = X - self.decoder(self.encoder(X).tanh())
        return -(residual.square() * torch.exp(self.scale)).sum(1)


SIZES = {
    "scale": 1,
    "encoder.0.weight": 20,
    "encoder.0.bias": 5,
    "encoder.2.weight": 15,
    "encoder.2.bias": 3,
    "decoder.weight": 12,
    "decoder.bias": 4,
}
ENCODER = [name for name in SIZES if name.startswith("encoder")]
DECODER = ["decoder.weight", "decoder.bias"]
WEIGHTS = [name for name in SIZES if name.endswith("weight")]
BIASES = [name for name in SIZES if name.endswith("bias")]


def by_dimension(name, parameter):
    return {1: "vectors", 2: "matrices"}.get(parameter.ndim)


# What is passed, and by hand what it means.
GROUPINGS = {
    "group 1": (re.compile(r"^(encoder|decoder)\."), {"encoder": ENCODER, "decoder": DECODER}),
    "group 1 of two": (
        re.compile(r"(\d)\.(weight|bias)"),
        {"0": ENCODER[:2], "2": ENCODER[2:]},
    ),
    "whole match": (re.compile(r"weight|bias"), {"weight": WEIGHTS, "bias": BIASES}),
    "a group that takes no part": (
        re.compile(r"^encoder\.(\d)|^decoder"),
        {"0": ENCODER[:2], "2": ENCODER[2:], "decoder": DECODER},
    ),
    "flags": (re.compile("DECODER", re.IGNORECASE), {"decoder": DECODER}),
    "string": (r"regex:(bias|scale)$", {"scale": ["scale"], "bias": BIASES}),
    "callable": (by_dimension, {"matrices": WEIGHTS, "vectors": BIASES}),
    "dict": ({"b": BIASES, "a": ("scale",)}, {"b": BIASES, "a": ["scale"]}),
    "dict that overlaps": (
        {"all": list(SIZES), "encoder": ENCODER, "weights": WEIGHTS},
        {"all": list(SIZES), "encoder": ENCODER, "weights": WEIGHTS},
    ),
}


@pytest.mark.parametrize("engine", ["capture", "func", "loop"])
@pytest.mark.parametrize("name", GROUPINGS)
def test_layers_are_sums_of_the_norms_of_their_parameters(name, engine):
    layers, meaning = GROUPINGS[name]
    module, X = TwoParts().double(), seeded((7, 4), torch.float64)
    each = dict(zip(SIZES, autograd_norms(module, X).T, strict=True))
    expected = np.stack([sum(each[p] for p in members) for members in meaning.values()], axis=1)
    norms = layer_gradient_norms(module, X, layers=layers, engine=engine, batch_size=4)
    np.testing.assert_allclose(norms, expected, rtol=1e-9)
    assert sorted(layer_names(module, layers=layers)) == sorted(meaning)


@pytest.mark.parametrize("name", GROUPINGS)
def test_names_have_the_order_of_the_parameters_or_of_the_dict_and_sizes_add_up(name):
    layers, meaning = GROUPINGS[name]
    layout = layer_layout(TwoParts(), layers)
    assert layout.names == list(meaning)
    assert layout.n_parameters == [sum(SIZES[p] for p in group) for group in meaning.values()]


def test_a_gaussian_whose_two_tensors_are_one_layer_in_closed_form():
    module = nn.Module()
    module.mean, module.log_scale = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))
    module.double()

    def log_likelihood(module, X, generator):
        z = (X - module.mean) * torch.exp(-module.log_scale)
        return (-0.5 * z.square() - module.log_scale).sum(1)

    X = seeded((6, 3), torch.float64)
    z = X.numpy() - 1
    expected = (z**2 + (z**2 - 1) ** 2).sum(1)
    norms = layer_gradient_norms(
        module, X, log_likelihood=log_likelihood, layers=lambda name, parameter: "all"
    )
    np.testing.assert_allclose(norms, expected[:, None])


def test_sizes_of_the_named_groupings():
    assert layer_layout(TwoParts()).n_parameters == list(SIZES.values())
    modules = layer_layout(TwoParts(), "module")
    assert dict(zip(modules.names, modules.n_parameters, strict=True)) == {
        "TwoParts": 1, "encoder.0": 25, "encoder.2": 18, "decoder": 16
    }  # fmt: skip
    channels = layer_layout(TwoParts(), "channel")
    expected = [1] + [4] * 5 + [1] * 5 + [5] * 3 + [1] * 3 + [3] * 4 + [1] * 4
    assert channels.n_parameters == expected
    assert len(channels.names) == len(expected)


def test_sizes_of_the_channels_of_a_transposed_convolution():
    module = nn.ConvTranspose2d(4, 6, (3, 2), groups=2)
    # An output channel sees the 4 / 2 inputs of its group through kernels of 3 by 2.
    assert layer_layout(module, "channel").n_parameters == [12] * 6 + [1] * 6


def test_parameters_left_out_are_never_reduced(monkeypatch):
    module, X = TwoParts().double(), seeded((5, 4), torch.float64)
    asked = []

    for method in ("squared_norm", "dense"):
        original = getattr(LayerGradient, method)

        def recording(self, *args, original=original):
            asked.append(self.name)
            return original(self, *args)

        monkeypatch.setattr(LayerGradient, method, recording)
    norms = SquaredNorms(layer_layout(module, re.compile("decoder")))
    GradientEngine(module, verify=False).run(X, norms)
    assert set(asked) == set(DECODER)
    assert norms.result().shape == (5, 1)


def test_frozen_parameters_are_in_no_layer():
    module = TwoParts()
    module.decoder.requires_grad_(False)
    layout = layer_layout(module, "regex:^[a-z]+")
    assert layout.names == ["scale", "encoder"]
    assert layout.n_parameters == [1, 43]
    with pytest.raises(ValueError, match=r"'d'.*'decoder.bias', but .*requires_grad=False"):
        layer_layout(module, {"d": ["decoder.bias"]})


def test_a_tied_parameter_goes_by_its_first_name():
    module, X = CASES["tied_embedding"].make(torch.float64)
    names = [name for name, _ in module.named_parameters()]
    each = dict(zip(names, autograd_norms(module, X).T, strict=True))
    norms = layer_gradient_norms(module, X, layers={"tokens": ["tokens.weight"]})
    np.testing.assert_allclose(norms[:, 0], each["tokens.weight"], rtol=1e-9)
    with pytest.raises(ValueError, match=r"'head.weight', but .*shared.* use 'tokens.weight'"):
        layer_layout(module, {"head": ["head.weight"]})


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ("modul", ValueError, r"one of \['channel', 'module', 'parameter'\], 'regex:.*got 'modul'"),
        ("encoder.*", ValueError, r"regex:<expression>.*callable.*dict.*got 'encoder\.\*'"),
        (3, TypeError, "layers must be one of.*got 3"),
        (None, TypeError, "layers must be one of.*got None"),
        ("regex:(", ValueError, r"'regex:\(' holds no regular expression: missing \)"),
        ("regex:coder$", ValueError, r"none of the parameters of TwoParts.*7 trainable.*'scale'"),
        ("regex:", ValueError, "layer of parameter 'scale' .* got an empty string"),
        (re.compile(b"encoder"), TypeError, "str, not bytes"),
        (lambda name: name, TypeError, r"layers\(name, parameter\) -> str or None.*\(name\)"),
        (lambda name, p: None, ValueError, "none of the parameters of TwoParts"),
        (lambda name, p: 3, TypeError, "layer of parameter 'scale' must be .* a str; got 3"),
        ({}, ValueError, "at least one layer; got an empty dict"),
        ({"a": []}, ValueError, r"layers\['a'\] is empty"),
        ({"a": "scale"}, TypeError, r"layers\['a'\] must be a list .* got 'scale'"),
        ({"a": None}, TypeError, r"layers\['a'\] must be a list .* got None"),
        ({"a": ["scale", "scale"]}, ValueError, r"layers\['a'\] holds a parameter twice"),
        ({3: ["scale"]}, TypeError, "a key of layers must be .* a str; got 3"),
        ({"": ["scale"]}, ValueError, "a key of layers must be .* empty string"),
        (
            {"a": ["encoder.0.wieght"]},
            ValueError,
            r"'encoder.0.wieght', but TwoParts has no such .* did you mean 'encoder.0.weight' or",
        ),
        ({"a": ["xyz"]}, ValueError, r"no such parameter; its 7 trainable .*'scale', .*\.\.\.$"),
        ({"a": [7]}, ValueError, r"\['a'\] holds 7, but TwoParts has no such parameter"),
    ],
)
def test_wrong_layers_are_named_and_the_way_out_too(layers, error, message):
    with pytest.raises(error, match=message):
        layer_names(TwoParts(), layers=layers)

"""A stand-in for an accelerator: a device whose tensors have shapes and no values.

On "meta", operands of two devices are an error, and so is looking at a value, for which Python
would have to wait on an accelerator. What may look is replaced here, and is all that does.
"""

from __future__ import annotations

import pytest
import torch

from skgradood.gradients import (
    SquaredNorms,
    contributions,
    convolution,
    layer_gradient,
    layer_layout,
)
from skgradood.gradients.capture import CaptureStrategy, noise, probing
from skgradood.gradients.likelihood import LogLikelihood
from tests.gradients.cases import CASES

# Noise is drawn from real generators; torch's own mixtures check the values of their parameters.
FOLLOWED = [
    name
    for name, case in CASES.items()
    if case.strategy == "capture"
    and "noise" not in name
    and name != "mixture_by_broadcasting"
    and not case.looks
]


@pytest.fixture
def may_look(monkeypatch):
    """What looks at values, or needs a device that has some."""
    # Generators live on the device, which needs no waiting.
    monkeypatch.setattr(
        noise, "seeded_generator", lambda device, seed: torch.Generator().manual_seed(seed)
    )
    # A function is asked once a shape where it puts the samples, which is remembered.
    monkeypatch.setattr(
        probing, "_constant", lambda tensor: torch.ones(tensor.shape, dtype=tensor.dtype)
    )
    # A Gram norm that cancelled is computed again: one look for each layer that takes this way.
    for module in (contributions, convolution):
        monkeypatch.setattr(
            module, "dense_where_distrusted", lambda contribution, norms, trusted: norms
        )
    monkeypatch.setattr(
        layer_gradient, "_formed_where_distrusted", lambda gradient, norms, trusted: norms
    )


@pytest.mark.usefixtures("may_look")
@pytest.mark.parametrize("name", FOLLOWED)
def test_a_pass_stays_on_its_device_and_never_looks_at_a_value(name):
    module, X = CASES[name].make(torch.float32)
    module, X = module.eval().to("meta"), X.to("meta")
    norms = SquaredNorms(layer_layout(module, "channel"))
    norms.begin(len(X), X.device)
    values = CaptureStrategy(module, LogLikelihood()).run(X, norms)
    assert values.device == norms.current.device == torch.device("meta")
    assert norms.current.shape == (len(X), len(norms.layout.names))


@pytest.mark.usefixtures("may_look")
@pytest.mark.parametrize("name", FOLLOWED)
def test_so_do_dense_gradients_and_squared_norms(name):
    module, X = CASES[name].make(torch.float32)
    module, X = module.eval().to("meta"), X.to("meta")

    class Shapes:
        def update(self, gradient):
            for result in (gradient.squared_norm(), gradient.dense()):
                assert result.device == torch.device("meta")
            assert gradient.dense().shape == (gradient.n, *gradient.shape)

    CaptureStrategy(module, LogLikelihood()).run(X, Shapes())

"""On a device without float64: every architecture, engine and reducer, as on the CPU.

The device is a simulated one, see :mod:`tests.gradients.simulated_device`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skgradood.fisher import APPROXIMATIONS, FisherEstimate, FisherOptions, QuadraticForms
from skgradood.gradients import GradientEngine, SquaredNorms, layer_layout
from skgradood.gradients.alignment import Cosines, MeanGradients
from skgradood.gradients.reducers import Both
from tests.fisher.test_cases import FOLLOWED_BY_FUNC, LARGEST_BLOCK
from tests.gradients.cases import CASES
from tests.gradients.simulated_device import moved, simulated_device

# torch wants the lengths of packed sequences on the CPU, of which the simulation knows nothing; nor
# does it of tensors that torch's distributions make without going by the device.
_UNKNOWN = (
    "noise_drawn_by_laplace",
    "noise_drawn_by_gamma_of_constants",
    "noise_not_drawn_by_gamma",
)
NAMES = [name for name in CASES if not name.startswith("packed") and name not in _UNKNOWN]
QUICK = {
    "auto": {
        *("mlp", "linear_over_positions", "conv2d_grouped", "conv_transpose2d", "group_norm"),
        *("embedding_with_padding", "weight_norm", "elementwise_zoo", "class_token", "lstm"),
        "noise_from_generator",
    },
    "func": {"mlp", "conv2d"},
    "loop": {"mlp", "conv2d"},
}


def runs(engine, names):
    return [
        (engine, name) if name in QUICK[engine]
        else pytest.param(engine, name, marks=pytest.mark.slow)
        for name in names
    ]  # fmt: skip


def measured(module, X, engine):
    """What all reducers say of the rows, by a name each: log-likelihoods (n,), others (n, L)."""
    module.eval()
    layout, channels = layer_layout(module), layer_layout(module, "channel")
    is_small = max(layout.n_parameters) <= LARGEST_BLOCK
    kinds = [kind for kind in APPROXIMATIONS if kind != "block" or is_small]
    options = FisherOptions(damping=1e-2, sketch_size=20)
    runner = GradientEngine(module, engine=engine, verify=False, batch_size=len(X))
    estimate = FisherEstimate.of_module(module, layout, kinds, options)
    mean = MeanGradients(layout)
    estimate.fit(lambda sums: runner.run(X[:-1], Both(mean, sums)))
    norms, of_channels = SquaredNorms(layout), SquaredNorms(channels)
    forms, cosines = QuadraticForms(layout, estimate.by_parameter), Cosines(layout, mean.result())
    values = runner.run(X, Both(Both(norms, of_channels), Both(forms, cosines)))
    return {
        "log-likelihoods": values,
        "norms": norms.result(),
        "norms of channels": of_channels.result(),
        "cosines": cosines.result(),
        **dict(zip(kinds, forms.result(), strict=True)),
    }


@pytest.mark.filterwarnings("ignore::skgradood.gradients.EngineWarning")
@pytest.mark.parametrize(
    ("engine", "name"),
    [*runs("auto", NAMES), *runs("func", FOLLOWED_BY_FUNC), *runs("loop", NAMES)],
)
def test_equals_the_results_of_sums_in_float64(monkeypatch, engine, name):
    expected = measured(*CASES[name].make(torch.float32), engine)
    with simulated_device(monkeypatch):
        module, X = CASES[name].make(torch.float32)
        actual = measured(moved(module), X, engine)
    assert actual.keys() == expected.keys()
    for what, values in expected.items():
        assert actual[what].dtype == values.dtype == np.float64
        # What cancels is compared on the scale of its row; cosines on that of one.
        noise = 1e-6 if what == "cosines" else 1e-10 * np.abs(values).sum(-1, keepdims=True)
        excess = np.abs(actual[what] - values) - 1e-4 * np.abs(values) - noise
        assert (excess <= 0).all(), what


def test_sums_over_batches_are_kept_in_float64_on_the_cpu(monkeypatch):
    """In float32, 1 would be lost beside 2^24."""
    module = torch.nn.Linear(1, 1, bias=False)
    X = torch.tensor([[4096.0], *[[1.0]] * 10])

    def log_likelihood(module, X, generator):
        return module(X)[:, 0]

    with simulated_device(monkeypatch):
        there = moved(module)
        estimate = FisherEstimate.of_module(
            there, layer_layout(there), ["diagonal", "block"], FisherOptions(damping=0.0)
        )
        engine = GradientEngine(there, log_likelihood=log_likelihood, batch_size=1)
        estimate.fit(lambda sums: engine.run(X, sums))
    for approximation in estimate.by_parameter["weight"]:
        assert approximation.eigenvalues.is_cpu
        np.testing.assert_allclose(
            approximation.eigenvalues.flatten(), (2**24 + 10) / 11, rtol=1e-15
        )


def test_a_fit_there_goes_on_here(monkeypatch):
    module, X = CASES["conv2d"].make(torch.float32)
    layout, options = layer_layout(module), FisherOptions(damping=1e-2)

    def estimate_of(module):
        return FisherEstimate.of_module(module, layout, ["ekfac", "sketch"], options)

    def extended(estimate, module):
        engine = GradientEngine(module, batch_size=4, verify=False)
        estimate.extend(lambda sums: engine.run(X[2:], sums))
        forms = QuadraticForms(layout, estimate.by_parameter)
        engine.run(X, forms)
        return forms.result()

    here = GradientEngine(module, batch_size=4, verify=False)
    expected = extended(estimate_of(module).fit(lambda sums: here.run(X[:2], sums)), module)
    with simulated_device(monkeypatch):
        there = GradientEngine(moved(CASES["conv2d"].make(torch.float32)[0]), batch_size=4)
        estimate = estimate_of(module).fit(lambda sums: there.run(X[:2], sums))
    np.testing.assert_allclose(extended(estimate, module), expected, rtol=1e-4)

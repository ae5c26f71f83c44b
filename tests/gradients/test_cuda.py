"""The same results on a GPU, without waiting for it between batches."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from skgradood import GradientNormTransformer
from skgradood.gradients import (
    EngineWarning,
    GradientEngine,
    SquaredNorms,
    layer_gradient_norms,
    layer_layout,
)
from skgradood.gradients.batching import Feeder, available_memory
from tests.gradients.building import seeded
from tests.gradients.cases import CASES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

# Draws differ between devices; custom functions and cases of the loop add nothing here.
SERVED = [n for n, case in CASES.items() if case.strategy == "capture" and "noise" not in n]


@pytest.fixture(autouse=True)
def full_float32():
    """Products in float32, not in TensorFloat-32, which has the digits of float16."""
    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def assert_close(actual, expected, rtol):
    noise = 1e-10 * expected.sum(1, keepdims=True)
    error = np.abs(actual - expected)
    assert (error <= rtol * expected + noise).all(), np.max(error / (expected + noise))


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float32, 1e-3), (torch.float64, 1e-8)], ids=["single", "double"]
)
@pytest.mark.parametrize("name", SERVED)
def test_cuda_equals_the_cpu(name, dtype, rtol):
    module, X = CASES[name].make(dtype)
    expected = layer_gradient_norms(module, X, engine="loop")
    norms = SquaredNorms(layer_layout(module))
    engine = GradientEngine(module, device="cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        engine.run(X, norms)
    assert engine.strategy == "capture"
    assert_close(norms.result(), expected, rtol)
    assert all(p.device.type == "cpu" for p in module.parameters())


@pytest.mark.parametrize("engine", ["func", "loop"])
@pytest.mark.parametrize("name", ["mlp", "conv2d", "vae", "glow_lu"])
def test_the_other_strategies_run_there_too(name, engine):
    module, X = CASES[name].make(torch.float64)
    expected = layer_gradient_norms(module, X, engine="loop")
    norms = layer_gradient_norms(module, X, engine=engine, device="cuda")
    assert_close(norms, expected, 1e-8)


@pytest.mark.parametrize("name", ["noise_from_generator", "noise_from_global_generator"])
def test_noise_belongs_to_the_row_on_a_gpu(name):
    module, X = CASES[name].make(torch.float64)
    norms = layer_gradient_norms(module, X, device="cuda", random_state=4)
    order = [2, 0, 3, 1]
    shuffled = layer_gradient_norms(module, X[order], device="cuda", random_state=4, batch_size=3)
    np.testing.assert_allclose(shuffled, norms[order])


@pytest.mark.parametrize(("autocast", "eps"), [("bfloat16", 2.0**-7), ("float16", 2.0**-10)])
@pytest.mark.parametrize("name", ["mlp", "conv2d", "transformer_layer", "vae"])
def test_autocast_on_a_gpu(name, autocast, eps):
    module, X = CASES[name].make(torch.float32)
    options = {"device": "cuda", "autocast": autocast}
    norms = layer_gradient_norms(module, X, engine="capture", **options)
    loop = layer_gradient_norms(module, X, engine="loop", **options)
    scale = loop + 1e-3 * loop.sum(1, keepdims=True)
    assert np.max(np.abs(norms - loop) / scale) < 32 * eps


def test_batches_travel_and_arrive_in_order():
    X = seeded((1000, 33), torch.float32)
    feeder = Feeder(X, torch.device("cuda"))
    batches = [feeder.take(start, 64) for start in range(0, 1000, 64)]
    assert torch.equal(torch.cat(batches).cpu(), X)
    # After memory ran out: the same rows again, in smaller batches.
    feeder = Feeder(X, torch.device("cuda"))
    feeder.take(0, 64)
    assert torch.equal(feeder.take(0, 32).cpu(), X[:32])
    assert torch.equal(feeder.take(32, 32).cpu(), X[32:64])


# Without Gram norms, which look at what they have lost by cancellation.
@pytest.mark.parametrize("name", ["mlp", "batch_norm_of_rows", "diagonal_gaussian"])
def test_a_batch_waits_for_the_gpu_once_at_most(name):
    module, X = CASES[name].make(torch.float32)
    module, X = module.cuda(), torch.cat([X] * 8).cuda()
    engine = GradientEngine(module, batch_size=len(X) // 4)
    engine.run(X, SquaredNorms(layer_layout(module)))  # verified, and shapes are known
    inside, waits = engine._run_batch, []

    def watched(batch, reducer):
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                return inside(batch, reducer)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            waits.append(sum("synchroniz" in str(w.message) for w in caught))

    engine._run_batch = watched
    engine.run(X, SquaredNorms(layer_layout(module)))
    assert len(waits) == 4
    assert max(waits) <= 1


def test_memory_running_out_for_true_halves_the_batch(caplog):
    module, X = CASES["mlp"].make(torch.float32)
    free = available_memory(torch.device("cuda"))

    def greedy(module, X, generator):
        taken = torch.empty(len(X) * free // 20, dtype=torch.uint8, device=X.device)
        return module.log_prob(X) + 0 * taken[0]

    X = torch.cat([X] * 8)[:32]
    norms = layer_gradient_norms(
        module, X, log_likelihood=greedy, device="cuda", batch_size=32, verify=False
    )
    assert_close(norms, layer_gradient_norms(module, X, engine="loop"), 1e-3)
    assert [record.args for record in caplog.records] == [(32, 16)]


def test_the_transformer_takes_the_gpu_by_itself():
    module, X = CASES["vae"].make(torch.float32)
    there = GradientNormTransformer(module).fit_transform(X.numpy())
    here = GradientNormTransformer(module, device="cpu").fit_transform(X.numpy())
    assert_close(there, here, 1e-3)

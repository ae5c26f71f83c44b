"""What a device without float64 has besides: waits, memory, generators; and that it is strict."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from skgradood.gradients import (
    GradientEngine,
    SquaredNorms,
    layer_gradient_norms,
    layer_layout,
    precision,
)
from skgradood.gradients.batching import available_memory
from skgradood.gradients.errors import is_out_of_memory
from skgradood.gradients.precision import in_float64, sum_dtype, widened
from skgradood.gradients.state import global_rng_states, isolated_rng
from tests.gradients.cases import CASES
from tests.gradients.simulated_device import DEVICE, moved, norms_there, simulated_device


def test_apples_gpus_sum_in_float32_and_all_others_in_float64():
    for device in ("cpu", "cuda:1", "xpu", "meta"):
        assert sum_dtype(torch.device(device)) is torch.float64
    assert sum_dtype(torch.device("mps")) is torch.float32
    assert widened(torch.ones(2, dtype=torch.float16)).dtype is torch.float64


def test_float64_comes_after_the_way_to_the_cpu(monkeypatch):
    with simulated_device(monkeypatch):
        there = torch.tensor([1.5, 2.5]).to(DEVICE)
        assert widened(there).dtype is torch.float32
        assert widened(there).device == DEVICE
        assert torch.equal(in_float64(there), torch.tensor([1.5, 2.5], dtype=torch.float64))
        (in_float64(there))[0] = 7
        assert there.tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x.double(),
        lambda x: x.sum(dtype=torch.float64),
        lambda x: x.to("cpu", torch.float64),
        lambda x: torch.zeros(2, dtype=torch.float64).copy_(x),
        lambda x: torch.zeros(2, dtype=torch.float64, device=DEVICE),
        lambda x: torch.zeros(2, dtype=torch.float64).to(DEVICE),
        lambda x: torch.linalg.vector_norm(x, dtype=torch.float64),
        lambda x: x + torch.ones(2),
    ],
)
def test_the_simulated_device_refuses_what_an_apple_gpu_refuses(monkeypatch, step):
    with simulated_device(monkeypatch):
        x = torch.ones(2).to(DEVICE)
        with pytest.raises((TypeError, RuntimeError), match=r"has no torch\.float64|two devices"):
            step(x)
        assert (x + x.float()).tolist() == [2, 2]


def test_a_pass_that_sums_in_float64_is_found_out(monkeypatch):
    module, X = CASES["mlp"].make(torch.float32)
    with simulated_device(monkeypatch):
        monkeypatch.setattr(precision, "WITHOUT_FLOAT64", set())
        with pytest.raises(TypeError, match=r"has no torch\.float64"):
            layer_gradient_norms(module, X, device=DEVICE, engine="loop", batch_size=5)


def test_the_engine_copies_the_module_there_and_verifies(monkeypatch):
    module, X = CASES["conv2d"].make(torch.float32)
    expected = layer_gradient_norms(module, X, engine="loop")
    strategy, norms = norms_there(module, X, monkeypatch)
    assert strategy == "capture"
    np.testing.assert_allclose(norms, expected, rtol=1e-4)
    assert all(p.is_cpu for p in module.parameters())


# Gram norms look once a layer whether they have lost their digits.
@pytest.mark.parametrize(
    ("name", "n_gram"), [("mlp", 0), ("conv2d", 0), ("layer_norm", 0), ("transformer_layer", 1)]
)
def test_a_batch_waits_for_the_device_at_gram_norms_alone(monkeypatch, name, n_gram):
    module, X = CASES[name].make(torch.float32)
    X = torch.cat([X] * 3)
    with simulated_device(monkeypatch) as device:
        engine = GradientEngine(moved(module), batch_size=len(X) // 3)
        inside, waits = engine._run_batch, []

        def watched(batch, reducer):
            before = device.waits.total()
            values = inside(batch, reducer)
            waits.append(device.waits.total() - before)
            return values

        engine._run_batch = watched
        engine.run(X.to(DEVICE), SquaredNorms(layer_layout(module)))
    assert waits[0] > n_gram  # verified, and shapes were not known
    assert waits[1:] == [n_gram, n_gram]


def test_the_generator_of_an_apple_gpu_is_isolated(monkeypatch):
    generator = torch.Generator().manual_seed(5)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", generator.get_state)
    monkeypatch.setattr(torch.mps, "set_rng_state", generator.set_state)
    monkeypatch.setattr(torch.mps, "manual_seed", generator.manual_seed)
    before = global_rng_states()
    assert torch.equal(before[-1], generator.get_state())
    with isolated_rng(8):
        inside = torch.rand(3, generator=generator)
    expected = torch.rand(3, generator=torch.Generator().manual_seed(8))
    assert torch.equal(inside, expected)
    assert all(map(torch.equal, before, global_rng_states()))


def test_the_memory_of_an_apple_gpu(monkeypatch):
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 1000)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 400)
    assert available_memory(torch.device("mps")) == 600
    message = "MPS backend out of memory (MPS allocated: 18.13 GB, max allowed: 18.13 GB)"
    assert is_out_of_memory(RuntimeError(message))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


class ComplexScale(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        weight = torch.randn(3, 4, generator=generator, dtype=torch.complex64)
        self.weight = nn.Parameter(weight)

    def log_prob(self, X):
        z = X.to(self.weight.dtype) @ self.weight.T
        return -z.abs().square().sum(1) + z.real.sin().sum(1)


def test_complex_parameters(monkeypatch):
    X = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    module = ComplexScale()
    expected = layer_gradient_norms(module, X, engine="loop")
    with simulated_device(monkeypatch):
        norms = layer_gradient_norms(moved(module), X.to(DEVICE), batch_size=4)
    np.testing.assert_allclose(norms, expected, rtol=1e-5)

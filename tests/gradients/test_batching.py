"""Batch sizes from memory, and rows on their way to the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from skgradood.gradients import batching, layer_gradient_norms
from skgradood.gradients.batching import (
    LARGEST_BATCH,
    LARGEST_OF_SMALL_ROWS,
    Feeder,
    RowMemory,
    available_memory,
    fitting_batch_size,
    row_memory,
)
from skgradood.gradients.likelihood import LogLikelihood
from tests.gradients.building import SquaredOutput, seeded
from tests.gradients.cases import CASES

CPU = torch.device("cpu")


def memory_of(module, X):
    return row_memory(module.eval(), LogLikelihood(), X)


def test_the_memory_of_a_row_in_closed_form():
    class TwoProducts(nn.Module):
        """Saves x (5 floats), the result of a sigmoid (7) and of an exponential (7)."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(5, 7))

        def log_prob(self, X):
            return (X @ self.weight).sigmoid().exp().sum(1)

    expected = RowMemory(total=4 * (5 + 7 + 7), largest=4 * 7)
    assert memory_of(TwoProducts(), torch.ones(2, 5)) == expected
    # Neither the rest of the data nor the number of rows plays a part.
    assert memory_of(TwoProducts(), torch.ones(300, 5)) == expected
    doubled = memory_of(TwoProducts().double(), torch.ones(2, 5, dtype=torch.float64))
    assert doubled.total == 2 * expected.total


def test_weights_made_from_parameters_are_not_memory_of_a_row():
    module = SquaredOutput(nn.utils.parametrizations.weight_norm(nn.Linear(40, 50)))
    plain = SquaredOutput(nn.Linear(40, 50))
    X = torch.ones(2, 40)
    assert memory_of(module, X) == memory_of(plain, X)


@pytest.mark.parametrize(
    ("memory", "available", "threads", "expected"),
    [
        (RowMemory(total=1000, largest=10), 10**12, 1, LARGEST_OF_SMALL_ROWS),
        (RowMemory(total=1000, largest=2**9), 10**12, 1, 2048),
        (RowMemory(total=1000, largest=2**11), 10**12, 2, LARGEST_BATCH),
        (RowMemory(total=10**6, largest=2**9), 10**9, 1, 400),
        (RowMemory(total=10**7, largest=2**18), 10**12, 1, 32),
        (RowMemory(total=10**7, largest=2**18), 10**12, 3, 96),
        (RowMemory(total=10**9, largest=2**24), 10**12, 1, 8),
        (RowMemory(total=10**9, largest=2**24), 10**12, 2, 16),
        (RowMemory(total=10**9, largest=2**24), 10**10, 2, 4),
        (RowMemory(total=10**9, largest=2**24), 10**8, 2, 1),
        (RowMemory(total=0, largest=0), None, 2, LARGEST_OF_SMALL_ROWS),
    ],
)
def test_batches_are_near_the_cache_and_fit_into_memory(
    monkeypatch, memory, available, threads, expected
):
    monkeypatch.setitem(batching._MEASURES, "cpu", lambda device: available)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert fitting_batch_size(memory, CPU) == expected


def test_an_accelerator_takes_what_fits(monkeypatch):
    monkeypatch.setitem(batching._MEASURES, "cuda", lambda device: 10**10)
    device = torch.device("cuda")
    assert fitting_batch_size(RowMemory(total=10**7, largest=2**24), device) == 400
    small = RowMemory(total=10**5, largest=2**24)
    assert fitting_batch_size(small, device) == LARGEST_BATCH


def test_the_available_memory_is_a_part_of_the_machines():
    available = available_memory(CPU)
    with open("/proc/meminfo", encoding="ascii") as lines:
        total = 1024 * int(next(lines).split()[1])
    assert 0 < available < total
    assert available_memory(torch.device("meta")) is None


class Sizes(nn.Module):
    """Remembers the batch sizes that it has seen."""

    def __init__(self, module):
        super().__init__()
        self.module, self.sizes = module, []

    def log_prob(self, X):
        self.sizes.append(len(X))
        return self.module.log_prob(X)


@pytest.mark.parametrize("name", ["mlp", "conv2d", "vae", "glow_lu", "noise_from_generator"])
def test_the_batch_size_that_is_chosen_matters_by_rounding_alone(monkeypatch, name):
    inner, X = CASES[name].make(torch.float32)
    X = torch.cat([X] * 8)
    module = Sizes(inner)
    loop = layer_gradient_norms(inner, X, engine="loop")
    for available in (10**12, 12 * memory_of(inner, X).total):
        monkeypatch.setitem(batching._MEASURES, "cpu", lambda device, a=available: a)
        norms = layer_gradient_norms(module, X, verify=False)
        np.testing.assert_allclose(norms, loop, rtol=1e-4, atol=1e-9 * loop.max())
    assert module.sizes[:3] == [1, 2, len(X)]
    assert module.sizes[3:6] == [1, 2, 4]


def test_what_cannot_be_probed_is_served_all_the_same():
    module, X = CASES["mlp"].make(torch.float64)
    calls = []

    def fails_at_first(module, X, generator):
        calls.append(len(X))
        if len(calls) == 1:
            raise ValueError("not yet")
        return module.log_prob(X)

    norms = layer_gradient_norms(module, X, log_likelihood=fails_at_first)
    np.testing.assert_allclose(norms, layer_gradient_norms(module, X, engine="loop"))


@pytest.mark.parametrize("size", [1, 3, 7, 20])
def test_a_feeder_hands_out_every_row_once(size):
    X = seeded((7, 2), torch.float32)
    feeder = Feeder(X, CPU)
    batches = [feeder.take(start, size) for start in range(0, 7, size)]
    assert torch.equal(torch.cat(batches), X)

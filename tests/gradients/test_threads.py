"""Several threads at once: the generators that they share belong to one of them at a time."""

from __future__ import annotations

import contextlib
import threading

import torch

from skgradood.gradients.state import isolated_rng


def run(*targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_wait_for_each_other_with_the_global_generator():
    """Two that were in there together would draw from one seed, and restore one another's."""
    before = torch.get_rng_state()
    both_inside = threading.Barrier(2, timeout=0.2)
    drawn = {}

    def draw(seed):
        with isolated_rng(seed):
            with contextlib.suppress(threading.BrokenBarrierError):
                both_inside.wait()
            drawn[seed] = torch.rand(3)

    run(lambda: draw(0), lambda: draw(1))
    for seed in (0, 1):
        expected = torch.rand(3, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(drawn[seed], expected)
    assert torch.equal(torch.get_rng_state(), before)

"""The parts of the speed benchmark that decide what its table says."""

from __future__ import annotations

import argparse

import pytest
import torch
from torch import nn

from benchmarks import methods, peers, speed
from benchmarks.scaling import Perceptron
from benchmarks.zoo import ZOO, Entry, GatedPixelCNN
from skgradood.gradients import layer_gradient_norms, layer_names


class Rows(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def log_prob(self, X):
        return -self.b(self.a(X).tanh()).square().sum(1)


def batch(n):
    return torch.linspace(-1, 1, 3 * n).reshape(n, 3)


def gradient_norms(module, X):
    columns = torch.from_numpy(layer_gradient_norms(module, X).T)
    return dict(zip(layer_names(module), columns, strict=True))


def right(module, X, batch_size):
    return lambda: gradient_norms(module, X)


def by_modules(module, X, batch_size):
    norms = gradient_norms(module, X)
    sums = {m: norms[f"{m}.weight"] + norms[f"{m}.bias"] for m in ("a", "b")}
    return lambda: sums


def off_in_one_place(module, X, batch_size):
    norms = gradient_norms(module, X)
    norms["b.bias"][-1] *= 1.3
    return lambda: norms


def without_a_bias(module, X, batch_size):
    norms = gradient_norms(module, X)
    del norms["b.bias"]
    return lambda: norms


def failing(module, X, batch_size):
    raise NotImplementedError("no rule for Rows")


@pytest.mark.parametrize(
    ("peer", "expected"),
    [(right, None), (by_modules, None), (off_in_one_place, "wrong (0.3)")],
)
def test_a_peer_is_timed_only_if_it_is_right(monkeypatch, peer, expected):
    monkeypatch.setitem(peers.PEERS, "peer", peer)
    assert speed.Table(["peer"])._verdict("peer", "rows", Rows(), batch(5)) == expected


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (without_a_bias, "no norms of 1 of 4 tensors, as of b.bias"),
        (failing, "no rule for Rows"),
    ],
)
def test_a_refusal_is_explained_below_the_table(monkeypatch, peer, reason):
    monkeypatch.setitem(peers.PEERS, "peer", peer)
    table = speed.Table(["peer"])
    assert table._verdict("peer", "rows", Rows(), batch(5)) == "refuses[^1]"
    assert table.reasons == {f"peer, rows: {reason}": 1}


def test_a_line_of_the_table(monkeypatch):
    monkeypatch.setitem(speed.MODELS, "rows", Entry(Rows, batch))
    monkeypatch.setitem(peers.PEERS, "peer", without_a_bias)
    monkeypatch.setattr(speed, "peak_memory", lambda name, method, n, device: 100.0)
    monkeypatch.setattr(speed, "LEAST_SECONDS", 1e-9)
    ours = [methods.ORDINARY, methods.OURS, "func", "loop"]
    table = speed.Table([*ours, "peer"])
    arguments = argparse.Namespace(
        device="cpu", rounds=1, batch_size=[32], large=False, methods=ours
    )
    cells = table.add("rows", 32, arguments).strip("| ").split(" | ")
    assert cells[:3] == ["rows", "32", "26"]
    assert all(float(cell.strip("*")) > 0 for cell in cells[3:7])
    assert cells[7] == "refuses[^1]"
    assert cells[9] == "1.00"
    assert "[^1]: peer, rows: no norms" in table.page(arguments)


def test_a_run_takes_as_many_batches_as_fill_the_least_time(monkeypatch):
    module, X = Rows(), batch(4)
    monkeypatch.setattr(speed, "LEAST_SECONDS", 1e-9)
    assert speed.batches_a_run(module, X, "cpu") == 1
    monkeypatch.setattr(speed, "LEAST_SECONDS", 0.05)
    assert speed.batches_a_run(module, X, "cpu") > 1


@pytest.mark.parametrize("method", [methods.ORDINARY, methods.OURS, "norms + diagonal + EKFAC"])
def test_every_batch_of_a_run_is_served(method):
    seen = []

    class Watched(Rows):
        def log_prob(self, X):
            seen.append(len(X))
            return super().log_prob(X)

    run = methods.METHODS[method].start(Watched(), batch(10), 5)
    run()
    seen.clear()
    run()
    assert seen == [5, 5]


def test_every_batch_of_a_peer_is_served():
    seen = []

    def run(batch):
        seen.append(batch)
        return {"norm": batch}

    X = batch(7)
    assert torch.equal(peers.batch_after_batch(run, X, 3)()["norm"], X[6:])
    assert torch.equal(torch.cat(seen), X)


def test_the_benchmark_starts_again_once_with_memory_that_is_kept(monkeypatch):
    started = []
    monkeypatch.setattr(speed.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(speed.os, "execve", lambda *command: started.append(command))
    for key in speed.KEPT_MEMORY:
        monkeypatch.delenv(key, raising=False)
    assert speed.allocator() == ""
    speed.restart_with_kept_memory()
    ((_, _, environment),) = started
    assert environment.items() >= speed.KEPT_MEMORY.items()
    for key in speed.KEPT_MEMORY:
        monkeypatch.setenv(key, "7")
    speed.restart_with_kept_memory()
    assert len(started) == 1
    assert "MALLOC_MMAP_MAX_=7" in speed.allocator()


def test_a_glow_of_the_benchmark_has_no_zeros():
    assert all(parameter.any() for parameter in ZOO["Glow"].make().parameters())


def test_a_pixel_of_the_pixelcnn_sees_those_before_it_and_all_of_them():
    module = GatedPixelCNN(width=8, n_layers=5)
    X = torch.rand(1, 1, 9, 9, generator=torch.Generator()).mul(255).requires_grad_()
    above = left = X / 127.5 - 1
    for layer in module.layers:
        above, left = layer(above, left)
    row, column = 5, 4
    (gradient,) = torch.autograd.grad(module.head(left)[0, :, row, column].sum(), X)
    seen = {tuple(place) for place in gradient[0, 0].nonzero().tolist()}
    assert seen == {(r, c) for r in range(9) for c in range(9) if (r, c) < (row, column)}


def test_a_batch_of_every_model_has_one_log_likelihood_a_row():
    for name in ("PixelCNN", "row MLP"):
        assert ZOO[name].make().eval().log_prob(ZOO[name].batch(2)).shape == (2,)


@pytest.mark.parametrize("wanted", [10**4, 10**5, 10**6])
def test_perceptrons_have_the_size_that_is_asked_for(wanted):
    count = sum(p.numel() for p in Perceptron(wanted).parameters())
    assert abs(count / wanted - 1) < 0.05


def test_a_missing_package_names_the_extra():
    with pytest.raises(SystemExit, match=r"pip install 'skgradood\[peers\]'"):
        peers.required("no_such_package_of_peers")

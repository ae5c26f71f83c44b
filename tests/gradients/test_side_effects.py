"""Nothing of the user's is touched: module, batch, global generators, flags."""

from __future__ import annotations

import copy
import functools
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from skgradood.gradients import EngineWarning, layer_gradient_norms
from tests.gradients import modules
from tests.gradients.building import SquaredOutput
from tests.gradients.cases import CASES


def snapshot(module):
    """Everything of a module that a caller can see."""
    return {
        "values": copy.deepcopy(module.state_dict()),
        "gradients": [None if p.grad is None else p.grad.clone() for p in module.parameters()],
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "identities": [id(t) for t in (*module.parameters(), *module.buffers())],
        "modes": [m.training for m in module.modules()],
        "hooks": [len(m._forward_hooks) + len(m._backward_hooks) for m in module.modules()],
        "attributes": [sorted(vars(m)) for m in module.modules()],
        "rng": torch.get_rng_state(),
        "numpy_rng": np.random.mtrand._rand.get_state()[1].copy(),
        "threads": torch.get_num_threads(),
        "grad_mode": torch.is_grad_enabled(),
    }


def assert_same(before, after):
    for key, value in before.items():
        if key == "values":
            assert value.keys() == after[key].keys()
            assert all(torch.equal(value[k], after[key][k]) for k in value)
        elif key == "gradients":
            assert [g is None for g in value] == [g is None for g in after[key]]
            pairs = zip(value, after[key], strict=True)
            assert all(torch.equal(a, b) for a, b in pairs if a is not None)
        elif isinstance(value, (torch.Tensor, np.ndarray)):
            assert (value == after[key]).all()
        else:
            assert value == after[key], key


@pytest.mark.parametrize("engine", ["auto", "loop", "func"])
@pytest.mark.parametrize("name", CASES)
def test_module_and_generators_are_as_before(name, engine):
    module, X = CASES[name].make(torch.float32)
    module.train()
    next(iter(module.children()), module).eval()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    X_before, before = X.clone(), snapshot(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            layer_gradient_norms(module, X, engine=engine, random_state=1)
        except RuntimeError:
            assert engine == "func"  # which refuses some cases
    assert_same(before, snapshot(module))
    assert torch.equal(X, X_before)


class Breaks(nn.Module):
    """Changes itself in every way, then fails."""

    def __init__(self, error):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(3))
        self.error = error

    def log_prob(self, X):
        self.train()
        self.calls += 1
        self.layer.weight.data.mul_(2)
        self.layer.bias.data = torch.zeros(3)
        self.seen = X.detach().sum(0)
        torch.rand(3)
        self.layer(X).sum().backward()
        raise self.error


@pytest.mark.parametrize("engine", ["auto", "capture", "loop", "func"])
@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()], ids=type)
def test_everything_is_restored_after_an_exception(engine, error):
    module = Breaks(error).eval()
    before = snapshot(module)
    with pytest.raises((RuntimeError, KeyboardInterrupt)):
        layer_gradient_norms(module, torch.randn(4, 3, generator=torch.Generator()), engine=engine)
    assert_same(before, snapshot(module))


@pytest.mark.filterwarnings("error")
def test_the_callers_context_does_not_matter():
    module, X = CASES["mlp"].make(torch.float64)
    expected = layer_gradient_norms(module, X)
    assert_close = functools.partial(np.testing.assert_allclose, rtol=1e-12)
    with torch.no_grad():
        assert_close(layer_gradient_norms(module, X), expected)
    with torch.inference_mode():
        inference_X = X.clone()
        assert_close(layer_gradient_norms(module, inference_X), expected)
    assert_close(layer_gradient_norms(module, X.requires_grad_()), expected)
    assert X.grad is None


@pytest.mark.parametrize("name", ["noise_from_generator", "noise_from_global_generator"])
def test_a_rows_noise_depends_on_its_content_and_the_seed_alone(name):
    module, X = CASES[name].make(torch.float64)
    norms = layer_gradient_norms(module, X, random_state=4)
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(
        layer_gradient_norms(module, X[order], random_state=4), norms[order], rtol=1e-12
    )
    np.testing.assert_allclose(
        layer_gradient_norms(module, X[1:2], random_state=4), norms[1:2], rtol=1e-12
    )
    torch.manual_seed(0)  # the caller's generators play no part
    np.testing.assert_array_equal(layer_gradient_norms(module, X, random_state=4), norms)
    other = layer_gradient_norms(module, X, random_state=5)
    assert (np.abs(other / norms - 1) > 1e-3).all()


@pytest.mark.parametrize("name", CASES)
def test_results_do_not_depend_on_the_batch(name):
    module, X = CASES[name].make(torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)
        norms = layer_gradient_norms(module, X)
        for batch_size in (1, 2, 3):
            again = layer_gradient_norms(module, X, batch_size=batch_size)
            np.testing.assert_allclose(again, norms, rtol=1e-9, atol=1e-20 * norms.max())


def test_no_state_is_left_in_a_module_with_running_statistics():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    modules.randomise(module)
    module.log_prob = lambda X: module(X).flatten(1).sum(1)
    before = snapshot(module.train())
    layer_gradient_norms(module, torch.rand(4, 1, 5, 5, generator=torch.Generator()))
    assert_same(before, snapshot(module))


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("engine", ["capture", "func", "loop"])
def test_what_a_module_keeps_of_its_last_pass_is_as_it_was(engine):
    linear = torch.nn.utils.weight_norm(nn.Linear(5, 3))
    module = SquaredOutput(nn.Sequential(linear, nn.Tanh()))
    module.log_prob(torch.randn(2, 5))
    kept = linear.weight
    layer_gradient_norms(module, torch.randn(4, 5), engine=engine)
    assert linear.weight is kept


class InitialisesItself(nn.Module):
    """Takes its parameters from the first batch it sees, as flows with ActNorm may."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3))
        self.register_buffer("done", torch.tensor(False))

    def log_prob(self, X):
        if not self.done:
            self.shift.data = -X.mean(0)
            self.done.fill_(True)
        return -(X + self.shift).square().sum(1)


def test_a_module_that_initialises_itself_is_not_initialised():
    module = InitialisesItself()
    memory = module.shift.data_ptr()
    before = snapshot(module)
    layer_gradient_norms(module, torch.rand(6, 3, generator=torch.Generator()), verify=False)
    assert_same(before, snapshot(module))
    assert module.shift.data_ptr() == memory


class WritesIntoItsInput(nn.Module):
    """Changes the batch in place, as one may do with what a loader gives."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def log_prob(self, X):
        X -= 0.5
        X *= 2
        return -self.layer(X).square().sum(1)


@pytest.mark.parametrize("engine", ["auto", "capture", "func", "loop"])
def test_a_module_may_write_into_its_input(engine):
    module = WritesIntoItsInput()
    X = np.random.default_rng(0).random((5, 3)).astype(np.float32)
    before = X.copy()
    norms = layer_gradient_norms(module, X, engine=engine)
    np.testing.assert_array_equal(X, before)
    h = module.layer(torch.from_numpy(2 * (X - 0.5)))
    expected = (2 * h).square().sum(1)
    np.testing.assert_allclose(norms[:, 1], expected.detach(), rtol=1e-5)


class Graph(nn.Module):
    """Sums over the neighbours in a graph, by a sparse matrix; counts its calls in another."""

    def __init__(self, layout):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        links = torch.tensor([[0.0, 1, 0], [1, 0, 2], [0, 2, 0]])
        self.register_buffer("links", links.to_sparse(layout=layout))
        self.register_buffer("calls", torch.eye(2).to_sparse(layout=layout))

    def log_prob(self, X):
        with torch.no_grad():
            self.calls.mul_(2)
        return -(self.links @ (X * self.scale).T).square().sum(0)


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta:UserWarning")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr], ids=str)
@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_sparse_buffers_are_kept(layout, engine):
    module = Graph(layout)
    X = torch.tensor([[1.0, 2, 3], [3, 2, 1]])
    norms = layer_gradient_norms(module, X, engine=engine)
    gram = module.links.to_dense().T @ module.links.to_dense()
    np.testing.assert_allclose(norms[:, 0], (2 * X * (X @ gram)).square().sum(1), rtol=1e-6)
    assert torch.equal(module.calls.to_dense(), torch.eye(2))


def test_hooks_on_gradients_are_those_of_single_samples():
    module, X = CASES["mlp"].make(torch.float64)
    bias = module.body[0].bias
    free = layer_gradient_norms(module, X)[:, 1]
    limit = float(np.sqrt(free.max() / bias.numel())) / 10
    bias.register_hook(lambda gradient: gradient.clamp(-limit, limit))
    with pytest.warns(EngineWarning, match=r"'body\.0\.bias' has a hook"):
        norms = layer_gradient_norms(module, X)[:, 1]
    assert (norms <= bias.numel() * limit**2 * (1 + 1e-12)).all()
    np.testing.assert_allclose(norms, layer_gradient_norms(module, X, engine="loop")[:, 1])


class Remembering(nn.Module):
    """Writes what depends on its parameters into a buffer."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("last", torch.zeros(4))

    def log_prob(self, X):
        h = self.linear(X)
        self.last.mul_(0.9).add_(0.1 * h.mean(0))
        return -h.square().sum(1)


class Failing(Remembering):
    def log_prob(self, X):
        super().log_prob(X)
        raise KeyError("its own")


@pytest.mark.parametrize("engine", ["auto", "capture", "loop"])
def test_a_buffer_into_which_a_graph_is_written_is_as_before(engine):
    module, X = Remembering(), torch.randn(6, 4)
    norms = layer_gradient_norms(module, X, engine=engine)
    assert module.last.grad_fn is None
    assert not module.last.requires_grad
    assert (module.last == 0).all()
    plain = nn.Module()
    plain.linear, plain.log_prob = module.linear, lambda X: -plain.linear(X).square().sum(1)
    np.testing.assert_allclose(norms, layer_gradient_norms(plain, X, engine="loop"), rtol=1e-4)


def test_what_was_written_does_not_hide_the_models_own_error():
    with pytest.raises(KeyError, match="its own"):
        layer_gradient_norms(Failing(), torch.randn(6, 4))

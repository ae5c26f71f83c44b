"""Sums over samples merge: batches, their order and their number make no difference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skgradood.fisher import APPROXIMATIONS, FisherEstimate, FisherOptions, FisherSums
from skgradood.gradients import GradientEngine, layer_layout
from tests.fisher import oracles
from tests.fisher.test_identities import network

KINDS = tuple(APPROXIMATIONS)
N = 24
MODULE, X = network(N)
PROBE = network(6)[1] + 0.1
LAYOUT = layer_layout(MODULE)


def started(kinds=KINDS, **options):
    return FisherEstimate.of_module(MODULE, LAYOUT, kinds, FisherOptions(damping=1e-2, **options))


def engine(batch_size="auto"):
    return GradientEngine(MODULE, batch_size=batch_size, verify=False)


def forms(estimate):
    return oracles.statistics(MODULE, PROBE, estimate, verify=False)


def stream(parts):
    """All rows, in the batches of these index arrays."""

    def run(reducer):
        values = [engine(max(2, len(part))).run(X[part], reducer) for part in parts]
        return np.concatenate(values)

    return run


@pytest.fixture(scope="module")
def whole():
    return {
        basis: forms(started(basis=basis).fit(lambda r: engine().run(X, r)))
        for basis in ("gradients", "activations")
    }


@settings(max_examples=25, deadline=None)
@given(data=st.data(), basis=st.sampled_from(["gradients", "activations"]))
def test_any_batches_in_any_order_give_the_same(whole, data, basis):
    order = data.draw(st.permutations(range(N)))
    # Batches of one are served by the loop, which has no activations: see the next test.
    sizes = st.integers(1 if basis == "gradients" else 2, N)
    cuts, left = [], N
    while left:
        size = min(left, data.draw(sizes))
        size = left if left - size == 1 else size
        cuts.append(size)
        left -= size
    parts = np.split(np.array(order), np.cumsum(cuts)[:-1])
    actual = forms(started(basis=basis).fit(stream(parts)))
    np.testing.assert_allclose(actual, whole[basis], rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 23, 24])
def test_the_batch_size_makes_no_difference(whole, batch_size):
    actual = forms(started().fit(lambda r: engine(batch_size).run(X, r)))
    np.testing.assert_allclose(actual, whole["gradients"], rtol=1e-6)


@pytest.mark.parametrize("engine_name", ["capture", "func", "loop"])
def test_the_engine_makes_no_difference(whole, engine_name):
    runner = GradientEngine(MODULE, engine=engine_name, verify=False)
    actual = forms(started().fit(lambda r: runner.run(X, r)))
    np.testing.assert_allclose(actual, whole["gradients"], rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(mine=st.lists(st.booleans(), min_size=N, max_size=N).map(np.array))
def test_sums_of_disjoint_rows_merge(whole, mine):
    """On two machines, say, which meet after each pass."""
    parts = [part for part in (np.flatnonzero(mine), np.flatnonzero(~mine)) if len(part)]
    estimate = started()
    while not estimate.complete:
        for name, members in estimate.by_parameter.items():
            unfinished = [(k, a) for k, a in enumerate(members) if not a.complete]
            merged = None
            for part in parts:
                machine = {name: [a.blank() for _, a in unfinished]}
                engine().run(X[part], FisherSums(machine))
                if merged is None:
                    merged = machine[name]
                else:
                    for a, b in zip(merged, machine[name], strict=True):
                        a.merge(b)
            for (k, _), a in zip(unfinished, merged, strict=True):
                assert a.n_samples == N
                a.finalize()
                members[k] = a
    np.testing.assert_allclose(forms(estimate), whole["gradients"], rtol=1e-6)


@pytest.mark.parametrize("cut", [2, 12, 23])
def test_more_rows_extend_all_but_the_basis(whole, cut):
    estimate = started().fit(lambda r: engine().run(X[:cut], r))
    before = forms(estimate)
    longer = estimate.copy().extend(lambda r: engine().run(X[cut:], r))
    assert (estimate.n_samples, longer.n_samples) == (cut, N)
    np.testing.assert_array_equal(forms(estimate), before)  # the copy went on alone
    actual = forms(longer)
    others = [k for k, kind in enumerate(KINDS) if kind != "ekfac"]
    np.testing.assert_allclose(actual[others], whole["gradients"][others], rtol=1e-6)
    # EKFAC keeps the first rows' basis, with the moments of all rows along it.
    place = KINDS.index("ekfac")
    gradients = oracles.dense_gradients(MODULE, X)
    for name, members in longer.by_parameter.items():
        vectors = [v.numpy() for v in members[place].basis.vectors]
        coordinates = oracles.along(gradients[name].reshape(N, *members[place].sizes), vectors)
        moments = (coordinates**2).mean(0)
        np.testing.assert_allclose(
            members[place].eigenvalues, moments, rtol=1e-9, atol=1e-11 * moments.max()
        )


def test_a_pass_that_fails_in_a_batch_adds_nothing_of_it():
    """A reducer's batch counts when it is committed: memory may run out, and half be tried."""
    estimate = started(["diagonal", "kfac"])
    sums = FisherSums(estimate.by_parameter)
    engine().run(X[:4], sums)
    before = {n: [a.n_samples for a in m] for n, m in estimate.by_parameter.items()}

    class Failing:
        def begin(self, n, device):
            sums.begin(n, device)

        def update(self, gradient):
            sums.update(gradient)
            raise ValueError("stopped")

        def commit(self):
            raise AssertionError("a failed batch is not committed")

    with pytest.raises(ValueError, match="stopped"):
        engine().run(X[4:8], Failing())
    assert {n: [a.n_samples for a in m] for n, m in estimate.by_parameter.items()} == before


def test_memory_runs_out_and_half_a_batch_is_tried(whole, monkeypatch):
    served = []

    class Tight(FisherSums):
        def begin(self, n, device):
            if n > 6:
                raise torch.OutOfMemoryError("out of memory")
            served.append(n)
            super().begin(n, device)

    estimate = started()
    while not estimate.complete:
        unfinished = {n: [a for a in m if not a.complete] for n, m in estimate.by_parameter.items()}
        engine(N).run(X, Tight(unfinished))
        for members in unfinished.values():
            for a in members:
                a.finalize()
    assert set(served) == {6}
    np.testing.assert_allclose(forms(estimate), whole["gradients"], rtol=1e-6)


def test_kfac_of_activations_counts_the_rows_that_had_them():
    """A batch of one row has none: it plays no part, rather than count as a row of zeros."""
    batches = [np.arange(23), np.array([23])]
    estimate = started(["kfac"], basis="activations").fit(stream(batches))
    plain = started(["kfac"], basis="activations").fit(stream([np.arange(23)]))
    weights = [name for name in LAYOUT.names if name.endswith("weight")]
    columns = [LAYOUT.names.index(name) for name in weights]
    np.testing.assert_allclose(forms(estimate)[..., columns], forms(plain)[..., columns])
    for name in weights:
        (kfac,), (without,) = estimate.by_parameter[name], plain.by_parameter[name]
        assert kfac.trace() == pytest.approx(without.trace(), rel=1e-12)

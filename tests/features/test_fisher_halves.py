"""Which rows a Fisher matrix has seen, and what those rows are measured with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from skgradood import FisherPreconditioner
from skgradood.fisher.halves import Halves
from skgradood.utils import make_groups
from tests.fisher import closed, oracles


def gaussian(d=3):
    return closed.Gaussian(np.zeros(d), np.zeros(d))


def rows(n, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def by_block(fitted, measured, damping=0.0):
    """Both parameters' statistics by their dense gradients."""
    module = gaussian(fitted.shape[1])
    own, others = (oracles.dense_gradients(module, torch.as_tensor(X)) for X in (fitted, measured))
    return np.column_stack([oracles.block(own[name], others[name], damping) for name in own])


def test_rows_of_one_half_are_measured_with_the_other():
    X, fresh = rows(41), rows(7, seed=1)
    transformer = FisherPreconditioner(gaussian(), approximation="block", damping=0).fit(X)
    first = transformer.halves_.in_first(torch.as_tensor(X))
    assert first.sum() == 21
    statistics = transformer.transform(X)
    np.testing.assert_allclose(statistics[first], by_block(X[~first], X[first]), rtol=1e-9)
    np.testing.assert_allclose(statistics[~first], by_block(X[first], X[~first]), rtol=1e-9)
    np.testing.assert_allclose(transformer.transform(fresh), by_block(X[first], fresh), rtol=1e-9)
    assert transformer.n_fisher_samples_ == 21


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(12)), batch_size=st.integers(1, 12), extra=st.integers(0, 12))
def test_rows_are_recognised_in_any_order_batch_or_number(order, batch_size, extra):
    X = rows(12)
    transformer = FisherPreconditioner(gaussian(), approximation="block", batch_size=batch_size)
    transformer.fit(X)
    expected = transformer.transform(X)
    mixed = np.concatenate([X[list(order)], rows(5, seed=9), X[:extra]])
    again = transformer.transform(mixed)
    np.testing.assert_allclose(again[:12], expected[list(order)], rtol=1e-9)
    np.testing.assert_allclose(again[17:], expected[:extra], rtol=1e-9)
    # The order of the rows of a fit makes no difference either.
    shuffled = FisherPreconditioner(gaussian(), approximation="block").fit(X[list(order)])
    np.testing.assert_allclose(shuffled.transform(X), expected, rtol=1e-9)


@pytest.mark.parametrize("cross_fit", [False, True])
def test_equal_rows_count_as_often_as_they_come(cross_fit):
    """Few different rows, as of bits: the mean is over all, and p(1 - p) its second moment."""
    X = np.repeat([[0.0], [1.0]], [30, 10], axis=0)
    module = closed.Bernoulli(np.array([np.log(1 / 3)]))
    transformer = FisherPreconditioner(
        module, approximation="block", damping=0, cross_fit=cross_fit
    ).fit(X)
    ones = transformer.halves_.first
    if cross_fit:
        # Equal rows are in one half, so that neither has seen the other's.
        zero_first = transformer.halves_.in_first(torch.as_tensor(X))[0]
        assert len(ones) == len(transformer.halves_.second) == 1
        own, other = ((1 / 4) ** 2, (3 / 4) ** 2)[:: 1 if zero_first else -1]
        np.testing.assert_allclose(transformer.fisher_.by_parameter["logits"][0].trace(), own)
        held_out = transformer.held_out_fisher_.by_parameter["logits"][0]
        np.testing.assert_allclose(held_out.trace(), other)
    else:
        assert transformer.fisher_.by_parameter["logits"][0].trace() == pytest.approx(3 / 16)
        assert transformer.n_fisher_samples_ == 40


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.integers(0, 8), min_size=2, max_size=30),
    cut=st.integers(1, 29),
    limit=st.none() | st.integers(1, 10),
    two=st.booleans(),
)
def test_halves_share_no_row_and_leave_none_out(values, cut, limit, two):
    X = torch.tensor(values, dtype=torch.float64)[:, None]
    halves, counts = Halves(0), [0] * (1 + two)
    for part in filter(len, (X[:cut], X[cut:])):
        rooms = [None if limit is None else limit - count for count in counts]
        joining = halves.divide(part, rooms)
        counts = [count + len(rows) for count, rows in zip(counts, joining, strict=True)]
        joined = np.concatenate(joining)
        assert len(set(joined)) == len(joined)
        if limit is None:
            assert sorted(joined) == list(range(len(part)))
        else:
            assert max(counts) <= limit
    assert not set(halves.first) & set(halves.second)
    if two and limit is None:
        assert abs(len(halves.first) - len(halves.second)) <= 1
    assert len(halves.first) + len(halves.second) <= len(set(values))


def test_rows_that_come_one_by_one_make_two_halves():
    X = rows(10)
    transformer = FisherPreconditioner(gaussian(), approximation="diagonal")
    for row in X:
        transformer.partial_fit(row[None])
    assert transformer.held_out_fisher_ is None  # nothing can be divided in a fit on one row
    transformer = FisherPreconditioner(gaussian(), approximation="diagonal").fit(X[:2])
    for row in X[2:]:
        transformer.partial_fit(row[None])
    assert (len(transformer.halves_.first), len(transformer.halves_.second)) == (5, 5)
    assert transformer.fisher_.n_samples == transformer.held_out_fisher_.n_samples == 5


@pytest.mark.parametrize("limit", [1, 5, 30])
@pytest.mark.parametrize("cross_fit", [False, True])
def test_no_more_rows_than_were_allowed(limit, cross_fit):
    X = rows(40)
    transformer = FisherPreconditioner(
        gaussian(), approximation="block", n_fisher_samples=limit, cross_fit=cross_fit
    ).fit(X)
    transformer.partial_fit(rows(40, seed=1))
    assert transformer.n_fisher_samples_ == limit
    if cross_fit:
        assert transformer.held_out_fisher_.n_samples == limit
    other = FisherPreconditioner(
        gaussian(), approximation="block", n_fisher_samples=limit, cross_fit=cross_fit,
        random_state=1,
    ).fit(X)  # fmt: skip
    assert not np.allclose(other.transform(X), transformer.transform(X))  # seeds choose the rows


def test_training_rows_are_distributed_as_fresh_rows():
    """One training row and one fresh row of every seed; a row that its matrix has seen is short."""
    kinds, d, n = ("block", "ekfac", "diagonal"), 10, 26
    seen, fresh = {True: [], False: []}, {True: [], False: []}
    for seed in range(100):
        X = rows(n + 1, d, seed)
        for cross_fit in (True, False):
            transformer = FisherPreconditioner(
                gaussian(d), approximation=kinds, cross_fit=cross_fit, verify=False
            ).fit(X[:n])
            forms = transformer.transform(X[n - 1 :]).reshape(2, 3, 2).sum(2)
            seen[cross_fit].append(forms[0])
            fresh[cross_fit].append(forms[1])
    pvalues = {
        cross_fit: stats.ks_2samp(np.array(seen[cross_fit]), np.array(fresh[cross_fit])).pvalue
        for cross_fit in (True, False)
    }
    assert (pvalues[True] > 0.01).all()
    assert (pvalues[False][:2] < 1e-3).all()


def test_without_two_halves_fresh_rows_look_like_outliers():
    """As in the published code of ROSE, whose held-out z-scores have a median of 451.

    Fewer rows than parameters: every row has its own direction, in which others hardly have
    any gradient, and z-scores by the fitted rows' statistics are far too large.
    """
    d, n = 60, 40
    X, fresh = rows(n, d), rows(200, d, 1)
    medians = {}
    for cross_fit in (False, True):
        transformer = FisherPreconditioner(
            gaussian(d), approximation="block", damping=1e-4, cross_fit=cross_fit
        ).fit(X)
        reference = np.log(transformer.transform(X))
        z = (np.log(transformer.transform(fresh)) - reference.mean(0)) / reference.std(0)
        medians[cross_fit] = np.median(z)
    assert medians[False] > 100
    assert abs(medians[True]) < 0.5


def test_groups_are_recognised_as_groups():
    groups, B = make_groups(rows(48), 4), 4
    transformer = FisherPreconditioner(
        gaussian(), approximation="block", damping=0, grouped=True
    ).fit(groups)
    first = transformer.halves_.in_first(torch.as_tensor(groups))
    assert first.sum() == 6
    assert transformer.n_fisher_samples_ == 6 * B
    statistics = transformer.transform(groups)
    module = gaussian()
    for mask in (first, ~first):
        fitted = oracles.dense_gradients(module, torch.as_tensor(groups[~mask].reshape(-1, 3)))
        measured = oracles.dense_gradients(module, torch.as_tensor(groups[mask].reshape(-1, 3)))
        expected = [
            oracles.block(fitted[name], g.reshape(-1, B, 3).sum(1), 0.0) / B
            for name, g in measured.items()
        ]
        np.testing.assert_allclose(statistics[mask], np.column_stack(expected), rtol=1e-9)


def test_a_group_is_the_same_in_any_order_of_its_samples():
    groups, rng = make_groups(rows(48), 4), np.random.default_rng(0)
    transformer = FisherPreconditioner(gaussian(), approximation="block", grouped=True).fit(groups)
    statistics = transformer.transform(groups)
    mixed = np.stack([group[rng.permutation(4)] for group in groups])
    assert (mixed != groups).any()
    np.testing.assert_allclose(transformer.transform(mixed), statistics, rtol=1e-9)
    again = FisherPreconditioner(gaussian(), approximation="block", grouped=True).fit(mixed)
    np.testing.assert_allclose(again.transform(groups), statistics, rtol=1e-9)


def test_keys_of_groups_tell_groups_apart_and_those_of_one_are_the_samples():
    X = torch.as_tensor(rows(60))
    singles, plain = Halves(0, grouped=True), Halves(0)
    for halves, data in ((singles, X[:, None]), (plain, X)):
        halves.divide(data, [None, None])
    np.testing.assert_array_equal(singles.first, plain.first)
    np.testing.assert_array_equal(singles.second, plain.second)
    groups = Halves(0, grouped=True)
    exchanged = X.reshape(20, 3, 3).clone()
    exchanged[:, 0] = exchanged[:, 0].roll(1, dims=0)
    groups.divide(X.reshape(20, 3, 3), [None, None])
    assert len(groups.first) == len(groups.second) == 10
    assert groups.first.min() >= 0
    assert not groups.in_first(exchanged).any()

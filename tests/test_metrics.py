"""Metrics against brute-force loops, and properties that hold for any scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skgradood.metrics import auroc, average_precision, fpr_at_tpr

METRICS = [auroc, average_precision, fpr_at_tpr]

# Few distinct values, so that ties are common; infinities are scores like others.
scores = st.lists(
    st.sampled_from([-np.inf, -2.0, -1.0, 0.0, 0.5, 1.0, 3.0, np.inf]), min_size=1, max_size=12
)


def brute_auroc(scores_in, scores_out):
    pairs = [(i > o) + 0.5 * (i == o) for i in scores_in for o in scores_out]
    return sum(pairs) / len(pairs)


def brute_average_precision(positives, negatives):
    """Sum over thresholds of precision times the recall gained there; high is positive."""
    area, last_recall = 0.0, 0.0
    for threshold in sorted({*positives, *negatives}, reverse=True):
        true = sum(s >= threshold for s in positives)
        false = sum(s >= threshold for s in negatives)
        recall = true / len(positives)
        area += (recall - last_recall) * true / (true + false)
        last_recall = recall
    return area


def brute_fpr(positives, negatives, tpr):
    rates = [
        sum(s >= threshold for s in negatives) / len(negatives)
        for threshold in positives
        if sum(s >= threshold for s in positives) / len(positives) >= tpr
    ]
    return min(rates)


def negated(values):
    return [-v for v in values]


@given(scores, scores)
def test_auroc_counts_pairs(scores_in, scores_out):
    assert auroc(scores_in, scores_out) == pytest.approx(brute_auroc(scores_in, scores_out))


@given(scores, scores)
def test_average_precision_sums_over_thresholds(scores_in, scores_out):
    outlier = brute_average_precision(negated(scores_out), negated(scores_in))
    inlier = brute_average_precision(scores_in, scores_out)
    assert average_precision(scores_in, scores_out) == pytest.approx(outlier)
    assert average_precision(scores_in, scores_out, positive="inlier") == pytest.approx(inlier)


@given(scores, scores, st.sampled_from([0.05, 0.5, 0.55, 0.7, 0.95, 1.0]))
def test_fpr_is_the_best_over_thresholds(scores_in, scores_out, tpr):
    outlier = brute_fpr(negated(scores_out), negated(scores_in), tpr)
    inlier = brute_fpr(scores_in, scores_out, tpr)
    assert fpr_at_tpr(scores_in, scores_out, tpr=tpr) == pytest.approx(outlier)
    assert fpr_at_tpr(scores_in, scores_out, tpr=tpr, positive="inlier") == pytest.approx(inlier)


@pytest.mark.parametrize("n", [20, 100, 10_000])
def test_fpr_counts_an_exact_share(n):
    """95 % of n positives can be exactly detected, whatever rounding does to 0.95 n."""
    scores_out = -np.arange(n, dtype=float)  # outliers are detected from the last one on
    threshold = np.sort(scores_out)[round(0.95 * n) - 1]
    assert fpr_at_tpr([threshold + 0.5, threshold - 0.5], scores_out) == 0.5


@given(scores, scores)
def test_auroc_is_the_same_for_either_positive(scores_in, scores_out):
    as_inlier = auroc(scores_in, scores_out, positive="inlier")
    assert auroc(scores_in, scores_out) == pytest.approx(as_inlier)


@given(scores, scores)
def test_auroc_of_exchanged_sets_is_the_complement(scores_in, scores_out):
    assert auroc(scores_in, scores_out) == pytest.approx(1 - auroc(scores_out, scores_in))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("positive", ["outlier", "inlier"])
@given(scores_in=scores, scores_out=scores)
def test_only_the_order_of_scores_matters(metric, positive, scores_in, scores_out):
    expected = metric(scores_in, scores_out, positive=positive)
    squashed = [np.arctan(np.array(s)) * 1e-3 + 7 for s in (scores_in, scores_out)]
    assert metric(*squashed, positive=positive) == expected


@pytest.mark.parametrize("metric", METRICS)
def test_perfect_separation(metric):
    expected = 0.0 if metric is fpr_at_tpr else 1.0
    assert metric([2.0, 3.0], [0.0, -np.inf]) == expected
    assert metric([2.0, 3.0], [0.0, -np.inf], positive="inlier") == expected


def test_the_positive_class_matters_where_it_should():
    scores_in, scores_out = np.arange(100.0), np.array([50.5, -1.0])
    assert average_precision(scores_in, scores_out) == pytest.approx(0.5 * 1 + 0.5 * 2 / 53)
    assert average_precision(scores_in, scores_out, positive="inlier") > 0.98
    assert fpr_at_tpr(scores_in, scores_out) == pytest.approx(0.51)
    assert fpr_at_tpr(scores_in, scores_out, positive="inlier") == 0.5


@pytest.mark.parametrize("metric", METRICS)
def test_bad_input_is_explained(metric):
    with pytest.raises(ValueError, match=r"scores_out contains NaN: row 1 is the first of 2"):
        metric([1.0], [0.0, np.nan, np.nan])
    with pytest.raises(ValueError, match=r"scores_in must be one-dimensional.*\(0,\)"):
        metric([], [0.0])
    with pytest.raises(ValueError, match=r"scores_in must be one-dimensional.*\(2, 1\)"):
        metric([[1.0], [2.0]], [0.0])
    with pytest.raises(ValueError, match=r"\['outlier', 'inlier'\]; got 'ood'"):
        metric([1.0], [0.0], positive="ood")


@pytest.mark.parametrize("tpr", [0, -0.1, 1.01, np.nan])
def test_tpr_is_a_share(tpr):
    with pytest.raises(ValueError, match=r"tpr must be in \(0, 1\]"):
        fpr_at_tpr([1.0], [0.0], tpr=tpr)

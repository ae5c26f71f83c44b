"""What the joint density does with awkward input, and what never changes its answer."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.utils.estimator_checks import parametrize_with_checks

from skgradood.detectors import ChiSquareJointDensity

CONFIGURATIONS = [
    {"marginal": marginal, "dependence": dependence, "tail": tail}
    for marginal in ("normal", "lognormal", "chi2")
    for dependence in ("gaussian", "independent")
    for tail in ("density", "two-sided", "upper", "lower")
]
# These two checks of scikit-learn ignore the tag that says "no negative values".
IGNORE_POSITIVE_ONLY = {
    "check_outliers_train": "feeds negative values despite the tag positive_only",
    "check_outliers_fit_predict": "feeds negative values despite the tag positive_only",
}
RNG = np.random.default_rng(0)
NORMS = np.exp(0.3 * RNG.normal(size=(200, 4)) + 0.3 * RNG.normal(size=(200, 1)))


def configured(configuration, **options):
    return ChiSquareJointDensity(**configuration, **options)


@parametrize_with_checks(
    [
        ChiSquareJointDensity(dependence="independent", tail="two-sided"),
        ChiSquareJointDensity(covariance="oas", tail="upper"),
        ChiSquareJointDensity(marginal="lognormal"),
        ChiSquareJointDensity(marginal="chi2", chi2_fit="moments", tail="lower"),
    ],
    expected_failed_checks=lambda estimator: (
        {} if estimator.marginal == "normal" else IGNORE_POSITIVE_ONLY
    ),
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("marginal", ["lognormal", "chi2"])
def test_what_those_two_checks_ask_holds_on_squared_norms(marginal):
    detector = ChiSquareJointDensity(marginal=marginal, contamination=0.1)
    verdicts = detector.fit_predict(NORMS.tolist())
    assert verdicts.dtype.kind == "i"
    assert (verdicts == -1).sum() == 20
    np.testing.assert_array_equal(verdicts, detector.fit(NORMS).predict(NORMS))
    np.testing.assert_allclose(
        detector.decision_function(NORMS), detector.score_samples(NORMS) - detector.offset_
    )


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(4)))
def test_the_order_of_columns_does_not_matter(configuration, order):
    expected = configured(configuration).fit(NORMS).score_samples(NORMS)
    permuted = configured(configuration).fit(NORMS[:, order]).score_samples(NORMS[:, order])
    np.testing.assert_allclose(permuted, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@settings(max_examples=8, deadline=None)
@given(log_factor=arrays(float, 4, elements=st.floats(-200, 200)))
def test_units_change_a_density_by_the_jacobian_only(configuration, log_factor):
    scaled = NORMS * np.exp(log_factor)
    expected = configured(configuration).fit(NORMS).score_samples(NORMS)
    if configuration["tail"] == "density":
        expected = expected - log_factor.sum()
    scores = configured(configuration).fit(scaled).score_samples(scaled)
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_row_does_not_depend_on_its_neighbours(configuration):
    detector = configured(configuration).fit(NORMS)
    alone = np.concatenate([detector.score_samples(row[None]) for row in NORMS[:20]])
    np.testing.assert_allclose(detector.score_samples(NORMS)[:20], alone, rtol=1e-9, atol=1e-9)
    backwards = detector.score_samples(NORMS[::-1])[::-1]
    np.testing.assert_allclose(detector.score_samples(NORMS), backwards, rtol=1e-9, atol=1e-9)
    refitted = configured(configuration).fit(NORMS[::-1])
    np.testing.assert_allclose(refitted.offset_, detector.offset_, rtol=1e-9)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_extreme_values_stay_finite_and_rank_last(configuration):
    detector = configured(configuration).fit(NORMS)
    huge = np.array([[1e10], [1e50], [1e200], [1e308]]) * np.ones(4)
    tiny = np.array([[1e-10], [1e-200], [5e-324], [0.0]]) * np.ones(4)
    scores_huge, scores_tiny = detector.score_samples(huge), detector.score_samples(tiny)
    assert np.isfinite(np.concatenate([scores_huge, scores_tiny])).all()
    if configuration["tail"] != "lower":
        assert (detector.predict(huge) == -1).all()
        assert (np.diff(scores_huge) <= 0).all()
    if configuration["tail"] == "upper" or configuration["marginal"] == "normal":
        return  # small values are normal, or not far below the others
    if configuration["tail"] != "density":  # a density may diverge at zero
        assert (detector.predict(tiny) == -1).all()
        assert (np.diff(scores_tiny) <= 0).all()


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@settings(max_examples=15, deadline=None)
@given(
    X=arrays(float, (6, 3), elements=st.floats(0, 1e308, allow_subnormal=True)),
    test=arrays(float, (3, 3), elements=st.floats(0, 1e308, allow_subnormal=True)),
)
def test_no_fit_gives_nan(configuration, X, test):
    detector = configured(configuration)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", RuntimeWarning)
        detector.fit(np.column_stack([X, np.arange(1.0, 7.0)]))  # one column that surely varies
        assert np.isfinite(detector.offset_)
        assert not np.isnan(detector.score_samples(np.insert(test, 3, 2.5, axis=1))).any()


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_a_certain_outlier(configuration, value):
    X = NORMS[:5].copy()
    X[2, 1] = value
    detector = configured(configuration).fit(NORMS)
    scores = detector.score_samples(X)
    assert scores[2] == -np.inf
    np.testing.assert_array_equal(np.isfinite(scores), [True, True, False, True, True])
    assert detector.predict(X)[2] == -1
    assert np.isnan(detector.layer_scores(X)[2]).all()


def test_nothing_finite_at_all():
    detector = ChiSquareJointDensity().fit(NORMS)
    assert (detector.score_samples(np.full((2, 4), np.nan)) == -np.inf).all()


def test_training_rows_that_are_not_finite_are_left_out_with_a_count():
    X = NORMS.copy()
    X[[3, 5]] = np.nan
    X[7, 0] = np.inf
    with pytest.warns(UserWarning, match="3 of 200 training rows hold NaN or infinity"):
        detector = ChiSquareJointDensity(marginal="lognormal").fit(X)
    expected = ChiSquareJointDensity(marginal="lognormal").fit(np.delete(X, [3, 5, 7], axis=0))
    np.testing.assert_array_equal(detector.score_samples(NORMS), expected.score_samples(NORMS))


def test_too_few_finite_rows_name_the_worst_column():
    X = pd.DataFrame(NORMS[:10], columns=list("abcd"))
    X.loc[1:, "c"] = np.nan
    with pytest.raises(ValueError, match=r"at least 2 rows.*got 1 of 10.*column 'c'"):
        ChiSquareJointDensity().fit(X)


@pytest.mark.parametrize("marginal", ["normal", "lognormal", "chi2"])
@pytest.mark.parametrize("constant", [0.0, 3.0, 1e-300])
def test_columns_that_do_not_vary_are_dropped_and_reported(marginal, constant):
    X = pd.DataFrame(np.insert(np.log1p(NORMS), 1, constant, axis=1), columns=list("abcde"))
    with pytest.warns(UserWarning, match=r"1 of 5 columns do not vary.*\['b'\]"):
        detector = ChiSquareJointDensity(marginal=marginal).fit(X)
    assert detector.dropped_features_ == ["b"]
    assert detector.support_.tolist() == [True, False, True, True, True]
    assert detector.n_features_in_ == 5
    without = ChiSquareJointDensity(marginal=marginal).fit(X.drop(columns="b"))
    np.testing.assert_allclose(
        detector.score_samples(X), without.score_samples(X.drop(columns="b"))
    )
    assert (detector.layer_scores(X)[:, 1] == 0).all()


def test_rounding_noise_is_not_variance():
    noisy = 5 * (1 + 1e-7 * RNG.normal(size=len(NORMS)))
    with pytest.warns(UserWarning, match=r"1 of 5 columns do not vary.*\[4\]"):
        ChiSquareJointDensity(marginal="lognormal").fit(np.column_stack([NORMS, noisy]))


def test_what_varies_below_the_smallest_normal_number_is_dropped():
    denormal = np.zeros(len(NORMS))
    denormal[0] = 5e-324
    with pytest.warns(UserWarning, match=r"\[4\]"):
        ChiSquareJointDensity().fit(np.column_stack([NORMS, denormal]))


def test_nothing_varies():
    with pytest.raises(ValueError, match="none of the 3 columns varies"):
        ChiSquareJointDensity().fit(np.ones((10, 3)))


@pytest.mark.parametrize("marginal", ["lognormal", "chi2"])
def test_zeros_count_as_the_smallest_positive_value_seen(marginal):
    X = NORMS.copy()
    X[::10, 2] = 0
    smallest = X[X[:, 2] > 0, 2].min()
    detector = ChiSquareJointDensity(marginal=marginal).fit(X)
    assert detector.floor_[2] == smallest
    raised = np.where(X == 0, smallest, X)
    expected = ChiSquareJointDensity(marginal=marginal).fit(raised)
    np.testing.assert_allclose(detector.score_samples(X), expected.score_samples(raised))


@pytest.mark.parametrize("marginal", ["lognormal", "chi2"])
def test_a_zero_where_training_had_none_is_an_outlier(marginal):
    row = np.median(NORMS, axis=0, keepdims=True)
    detector = ChiSquareJointDensity(marginal=marginal, tail="two-sided").fit(NORMS)
    assert detector.predict(row) == 1
    row[0, 2] = 0
    assert detector.predict(row) == -1


@pytest.mark.parametrize("marginal", ["lognormal", "chi2"])
def test_negative_squared_norms_are_refused_in_fit_and_score(marginal):
    X = pd.DataFrame(NORMS, columns=["w", "b", "v", "c"])
    bad = X.copy()
    bad.loc[3, "v"] = -1e-3
    detector = ChiSquareJointDensity(marginal=marginal)
    message = r"Negative values in data.*column 'v'.*marginal=\"normal\""
    with pytest.raises(ValueError, match=message):
        detector.fit(bad)
    with pytest.raises(ValueError, match=message):
        detector.fit(X).score_samples(bad)


def test_squared_norms_under_the_normal_marginal_get_a_hint():
    with pytest.warns(UserWarning, match="look like squared norms"):
        ChiSquareJointDensity().fit(NORMS**6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ChiSquareJointDensity().fit(6 * np.log(NORMS))
        ChiSquareJointDensity(marginal="lognormal").fit(NORMS**6)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("marginal", "gamma"),
        ("dependence", "vine"),
        ("tail", "both"),
        ("covariance", "mcd"),
        ("chi2_fit", "mle"),
        ("contamination", 0.6),
        ("contamination", 0.0),
    ],
)
def test_unknown_options_list_the_known_ones(option, value):
    with pytest.raises(ValueError, match=rf"The '{option}' parameter .* must be .* Got {value!r}"):
        ChiSquareJointDensity(**{option: value}).fit(NORMS)


@pytest.mark.parametrize("configuration", CONFIGURATIONS[::5])
def test_pickling_keeps_every_score(configuration):
    detector = configured(configuration).fit(NORMS)
    restored = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(restored.score_samples(NORMS), detector.score_samples(NORMS))


def test_fitted_state_is_plain_arrays_and_numbers():
    """So that a detector can be written to a file that holds no code."""
    for configuration in CONFIGURATIONS:
        detector = configured(configuration).fit(NORMS)
        for name, value in vars(detector).items():
            assert isinstance(value, (np.ndarray, float, int, str, list)), name

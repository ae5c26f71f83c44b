"""Log-likelihood and typicality against closed forms and the papers' formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skgradood import (
    ConformalDetector,
    GenerativeNet,
    LogLikelihoodDetector,
    TypicalityDetector,
    WaicDetector,
    layer_gradient_norms,
)
from skgradood.detectors._reference import two_sided_log_p
from skgradood.model_selection import InlierKFold, outlier_scorer
from skgradood.models import VAE, DiagonalGaussian
from skgradood.persistence import load, save
from skgradood.utils import make_groups
from tests.detectors.likelihoods import Given, gaussian, gaussian_log_prob

MEAN, SCALE = [0.5, -1.0, 2.0], [1.0, 2.0, 0.5]


@pytest.fixture
def rows(rng):
    return rng.normal(size=(200, 3)) * SCALE + MEAN


def test_the_score_is_the_log_density(rows):
    detector = LogLikelihoodDetector(gaussian(MEAN, SCALE)).fit(rows)
    expected = gaussian_log_prob(rows, MEAN, SCALE)
    np.testing.assert_allclose(detector.score_samples(rows), expected, rtol=1e-12)
    assert detector.offset_ == pytest.approx(np.quantile(expected, 0.05))
    far = rows + 20
    assert detector.score_samples(far).max() < detector.score_samples(rows).min()
    assert (detector.predict(far) == -1).all()


def test_the_score_of_a_group_is_the_mean(rows):
    groups = make_groups(rows, 8, random_state=0)
    detector = LogLikelihoodDetector(gaussian(MEAN, SCALE), grouped=True).fit(groups)
    expected = gaussian_log_prob(groups.reshape(-1, 3), MEAN, SCALE).reshape(-1, 8).mean(axis=1)
    np.testing.assert_allclose(detector.score_samples(groups), expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"\(n_groups, group_size, ...\)"):
        detector.score_samples(rows)


@pytest.mark.parametrize("group_size", [1, 4])
def test_typicality_is_nalisnicks_statistic(rows, rng, group_size):
    """|mean over the group of -log p - entropy|, the entropy being the training mean of -log p."""
    detector = TypicalityDetector(gaussian(MEAN, SCALE), grouped=group_size > 1)
    X = make_groups(rows, group_size, random_state=0) if group_size > 1 else rows
    detector.fit(X)
    entropy = -gaussian_log_prob(X.reshape(-1, 3), MEAN, SCALE).mean()
    new = make_groups(3 * rng.normal(size=(40, 3)), group_size, random_state=0)
    negative = -gaussian_log_prob(new.reshape(-1, 3), MEAN, SCALE).reshape(-1, group_size)
    expected = np.abs(negative.mean(axis=1) - entropy)
    scores = detector.score_samples(new if group_size > 1 else new[:, 0])
    np.testing.assert_allclose(scores, -expected, rtol=1e-10)


def test_typicality_finds_what_is_too_probable(rng):
    """The mode of a normal distribution in 200 dimensions lies far from all its samples."""
    X = rng.normal(size=(300, 200))
    mode = np.zeros((1, 200))
    module = gaussian([0.0] * 200, [1.0] * 200)
    likelihood = LogLikelihoodDetector(module).fit(X)
    assert likelihood.score_samples(mode) > likelihood.score_samples(X).max()
    for statistic in ("distance", "p_value"):
        typicality = TypicalityDetector(module, statistic=statistic).fit(X)
        assert typicality.score_samples(mode) < typicality.score_samples(X).min()
        assert typicality.predict(mode) == [-1]


def test_groups_find_a_shift_that_single_samples_hide(rng):
    module = gaussian([0.0] * 20, [1.0] * 20)
    X, wider = rng.normal(size=(2000, 20)), 1.15 * rng.normal(size=(2000, 20))
    flagged = {}
    for size in (1, 20):
        detector = TypicalityDetector(module, grouped=True)
        detector.fit(make_groups(X, size, random_state=0))
        flagged[size] = (detector.predict(make_groups(wider, size, random_state=0)) == -1).mean()
    assert flagged[20] > 0.9 > 0.5 > flagged[1]


def test_p_values_are_the_empirical_ones(rng):
    reference = np.sort(rng.exponential(size=201))
    rank = (np.arange(1, 202) - 0.5) / 201
    expected = np.minimum(1, 2 * np.minimum(rank, 1 - rank))
    detector = TypicalityDetector(Given(), statistic="p_value").fit(reference[::-1, None])
    p = detector.p_values(reference[:, None])
    np.testing.assert_allclose(detector.score_samples(reference[:, None]), np.log(p))
    np.testing.assert_allclose(p, expected, rtol=1e-9)


def test_p_values_of_fresh_samples_are_uniform(rng):
    reference = np.sort(rng.normal(size=4000))
    p = np.exp(two_sided_log_p(rng.normal(size=4000), reference))
    np.testing.assert_allclose(
        np.quantile(p, [0.05, 0.25, 0.5, 0.9]), [0.05, 0.25, 0.5, 0.9], atol=0.04
    )


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
    st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=30),
)
def test_p_values_rise_to_one_place_and_fall_from_there(reference, values):
    log_p = two_sided_log_p(np.sort(values), np.sort(reference))
    assert (log_p <= 0).all()
    top = np.argmax(log_p)
    rising, falling = log_p[: top + 1], log_p[top:]
    assert (rising[1:] >= rising[:-1] - 1e-9).all()
    assert (falling[1:] <= falling[:-1] + 1e-9).all()


def test_tails_go_on_beyond_the_reference():
    reference = np.arange(100.0)
    values = np.array([-1e3, -10.0, -1.0, 0.0, 99.0, 100.0, 109.0, 1e3 + 99])
    log_p = two_sided_log_p(values, reference)
    assert (np.diff(log_p[:4]) > 0).all()
    assert (np.diff(log_p[4:]) < 0).all()
    np.testing.assert_allclose(log_p, log_p[::-1])
    assert two_sided_log_p(np.array([-np.inf]), reference) == -np.inf


@pytest.mark.parametrize("detector", [LogLikelihoodDetector, TypicalityDetector])
@pytest.mark.parametrize("sign", Given.STANDS_FOR)
def test_what_is_not_finite_is_an_outlier_and_never_nan(detector, sign, rng):
    X = rng.normal(size=(50, 1))
    fitted = detector(Given()).fit(X)
    strange = np.array([[sign], [0.0]])
    scores = fitted.score_samples(strange)
    assert scores[0] == -np.inf
    assert np.isfinite(scores[1])
    assert fitted.predict(strange).tolist() == [-1, 1]


@pytest.mark.filterwarnings("ignore:.*left out of the reference")
@pytest.mark.parametrize("detector", [LogLikelihoodDetector, TypicalityDetector])
def test_impossible_training_samples_leave_a_finite_threshold(detector, rng):
    X = rng.normal(size=(50, 1))
    X[:10] = 101.0
    fitted = detector(Given()).fit(X)
    assert np.isfinite(fitted.offset_)
    assert (fitted.predict(X[:10]) == -1).all()
    assert (fitted.predict(X[10:]) == 1).mean() > 0.8


def test_typicality_says_which_training_samples_it_leaves_out(rng):
    X = rng.normal(size=(50, 1))
    X[:3] = 103.0
    with pytest.warns(UserWarning, match="3 of 50 training samples"):
        detector = TypicalityDetector(Given()).fit(X)
    assert detector.mean_ == pytest.approx(X[3:].mean())
    with pytest.raises(ValueError, match="none of the 3 training samples"):
        TypicalityDetector(Given()).fit(X[:3])


@pytest.mark.parametrize("detector", [LogLikelihoodDetector, TypicalityDetector])
def test_extreme_rows_and_one_row(detector, rows):
    fitted = detector(gaussian(MEAN, SCALE)).fit(rows)
    extreme = np.array([[1e200, 0, 0], [1e308, -1e308, 1e308], [0, 0, 0]])
    scores = fitted.score_samples(extreme)
    assert not np.isnan(scores).any()
    assert (fitted.predict(extreme[:2]) == -1).all()
    assert np.isfinite(detector(gaussian(MEAN, SCALE)).fit(rows[:1]).score_samples(rows)).all()
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        fitted.score_samples(rows[:0])


def test_noise_is_that_of_the_gradient_engine(rows):
    class Noisy(DiagonalGaussian):
        def bound(self, X, generator=None):
            noise = torch.randn(X.shape, generator=generator, dtype=X.dtype)
            return self.log_prob(X + noise)

    module = Noisy((3,)).double()
    detector = LogLikelihoodDetector(module, log_likelihood="bound").fit(rows)
    backwards = detector.score_samples(rows[::-1])[::-1]
    np.testing.assert_allclose(detector.score_samples(rows), backwards, rtol=1e-12)
    other = LogLikelihoodDetector(module, log_likelihood="bound", random_state=3).fit(rows)
    assert not np.allclose(other.score_samples(rows), backwards)
    # The squared norm of the mean's gradient is that of the noisy row.
    norms = layer_gradient_norms(module, torch.as_tensor(rows), log_likelihood="bound")
    noisy = -0.5 * norms[:, 0] - 1.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(detector.score_samples(rows), noisy, rtol=1e-10)


def test_importance_weights_are_drawn_for_the_row(rng):
    torch.manual_seed(0)
    images = rng.integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    vae = VAE((1, 8, 8), latent_dim=2, width=4).double()
    scores = {}
    for batch_size in (2, 5):
        detector = LogLikelihoodDetector(
            vae, log_likelihood="log_prob_iw", batch_size=batch_size
        ).fit(images)
        scores[batch_size] = detector.score_samples(images)
    np.testing.assert_allclose(scores[2], scores[5], rtol=1e-10)
    few = LogLikelihoodDetector(
        vae, log_likelihood=lambda module, X, generator: module.log_prob_iw(X, generator, 2)
    ).fit(images)
    assert not np.allclose(few.score_samples(images), scores[5])


@pytest.mark.parametrize("detector", [LogLikelihoodDetector, TypicalityDetector])
def test_a_fit_that_fails_leaves_the_earlier_one(detector, rows):
    fitted = detector(gaussian(MEAN, SCALE)).fit(rows)
    scores = fitted.score_samples(rows)
    with pytest.raises(ValueError, match="2 features"):
        fitted.fit(rows[:, :2])
    assert fitted.n_features_in_ == 3
    np.testing.assert_array_equal(fitted.score_samples(rows), scores)


def test_in_grid_search_conformal_detector_and_pipeline(rows):
    net = GenerativeNet(DiagonalGaussian, max_epochs=2, random_state=0)
    X = np.concatenate([rows, rows[:40] + 8])
    y = np.repeat([1, -1], [200, 40])
    search = GridSearchCV(
        make_pipeline(StandardScaler(), TypicalityDetector(net)),
        {"typicalitydetector__statistic": ["distance", "p_value"]},
        cv=InlierKFold(n_splits=2),
        scoring=outlier_scorer("roc_auc"),
        error_score="raise",
    ).fit(X, y)
    assert search.best_score_ > 0.95
    conformal = ConformalDetector(LogLikelihoodDetector(net), random_state=0).fit(rows)
    assert (conformal.predict(rows + 8) == -1).all()


@pytest.mark.parametrize("detector", [LogLikelihoodDetector, TypicalityDetector])
def test_saved_and_loaded(detector, tmp_path, rng):
    images = rng.integers(0, 256, (20, 8, 8), dtype=np.uint8)
    net = GenerativeNet(VAE, module__width=4, module__latent_dim=2, max_epochs=1, random_state=0)
    fitted = detector(FrozenEstimator(net.fit(images))).fit(images)
    save(fitted, tmp_path / "detector.skg")
    loaded = load(tmp_path / "detector.skg")
    np.testing.assert_array_equal(loaded.score_samples(images), fitted.score_samples(images))
    constant = np.stack([np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)])
    assert np.isfinite(fitted.score_samples(constant)).all()


@pytest.mark.parametrize(
    "make",
    [LogLikelihoodDetector, lambda net: WaicDetector([net, net]), TypicalityDetector],
)
def test_a_model_that_finds_no_sample_possible_has_no_threshold(make):
    broken = DiagonalGaussian((2,))
    with torch.no_grad():
        broken.mean.fill_(torch.nan)
    with pytest.raises(ValueError, match="none of the 30 training samples has a finite"):
        make(broken).fit(np.random.default_rng(0).normal(size=(30, 2)))

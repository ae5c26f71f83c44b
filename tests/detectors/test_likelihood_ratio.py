"""Likelihood ratios against closed forms, and input complexity against the codecs themselves."""

from __future__ import annotations

import io
import sys
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, multivariate_normal
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV

from skgradood import ConformalDetector, GenerativeNet, LikelihoodRatioDetector
from skgradood.detectors import RoseDetector
from skgradood.detectors._likelihood_ratio import log_ratio
from skgradood.detectors._mutation import mutate
from skgradood.metrics import auroc
from skgradood.model_selection import InlierKFold, outlier_scorer
from skgradood.models import VAE, DiagonalGaussian, Glow, PixelDifferenceModel
from skgradood.persistence import load, save
from skgradood.utils import make_groups
from tests.detectors.likelihoods import (
    Given,
    PixelTable,
    gaussian,
    gaussian_log_prob,
    never_trained,
)

MEAN, SCALE = [0.5, -1.0], [1.0, 2.0]
WIDE_MEAN, WIDE_SCALE = [0.0, 0.0], [4.0, 3.0]


@pytest.fixture
def rows(rng):
    return rng.normal(size=(150, 2)) * SCALE + MEAN


@pytest.fixture
def images(rng):
    """Dark images with a little noise: a code shortens them, and a table of pixels models them."""
    return rng.binomial(20, 0.3, size=(40, 1, 8, 8)).astype(np.uint8)


@pytest.fixture
def table(images):
    counts = np.bincount(images.ravel(), minlength=256) + 1e-6
    return PixelTable(np.log(counts / counts.sum()))


def flow(**options):
    options = {"n_steps": 1, "hidden_channels": 4, "n_levels": 3} | options
    return Glow((1, 8, 8), **options)


def net_of_images():
    shape = {"module__input_shape": (1, 8, 8), "module__width": 4, "module__latent_dim": 2}
    return GenerativeNet(VAE, max_epochs=1, random_state=0, **shape)


# --- two models ------------------------------------------------------------------------------


def test_the_ratio_of_two_gaussians_is_their_closed_form(rows, rng):
    detector = LikelihoodRatioDetector(gaussian(MEAN, SCALE), gaussian(WIDE_MEAN, WIDE_SCALE))
    X = 3 * rng.normal(size=(30, 2))
    expected = gaussian_log_prob(X, MEAN, SCALE) - gaussian_log_prob(X, WIDE_MEAN, WIDE_SCALE)
    np.testing.assert_allclose(detector.fit(rows).score_samples(X), expected, rtol=1e-10)
    assert detector.predict([[30.0, 30.0]]) == [-1]
    assert detector.score_samples([MEAN]) > detector.score_samples([[30.0, 30.0]])


def test_groups_are_judged_by_the_mean_ratio(rows):
    groups = make_groups(rows, 5, random_state=0)
    detector = LikelihoodRatioDetector(
        gaussian(MEAN, SCALE), gaussian(WIDE_MEAN, WIDE_SCALE), grouped=True
    ).fit(groups)
    X = groups.reshape(-1, 2)
    ratios = gaussian_log_prob(X, MEAN, SCALE) - gaussian_log_prob(X, WIDE_MEAN, WIDE_SCALE)
    expected = ratios.reshape(-1, 5).mean(axis=1)
    np.testing.assert_allclose(detector.score_samples(groups), expected, rtol=1e-10)


def test_a_background_is_fitted_on_data_of_its_own(rows, rng):
    net = GenerativeNet(DiagonalGaussian, max_epochs=3, dtype="float64", random_state=0)
    general = 5 * rng.normal(size=(100, 2))
    detector = LikelihoodRatioDetector(net, net, background_data=general).fit(rows)
    expected = clone(net).fit(rows).score_samples(rows) - clone(net).fit(general).score_samples(
        rows
    )
    np.testing.assert_allclose(detector.score_samples(rows), expected)
    frozen = FrozenEstimator(clone(net).fit(general))
    again = LikelihoodRatioDetector(net, frozen).fit(rows)
    assert again.background_model_.module is frozen.estimator.module_
    np.testing.assert_array_equal(again.score_samples(rows), detector.score_samples(rows))
    with pytest.raises(ValueError, match=r"needs background_data=.*FrozenEstimator"):
        LikelihoodRatioDetector(net, net).fit(rows)


@pytest.mark.parametrize("background", ["gif", "jpeg", 3, None])
def test_an_unknown_background_is_refused(background, rows):
    with pytest.raises((ValueError, TypeError), match=r"background must be|estimator must be"):
        LikelihoodRatioDetector(gaussian(MEAN, SCALE), background).fit(rows)


# --- what is not finite ----------------------------------------------------------------------

VALUES = st.sampled_from([-np.inf, np.inf, np.nan, -3.0, 0.0, 2.0, -1e308, 1e308])


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1))
def test_a_ratio_is_finite_or_minus_infinity(pairs):
    model, background = np.array(pairs).T
    ratios = log_ratio(model, background)
    assert (np.isfinite(ratios) | (ratios == -np.inf)).all()
    assert (ratios[~np.isfinite(model)] == -np.inf).all()
    plain = np.isfinite(model) & np.isfinite(background) & (np.abs(model) < 1e9)
    plain &= np.abs(background) < 1e9
    np.testing.assert_array_equal(ratios[plain], model[plain] - background[plain])


def test_impossible_under_the_model_is_an_outlier_and_under_the_background_is_not(rng):
    X = rng.normal(size=(50, 2))
    detector = LikelihoodRatioDetector(Given(0), Given(1)).fit(X)
    impossible, breaks_down = 101.0, 103.0
    strange = [[impossible, 0], [impossible, impossible], [breaks_down, 0], [0, breaks_down]]
    assert (detector.score_samples(strange) == -np.inf).all()
    assert (detector.predict(strange) == -1).all()
    assert detector.predict([[0, impossible]]) == [1]
    assert detector.score_samples([[0, impossible]]) > detector.score_samples(X).max()
    # The difference taken first, as in code that does not look, is NaN here.
    with np.errstate(invalid="ignore"):
        assert np.isnan(-np.inf - np.float64(-np.inf))


# --- input complexity ------------------------------------------------------------------------


def test_complexity_is_serras_score_in_nats(images, table):
    pillow = pytest.importorskip("PIL.Image")
    n_bytes = []
    for image in images:
        buffer = io.BytesIO()
        pillow.fromarray(image[0]).save(buffer, "PNG", optimize=True)
        n_bytes.append(len(buffer.getvalue()))
    nats = np.array(n_bytes) * 8 * np.log(2)
    log_prob = table.table.detach().numpy()[images].sum(axis=(1, 2, 3))
    detector = LikelihoodRatioDetector(table, "png").fit(images)
    np.testing.assert_allclose(detector.score_samples(images), log_prob + nats, rtol=1e-10)
    assert detector.background_model_ is None


def test_complexity_has_not_the_weight_that_bits_give_it(images, table, rng):
    """Bits minus nats: every image, and a complex one more, looks more normal than it is."""
    noise = rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    detector = LikelihoodRatioDetector(table, "zlib").fit(images)
    faulty = {}
    for name, X in {"inliers": images, "noise": noise}.items():
        bits = np.array([8.0 * len(zlib.compress(x.tobytes(), 9)) for x in X])
        faulty[name] = table.table.detach().numpy()[X].sum(axis=(1, 2, 3)) + bits
        excess = faulty[name] - detector.score_samples(X)
        np.testing.assert_allclose(excess, bits * (1 - np.log(2)), rtol=1e-9)
        assert (excess > 0).all()
    # So noise, which a model of pixels finds improbable, comes closer to the inliers.
    ours = detector.score_samples(images).mean() - detector.score_samples(noise).mean()
    assert ours > faulty["inliers"].mean() - faulty["noise"].mean()


def test_complexity_finds_what_is_simple_and_probable(images, table):
    """A constant image of the likeliest value beats all others in likelihood, not in the ratio."""
    value = np.bincount(images.ravel()).argmax()
    simple = np.full((5, 1, 8, 8), value, dtype=np.uint8)
    log_prob = table.table.detach().numpy()
    assert log_prob[simple].sum(axis=(1, 2, 3)).min() > log_prob[images].sum(axis=(1, 2, 3)).max()
    detector = LikelihoodRatioDetector(table, "zlib").fit(images)
    assert auroc(detector.score_samples(images), detector.score_samples(simple)) > 0.9


def test_complexity_needs_bytes(rows, images):
    with pytest.raises(ValueError, match=r"dtype float64.*uint8"):
        LikelihoodRatioDetector(gaussian(MEAN, SCALE), "zlib").fit(rows)
    with pytest.raises(ValueError, match="judges whole samples"):
        LikelihoodRatioDetector(flow(), "zlib", contributions="last").fit(images)


def test_flat_rows_of_a_model_of_images_are_coded_as_images(images):
    net = net_of_images()
    pytest.importorskip("PIL.Image")
    flat = images.reshape(40, 64)
    detector = LikelihoodRatioDetector(net, "png").fit(flat)
    of_images = LikelihoodRatioDetector(FrozenEstimator(net.fit(images)), "png").fit(images)
    np.testing.assert_allclose(
        detector.score_samples(flat), of_images.score_samples(images), rtol=1e-4
    )


def test_a_missing_codec_is_named_before_a_model_is_trained(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    net = GenerativeNet(VAE, max_epochs=10**6)
    with pytest.raises(ImportError, match=r"imagecodecs.*skgradood\[codecs\]"):
        LikelihoodRatioDetector(net, "jpegxl").fit(images)


# --- perturbed background --------------------------------------------------------------------


def test_mutations_are_rens(rng):
    X = np.full((200, 1, 16, 16), 200, dtype=np.uint8)
    state = np.random.RandomState(1)
    replaced = mutate(X, "replace", 0.25, state)
    assert replaced.dtype == np.uint8
    # A replaced value is another one, uniform over the rest of the alphabet.
    assert (replaced != X).mean() == pytest.approx(0.25, abs=0.01)
    counts = np.bincount(replaced[replaced != X], minlength=256)
    assert counts[200] == 0
    assert chisquare(np.delete(counts, 200)).pvalue > 0.001
    # Adding 0...255 modulo 256 leaves one in 256 as it was; every other sum is as likely.
    added = mutate(X, "add_mod_256", 1.0, state)
    assert (added == X).mean() == pytest.approx(1 / 256, abs=0.001)
    assert chisquare(np.bincount(added.ravel(), minlength=256)).pvalue > 0.001
    np.testing.assert_array_equal(mutate(X, "replace", 0.0, state), X)


def test_rows_are_mutated_within_their_columns(rng):
    X = np.column_stack([np.arange(500.0), 1000 + np.arange(500.0)])
    mutated = mutate(X, "replace", 0.5, np.random.RandomState(0))
    assert (mutated != X).mean() == pytest.approx(0.5, abs=0.05)
    assert np.isin(mutated[:, 0], X[:, 0]).all()
    assert np.isin(mutated[:, 1], X[:, 1]).all()
    with pytest.raises(ValueError, match=r"add_mod_256.*uint8.*float64"):
        mutate(X, "add_mod_256", 0.5, np.random.RandomState(0))


def test_a_perturbed_background_is_a_clone_trained_on_mutations(images):
    options = {"module__width": 4, "module__latent_dim": 2, "max_epochs": 1, "random_state": 0}
    net = GenerativeNet(VAE, **options)
    detector = LikelihoodRatioDetector(net, "perturbed", mutation_rate=1.0).fit(images)
    noise = np.random.default_rng(1).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    # All values replaced: the background has learnt noise, and finds it likelier than the model.
    assert auroc(detector.score_samples(images), detector.score_samples(noise)) == 1.0
    none = LikelihoodRatioDetector(net, "perturbed", mutation_rate=0.0).fit(images)
    np.testing.assert_array_equal(none.score_samples(images), 0)
    frozen = LikelihoodRatioDetector(FrozenEstimator(net.fit(images)), "perturbed", random_state=1)
    assert frozen.fit(images).background_model_.module is not net.module_
    with pytest.raises(TypeError, match="trains a clone of the estimator"):
        LikelihoodRatioDetector(VAE((1, 8, 8)), "perturbed").fit(images)


# --- contributions ---------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", ["last", 0, -1, [0, 2], np.array([1])])
def test_contributions_are_compared_alone(chosen, images):
    model, background = flow(), flow()
    detector = LikelihoodRatioDetector(model, background, contributions=chosen).fit(images)
    parts = [flow_parts(module, images) for module in (model, background)]
    columns = [2] if chosen == "last" else np.atleast_1d(chosen)
    expected = (parts[0] - parts[1])[:, columns].sum(axis=1)
    np.testing.assert_allclose(detector.score_samples(images), expected, rtol=1e-4)


def flow_parts(module, images):
    with torch.no_grad():
        return module.log_prob_contributions(torch.as_tensor(images)).double().numpy()


def test_all_contributions_are_the_log_likelihood(images):
    model, background = flow(), flow()
    whole = LikelihoodRatioDetector(model, background).fit(images)
    sums = LikelihoodRatioDetector(model, background, contributions=[0, 1, 2]).fit(images)
    np.testing.assert_allclose(
        sums.score_samples(images), whole.score_samples(images), rtol=1e-4, atol=1e-3
    )


def test_wrong_contributions_are_refused(images, rows):
    for wrong in (3, [0, -4], [0.5], []):
        with pytest.raises(ValueError, match=r"numbers of some of the 3 contributions"):
            LikelihoodRatioDetector(flow(), flow(), contributions=wrong).fit(images)
    gaussians = gaussian(MEAN, SCALE), gaussian(WIDE_MEAN, WIDE_SCALE)
    with pytest.raises(TypeError, match=r"DiagonalGaussian has no method log_prob_contributions"):
        LikelihoodRatioDetector(*gaussians, contributions="last").fit(rows)


# --- density estimators as backgrounds -------------------------------------------------------


def test_a_gaussian_mixture_of_the_training_samples_or_of_others(rows, rng):
    model, mixture = gaussian(MEAN, SCALE), GaussianMixture(random_state=0)
    X, others = 3 * rng.normal(size=(2, 50, 2))
    for data, seen in ((None, rows), (others, others)):
        detector = LikelihoodRatioDetector(model, mixture, background_data=data).fit(rows)
        background = multivariate_normal(seen.mean(axis=0), np.cov(seen.T, bias=True))
        expected = gaussian_log_prob(X, MEAN, SCALE) - background.logpdf(X)
        np.testing.assert_allclose(detector.score_samples(X), expected, rtol=1e-3)
        assert not hasattr(mixture, "means_")


def test_pixel_differences_as_the_background(table, images):
    model = PixelDifferenceModel()
    detector = LikelihoodRatioDetector(table, model).fit(images)
    fitted = clone(model).fit(images)
    with torch.no_grad():
        likelihoods = table.log_prob(torch.from_numpy(images)).double().numpy()
    expected = likelihoods - fitted.score_samples(images)
    np.testing.assert_allclose(detector.score_samples(images), expected, rtol=1e-6)
    frozen = LikelihoodRatioDetector(table, FrozenEstimator(fitted)).fit(images[:5])
    np.testing.assert_array_equal(frozen.score_samples(images), detector.score_samples(images))
    grouped = LikelihoodRatioDetector(table, FrozenEstimator(fitted), grouped=True)
    groups = make_groups(images, 5, random_state=0)
    of_samples = detector.score_samples(groups.reshape(-1, 1, 8, 8)).reshape(-1, 5)
    np.testing.assert_allclose(grouped.fit(groups).score_samples(groups), of_samples.mean(axis=1))


def test_densities_that_are_no_background(images, rows):
    with pytest.raises(ValueError, match="judges whole samples"):
        LikelihoodRatioDetector(flow(), PixelDifferenceModel(), contributions="last").fit(images)
    with pytest.raises(TypeError, match="background must be"):
        LikelihoodRatioDetector(gaussian(MEAN, SCALE), IsolationForest()).fit(rows)


@pytest.mark.parametrize(
    ("background", "error", "message"),
    [
        (RoseDetector(), TypeError, r"background must be a GenerativeNet.*got RoseDetector\(\)"),
        (torch.nn.Identity(), TypeError, r"Identity has no method log_prob\(X\)"),
        (FrozenEstimator(GenerativeNet(VAE)), NotFittedError, "GenerativeNet"),
        (FrozenEstimator(GaussianMixture()), NotFittedError, "FrozenEstimator"),
    ],
)
def test_a_wrong_background_is_named_before_a_model_is_trained(background, error, message, rows):
    net = GenerativeNet(never_trained)
    with pytest.raises(error, match=message):
        LikelihoodRatioDetector(net, background).fit(rows)


def test_flat_rows_of_a_model_of_images_are_images_for_the_background(images):
    net = net_of_images().fit(images)
    flat, pixels = images.reshape(40, 64), PixelDifferenceModel()
    for others in (None, flat[:20] // 2):
        of_rows = LikelihoodRatioDetector(net, pixels, background_data=others).fit(flat)
        of_images = LikelihoodRatioDetector(
            net, pixels, background_data=None if others is None else others.reshape(-1, 8, 8)
        ).fit(images)
        np.testing.assert_allclose(
            of_rows.score_samples(flat), of_images.score_samples(images), rtol=1e-4
        )
    mixture = GaussianMixture(reg_covar=1.0)  # takes rows, and gets them
    detector = LikelihoodRatioDetector(FrozenEstimator(net), mixture).fit(flat)
    assert np.isfinite(detector.score_samples(flat)).all()


# --- as an estimator -------------------------------------------------------------------------


def test_grid_search_over_backgrounds_and_mutation_rates(images, rng):
    net = GenerativeNet(
        VAE, module__width=4, module__latent_dim=2, max_epochs=1, batch_size=20, random_state=0
    )
    noise = rng.integers(0, 256, (10, 1, 8, 8), dtype=np.uint8)
    X, y = np.concatenate([images, noise]), np.repeat([1, -1], [40, 10])
    search = GridSearchCV(
        LikelihoodRatioDetector(net, "perturbed", background_data=noise, random_state=0),
        [
            {"background": ["perturbed"], "mutation_rate": [0.1, 0.9]},
            {"background": ["zlib", net]},
        ],
        cv=InlierKFold(n_splits=2),
        scoring=outlier_scorer("roc_auc"),
        error_score="raise",
    ).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(search.cv_results_["params"]) == 4
    assert search.best_score_ > 0.9


@pytest.mark.parametrize("background", ["zlib", "perturbed", PixelDifferenceModel()])
def test_saved_calibrated_and_constant_images(background, images, tmp_path):
    net = GenerativeNet(VAE, module__width=4, module__latent_dim=2, max_epochs=1, random_state=0)
    detector = LikelihoodRatioDetector(net, background, random_state=0)
    conformal = ConformalDetector(detector, alpha=0.2, random_state=0).fit(images)
    save(conformal, tmp_path / "detector.skg")
    loaded = load(tmp_path / "detector.skg")
    constant = np.stack([np.zeros((1, 8, 8), np.uint8), np.full((1, 8, 8), 255, np.uint8)])
    for X in (images, constant, images[:1]):
        np.testing.assert_array_equal(loaded.score_samples(X), conformal.score_samples(X))
        assert np.isfinite(conformal.score_samples(X)).all()

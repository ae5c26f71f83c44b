"""The transformer from samples to Fisher-preconditioned statistics, as an estimator."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skgradood import FisherPreconditioner, GenerativeNet
from skgradood.detectors import ChiSquareJointDensity
from skgradood.fisher import APPROXIMATIONS
from skgradood.gradients import GradientEngine
from skgradood.models import VAE, DiagonalGaussian
from skgradood.utils import make_groups
from tests.fisher import closed, oracles

KINDS = tuple(APPROXIMATIONS)
MEAN, LOG_VARIANCE = np.array([0.0, 1.0, -1.0]), np.array([0.0, 1.4, -1.4])


@pytest.fixture(scope="module")
def rows():
    noise = np.random.default_rng(0).normal(size=(60, 3))
    return MEAN + np.exp(LOG_VARIANCE / 2) * noise


@pytest.fixture(scope="module")
def module():
    return closed.Gaussian(MEAN, LOG_VARIANCE)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (12, 9, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def vae(images):
    options = {"module__width": 4, "module__latent_dim": 3}
    net = GenerativeNet(VAE, max_epochs=1, batch_size=6, random_state=0, **options)
    return net.fit(images)


def all_rows(module, rows, **options):
    return FisherPreconditioner(module, cross_fit=False, **options).fit(rows)


def expected_form(kind, rows, module, damping):
    """Columns of one kind by brute force; vectors have a single mode, which is exact."""
    gradients = oracles.dense_gradients(module, torch.as_tensor(rows)).values()
    oracle = {"identity": oracles.identity, "diagonal": oracles.diagonal}.get(kind, oracles.block)
    return np.column_stack([oracle(g, g, damping) for g in gradients])


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_those_of_dense_gradients(module, rows, kind):
    statistics = all_rows(module, rows, approximation=kind, damping=0.01).transform(rows)
    np.testing.assert_allclose(statistics, expected_form(kind, rows, module, 0.01), rtol=1e-8)


def test_several_approximations_cost_one_backward_pass(module, rows, monkeypatch):
    calls = []
    run = GradientEngine.run
    monkeypatch.setattr(
        GradientEngine, "run", lambda self, *args: calls.append(len(args[0])) or run(self, *args)
    )
    transformer = all_rows(module, rows, approximation=KINDS)
    assert calls == [60, 60]  # EKFAC takes two passes, and the others join the first
    together = transformer.transform(rows)
    assert calls == [60, 60, 60]
    apart = [all_rows(module, rows, approximation=kind).transform(rows) for kind in KINDS]
    np.testing.assert_allclose(together, np.concatenate(apart, axis=1), rtol=1e-9)
    names = [f"{layer}__{kind}" for kind in KINDS for layer in ("mean", "log_variance")]
    assert transformer.get_feature_names_out().tolist() == names


@pytest.mark.parametrize("output", ["quadratic_form", "log"])
@pytest.mark.parametrize("column", [False, True])
def test_output_and_the_column_of_the_log_likelihood(module, rows, output, column):
    options = {"approximation": ("block", "identity"), "damping": 0.01}
    transformer = all_rows(module, rows, output=output, log_likelihood_column=column, **options)
    expected = np.concatenate(
        [expected_form(kind, rows, module, 0.01) for kind in options["approximation"]], axis=1
    )
    expected = np.log(expected) if output == "log" else expected
    if column:
        log_prob = module.log_prob(torch.as_tensor(rows)).detach()
        expected = np.column_stack([expected, log_prob])
        assert transformer.get_feature_names_out()[-1] == "log_likelihood"
    np.testing.assert_allclose(transformer.transform(rows), expected, rtol=1e-8)
    assert len(transformer.get_feature_names_out()) == expected.shape[1]


def test_the_logarithm_of_a_statistic_that_is_zero_is_finite():
    net = torch.nn.Linear(3, 3)
    net.log_prob = lambda X: -(X - net.bias).square().sum(1)
    logs = FisherPreconditioner(net, output="log").fit_transform(np.eye(3))
    assert (logs[:, 0] == np.log(np.finfo(float).tiny)).all()
    assert np.isfinite(logs).all()


def test_effective_dimensions_and_sizes(module, rows):
    transformer = all_rows(module, rows, approximation=KINDS, damping=0)
    np.testing.assert_allclose(transformer.effective_dim_, [3] * 12)
    assert transformer.n_parameters_.tolist() == [3, 3]
    assert (transformer.n_features_in_, transformer.n_fisher_samples_) == (3, 60)
    damped = all_rows(module, rows, approximation=("block", "diagonal"), damping=0.2)
    np.testing.assert_allclose(damped.effective_dim_, damped.transform(rows).mean(0), rtol=1e-8)


@pytest.mark.parametrize("power", [0.5, 2.0])
def test_power_and_absolute_damping(module, rows, power):
    transformer = all_rows(module, rows, damping=0.3, damping_scale="absolute", power=power)
    gradients = oracles.dense_gradients(module, torch.as_tensor(rows)).values()
    squares = [g**2 for g in gradients]
    units = [square.mean() ** (power - 1) for square in squares]
    expected = [
        unit * (square / (square.mean(0) + 0.3) ** power).sum(1)
        for unit, square in zip(units, squares, strict=True)
    ]
    np.testing.assert_allclose(transformer.transform(rows), np.column_stack(expected), rtol=1e-9)


def test_automatic_damping_is_a_share_of_the_mean_eigenvalue(module, rows):
    """Whatever the unit that damping_scale names: automatic damping has its own."""
    auto = all_rows(module, rows, approximation="block")
    options = [a.options for a in auto.fisher_.by_parameter["mean"]]
    same = all_rows(module, rows, approximation="block", damping=options[0].damping)
    other = all_rows(module, rows, approximation="block", damping_scale="absolute")
    np.testing.assert_array_equal(same.transform(rows), auto.transform(rows))
    np.testing.assert_array_equal(other.transform(rows), auto.transform(rows))
    assert 0 < options[0].damping < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_groups_by_brute_force(module, rows, kind):
    """(1/B) Uᵀ F⁻¹ U, with the Fisher matrix of single samples."""
    groups, B = make_groups(rows, 5), 5
    transformer = all_rows(module, groups, approximation=kind, damping=0.01, grouped=True)
    assert transformer.n_fisher_samples_ == (0 if kind == "identity" else 60)
    flat = groups.reshape(-1, 3)
    expected = []
    for g in oracles.dense_gradients(module, torch.as_tensor(flat)).values():
        oracle = {"identity": oracles.identity, "diagonal": oracles.diagonal}.get(
            kind, oracles.block
        )
        expected.append(oracle(g, g.reshape(-1, B, 3).sum(1), 0.01) / B)
    statistics = transformer.transform(groups)
    np.testing.assert_allclose(statistics, np.column_stack(expected), rtol=1e-8)


@pytest.mark.parametrize("kind", ["identity", "diagonal", "kfac", "ekfac"])
def test_channels_add_up_to_their_layers(vae, images, kind):
    options = {"approximation": kind, "cross_fit": False}
    whole = FisherPreconditioner(FrozenEstimator(vae), **options).fit(images)
    apart = FisherPreconditioner(FrozenEstimator(vae), layers="channel", **options).fit(images)
    channels = apart.transform(images)
    statistics = whole.transform(images)
    owners = np.array([name.rpartition("[")[0] for name in apart.layer_names_])
    for column, layer in enumerate(whole.layer_names_):
        own = channels[:, owners == layer].sum(1)
        np.testing.assert_allclose(own, statistics[:, column], rtol=2e-4)
        dims = apart.effective_dim_[owners == layer].sum()
        assert dims == pytest.approx(whole.effective_dim_[column], rel=1e-6)


def test_samples_of_the_model_know_no_rows(module, rows):
    """Its own samples converge to the closed form, whatever the rows are; none is held out."""
    transformer = FisherPreconditioner(
        module, approximation="block", fisher="model", n_fisher_samples=20_000, damping=0
    ).fit(rows[:4])
    assert transformer.held_out_fisher_ is None
    assert transformer.n_fisher_samples_ == 20_000
    z = (rows - MEAN) / np.exp(LOG_VARIANCE / 2)
    expected = np.column_stack([(z**2).sum(1), ((z**2 - 1) ** 2 / 2).sum(1)])
    np.testing.assert_allclose(transformer.transform(rows), expected, rtol=0.1)
    assert not hasattr(transformer, "partial_fit")
    few = FisherPreconditioner(module, fisher="model").fit(rows)
    assert few.n_fisher_samples_ == len(rows)
    again = FisherPreconditioner(module, fisher="model").fit(rows[::-1] + 1)
    np.testing.assert_array_equal(again.transform(rows), few.transform(rows))


def test_samples_of_a_model_of_images(vae, images):
    transformer = FisherPreconditioner(
        FrozenEstimator(vae), approximation="ekfac", fisher="model", n_fisher_samples=10
    ).fit(images)
    drawn = transformer.likelihood_model_.sample(10, 0)
    expected = FisherPreconditioner(
        FrozenEstimator(vae), approximation="ekfac", cross_fit=False
    ).fit(drawn.numpy())
    np.testing.assert_allclose(transformer.transform(images), expected.transform(images), rtol=1e-4)


def test_chunks_are_one_fit_but_for_the_basis_of_ekfac(module, rows):
    kinds = tuple(kind for kind in KINDS if kind != "ekfac")
    whole = all_rows(module, rows, approximation=kinds)
    chunks = FisherPreconditioner(module, approximation=kinds, cross_fit=False)
    for chunk in np.array_split(rows, [7, 8, 30]):
        chunks.partial_fit(chunk)
    np.testing.assert_allclose(chunks.transform(rows), whole.transform(rows), rtol=1e-9)
    np.testing.assert_allclose(chunks.effective_dim_, whole.effective_dim_, rtol=1e-9)
    assert chunks.n_fisher_samples_ == 60


def test_data_frames_and_pandas_output(module, rows):
    frame = pd.DataFrame(rows, columns=["a", "b", "c"])
    transformer = FisherPreconditioner(module).set_output(transform="pandas").fit(frame)
    statistics = transformer.transform(frame)
    assert statistics.columns.tolist() == ["mean__diagonal", "log_variance__diagonal"]
    assert transformer.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        transformer.transform(frame[["b", "a", "c"]])


def test_a_grid_over_approximations_and_damping(module, rows):
    pipeline = make_pipeline(
        FisherPreconditioner(module, output="log"), ChiSquareJointDensity(dependence="gaussian")
    )
    search = GridSearchCV(
        pipeline,
        {
            "fisherpreconditioner__approximation": ["diagonal", ("identity", "ekfac")],
            "fisherpreconditioner__damping": ["auto", 0.1],
        },
        scoring=lambda detector, X, y=None: detector.score_samples(X).mean(),
        cv=3,
        error_score="raise",
    ).fit(rows)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    outliers = rows + 8
    assert search.score_samples(outliers).max() < np.median(search.score_samples(rows))


@pytest.mark.parametrize("kind", KINDS)
def test_clones_and_copies(rows, kind):
    net = GenerativeNet(DiagonalGaussian, max_epochs=2, random_state=0)
    transformer = FisherPreconditioner(net, approximation=kind, random_state=1).fit(rows)
    expected = transformer.transform(rows)
    copy = pickle.loads(pickle.dumps(transformer))
    np.testing.assert_array_equal(copy.transform(rows), expected)
    copy_of_parameters = clone(transformer)
    with pytest.raises(NotFittedError):
        copy_of_parameters.transform(rows)
    np.testing.assert_array_equal(copy_of_parameters.fit(rows).transform(rows), expected)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("n_whole_passes", [0, 1])
def test_an_interrupted_fit_leaves_the_earlier_one(
    module, rows, monkeypatch, method, n_whole_passes
):
    transformer = FisherPreconditioner(module, approximation=KINDS).fit(rows)
    before, state = transformer.transform(rows), transformer.effective_dim_
    run, calls = GradientEngine.run, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) > n_whole_passes:
            raise KeyboardInterrupt
        return run(self, *arguments)

    monkeypatch.setattr(GradientEngine, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        getattr(transformer, method)(rows + 1)
    monkeypatch.undo()
    np.testing.assert_array_equal(transformer.transform(rows), before)
    np.testing.assert_array_equal(transformer.effective_dim_, state)
    # It also goes on as if nothing had been tried.
    fresh = FisherPreconditioner(module, approximation=KINDS).fit(rows).partial_fit(rows + 2)
    np.testing.assert_array_equal(
        transformer.partial_fit(rows + 2).transform(rows), fresh.transform(rows)
    )


class Silent(torch.nn.Module):
    """Cannot be sampled from."""

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(3))

    def log_prob(self, X):
        return -(X - self.mean).square().sum(1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"approximation": "full"}, ValueError, r"one of \[.*'ekfac'.*\].*got 'full'"),
        ({"approximation": ("kfac", "eigen")}, ValueError, r"got \('kfac', 'eigen'\)"),
        ({"approximation": ("kfac", "kfac")}, ValueError, "several different ones"),
        ({"approximation": ()}, ValueError, "approximation must be"),
        (
            {"approximation": "block", "max_block_size": 2},
            ValueError,
            "'mean' would have 3 rows, more than max_block_size=2.*raise max_block_size",
        ),
        ({"approximation": "sketch", "layers": "channel"}, ValueError, "layers='channel'"),
        ({"fisher": "model"}, TypeError, r"Silent has no method sample\(n, generator=None\)"),
        ({"fisher": "mc"}, ValueError, "'fisher' parameter.*'empirical'"),
        ({"damping": -1.0}, ValueError, "'damping' parameter"),
        ({"power": 0}, ValueError, "'power' parameter"),
        ({"n_fisher_samples": 0}, ValueError, "'n_fisher_samples' parameter"),
        ({"basis": "eigen"}, ValueError, "'basis' parameter.*'gradients'"),
    ],
)
def test_errors_say_what_was_expected_and_what_came(rows, options, error, message):
    with pytest.raises(error, match=message):
        FisherPreconditioner(Silent(), **options).fit(rows)


class Exploding(Silent):
    """Its score overflows far away."""

    def log_prob(self, X):
        return -(100 * (X - self.mean)).exp().sum(1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "identity"])
def test_rows_without_a_finite_score(kind):
    """In a fit they are an error; measured, their statistics are not finite, and others are."""
    near = np.random.default_rng(0).normal(scale=0.01, size=(20, 3))
    far = np.concatenate([near, [[50.0, 50.0, 50.0]]])
    module = Exploding().double()
    transformer = FisherPreconditioner(module, approximation=kind).fit(near)
    finite = np.isfinite(transformer.transform(far))
    assert finite[:-1].all()
    assert not finite[-1].any()
    before = transformer.transform(near)
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=r"Fisher matrix of 'mean'.*not finite"):
            getattr(transformer, method)(far + 1e-3)
        np.testing.assert_array_equal(transformer.transform(near), before)

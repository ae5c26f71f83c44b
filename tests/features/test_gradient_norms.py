"""The transformer: the engine's norms as a scikit-learn estimator."""

from __future__ import annotations

import pickle
import re

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skgradood import GenerativeNet, GradientNormTransformer, layer_gradient_norms, layer_names
from skgradood.detectors import ChiSquareJointDensity
from skgradood.models import VAE, DiagonalGaussian
from skgradood.persistence import load, save
from skgradood.utils import make_groups
from tests.gradients.test_side_effects import assert_same, snapshot


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(60, 3)) * [1.0, 2.0, 0.5] + [0.0, 1.0, -1.0]


@pytest.fixture(scope="module")
def net(rows):
    return GenerativeNet(DiagonalGaussian, max_epochs=3, dtype="float64", random_state=0).fit(rows)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (12, 9, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def vae(images):
    net = GenerativeNet(
        VAE, module__width=4, module__latent_dim=3, max_epochs=1, batch_size=6, random_state=0
    )
    return net.fit(images)


def test_columns_are_the_closed_form_of_a_gaussian(net, rows):
    features = GradientNormTransformer(FrozenEstimator(net)).fit_transform(rows)
    mean, scale = net.module_.mean.detach().numpy(), net.module_.log_scale.detach().exp().numpy()
    z = (rows - mean) / scale
    expected = np.column_stack([((z / scale) ** 2).sum(1), ((z**2 - 1) ** 2).sum(1)])
    np.testing.assert_allclose(features, expected, rtol=1e-10)


@pytest.mark.parametrize("layers", ["parameter", "module", "channel"])
@pytest.mark.parametrize("output", ["squared_norm", "log"])
@pytest.mark.parametrize("column", [False, True])
def test_every_combination_of_columns(vae, images, layers, output, column):
    transformer = GradientNormTransformer(
        FrozenEstimator(vae), layers=layers, output=output, log_likelihood_column=column
    )
    features = transformer.fit(images).transform(images)
    X = torch.as_tensor(images[:, None])
    expected = layer_gradient_norms(vae.module_, X, layers=layers, engine="loop")
    names = layer_names(vae.module_, layers=layers)
    if output == "log":
        expected = np.log(np.maximum(expected, np.finfo(float).tiny))
    if column:
        expected = np.column_stack([expected, vae.score_samples(images)])
        names = [*names, "log_likelihood"]
    assert transformer.get_feature_names_out().tolist() == names
    np.testing.assert_allclose(features, expected, rtol=1e-4)


def test_an_unfitted_net_is_cloned_and_fitted_and_a_frozen_one_is_not_copied(rows):
    unfitted = GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0)
    transformer = GradientNormTransformer(unfitted).fit(rows)
    assert not hasattr(unfitted, "module_")
    fitted = clone(unfitted).fit(rows)
    frozen = GradientNormTransformer(FrozenEstimator(fitted))
    assert clone(frozen).fit(rows).likelihood_model_.module is fitted.module_
    np.testing.assert_array_equal(transformer.transform(rows), frozen.fit(rows).transform(rows))


def test_a_module_is_used_as_it_is_and_left_as_it_was(rows):
    module = DiagonalGaussian(input_shape=(3,)).double()
    module.train()
    before = snapshot(module)
    transformer = GradientNormTransformer(module).fit(rows)
    features = transformer.transform(rows)
    assert transformer.likelihood_model_.module is module
    assert_same(before, snapshot(module))
    np.testing.assert_allclose(features, layer_gradient_norms(module, torch.as_tensor(rows)))


@pytest.mark.parametrize(
    "convert",
    [
        lambda X: X[:, None],
        lambda X: X[..., None],
        lambda X: list(X),
        torch.as_tensor,
        lambda X: np.asfortranarray(X),
    ],
    ids=["channels first", "channels last", "list", "tensor", "fortran"],
)
def test_images_in_every_layout_of_the_contract(vae, images, convert):
    transformer = GradientNormTransformer(FrozenEstimator(vae)).fit(images)
    expected = transformer.transform(images)
    np.testing.assert_array_equal(transformer.transform(convert(images)), expected)


def test_rows_stay_as_they_are_whatever_their_neighbours(vae, images):
    transformer = GradientNormTransformer(FrozenEstimator(vae)).fit(images)
    features = transformer.transform(images)
    for batch_size in (1, 5, 12):
        again = clone(transformer).set_params(batch_size=batch_size).fit(images)
        np.testing.assert_allclose(again.transform(images[::-1])[::-1], features, rtol=1e-4)


def test_a_layer_without_gradient_has_a_finite_logarithm():
    module = torch.nn.Linear(3, 3)
    module.log_prob = lambda X: -(X - module.bias).square().sum(1)
    features = GradientNormTransformer(module, output="log").fit_transform(np.eye(3))
    assert np.isfinite(features).all()
    assert (features[:, 0] == np.log(np.finfo(float).tiny)).all()


def test_data_frames_keep_their_names_and_pandas_output_works(net, rows):
    frame = pd.DataFrame(rows, columns=["a", "b", "c"])
    transformer = GradientNormTransformer(FrozenEstimator(net)).set_output(transform="pandas")
    features = transformer.fit(frame).transform(frame)
    assert features.columns.tolist() == ["mean", "log_scale"]
    assert transformer.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        transformer.transform(frame[["b", "a", "c"]])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda net: "vae", TypeError, "estimator must be a GenerativeNet.*got 'vae'"),
        (lambda net: StandardScaler(), TypeError, "estimator must be a GenerativeNet"),
        (lambda net: torch.nn.Linear(3, 3), TypeError, r"Linear has no method log_prob\(X\)"),
        (lambda net: FrozenEstimator(clone(net)), NotFittedError, "not fitted"),
    ],
)
def test_what_is_no_likelihood_model_is_refused(net, rows, make, error, message):
    with pytest.raises(error, match=message):
        GradientNormTransformer(make(net)).fit(rows)


def test_wrong_samples_are_named(net, vae, rows, images):
    transformer = GradientNormTransformer(FrozenEstimator(net)).fit(rows)
    with pytest.raises(ValueError, match=r"2 features.*expecting 3 features"):
        transformer.transform(rows[:, :2])
    broken = rows.copy()
    broken[7, 1] = np.nan
    with pytest.raises(ValueError, match="contains NaN: row 7"):
        transformer.transform(broken)
    of_images = GradientNormTransformer(FrozenEstimator(vae)).fit(images)
    with pytest.raises(ValueError, match="uint8"):
        of_images.transform(images / 255.0)
    with pytest.raises(ValueError, match=r"\(1, 7, 8\).*\(1, 9, 8\)"):
        of_images.transform(images[:, :7])
    with pytest.raises(NotFittedError):
        GradientNormTransformer(FrozenEstimator(net)).transform(rows)


def test_the_cache_of_a_pipeline_is_hit(net, rows, tmp_path, monkeypatch):
    fits = []
    original = GradientNormTransformer.fit

    def counting_fit(self, X, y=None):
        fits.append(self)
        return original(self, X, y)

    monkeypatch.setattr(GradientNormTransformer, "fit", counting_fit)
    for estimator in (FrozenEstimator(net), DiagonalGaussian(input_shape=(3,)).double()):
        fits.clear()
        memory = joblib.Memory(tmp_path / type(estimator).__name__, verbose=0)
        for _ in range(3):
            features = GradientNormTransformer(estimator)
            make_pipeline(features, StandardScaler(), memory=memory).fit(rows)
        # The scaler is the last step; the transformer is fitted once and found twice.
        assert len(fits) == 1


def test_a_pickle_keeps_module_and_estimator_one_object(rows):
    module = DiagonalGaussian(input_shape=(3,)).double()
    module.mean.requires_grad_(False)
    module.register_buffer("empty", torch.zeros(0, 2, dtype=torch.bfloat16))
    transformer = GradientNormTransformer(module).fit(rows)
    copy = pickle.loads(pickle.dumps(transformer))
    assert copy.likelihood_model_.module is copy.estimator
    assert copy.estimator.state_dict().keys() == module.state_dict().keys()
    assert copy.estimator.empty.dtype == torch.bfloat16
    assert [p.requires_grad for p in copy.estimator.parameters()] == [False, True]
    np.testing.assert_array_equal(copy.transform(rows), transformer.transform(rows))


def first_letter(name, parameter):
    return name[0]


# Every grouping puts the two tensors of a DiagonalGaussian into these layers.
GROUPINGS = {
    "pattern": (re.compile("^(mean|log)"), ["mean", "log"]),
    "string": ("regex:^(mean|log)", ["mean", "log"]),
    "callable": (first_letter, ["m", "l"]),
    "dict": ({"location": ["mean"], "spread": ["log_scale"]}, ["location", "spread"]),
}


@pytest.mark.parametrize("name", GROUPINGS)
def test_groupings_are_columns_with_names_and_sizes_after_clone_and_pickle(net, rows, name):
    layers, names = GROUPINGS[name]
    transformer = clone(GradientNormTransformer(FrozenEstimator(net), layers=layers))
    assert transformer.get_params()["layers"] == layers
    transformer.set_params(log_likelihood_column=True).fit(rows)
    assert transformer.get_feature_names_out().tolist() == [*names, "log_likelihood"]
    assert transformer.n_parameters_.dtype == np.int64
    assert transformer.n_parameters_.tolist() == [3, 3]
    features = transformer.transform(rows)
    plain = GradientNormTransformer(FrozenEstimator(net)).fit_transform(rows)
    np.testing.assert_allclose(features[:, :2], plain)
    copy = pickle.loads(pickle.dumps(transformer))
    np.testing.assert_array_equal(copy.transform(rows), features)


def test_layers_are_searched_over(net, rows):
    grid = [
        "parameter",
        *(layers for layers, _ in GROUPINGS.values()),
        {"both": ["mean", "log_scale"]},
    ]
    pipeline = make_pipeline(
        GradientNormTransformer(FrozenEstimator(net), output="log"),
        ChiSquareJointDensity(marginal="normal"),
    )
    search = GridSearchCV(
        pipeline,
        {"gradientnormtransformer__layers": grid},
        scoring=lambda detector, X, y=None: detector.score_samples(X).mean(),
        cv=2,
        error_score="raise",
    ).fit(rows)
    scores = search.cv_results_["mean_test_score"]
    # The first five name the same two columns; the last has another one.
    np.testing.assert_allclose(scores[1:5], scores[0])
    assert abs(scores[5] - scores[0]) > 1e-3


@pytest.mark.parametrize("name", ["string", "dict"])
def test_strings_and_dicts_of_layers_can_be_saved_without_pickling(net, rows, tmp_path, name):
    layers, names = GROUPINGS[name]
    transformer = GradientNormTransformer(FrozenEstimator(net), layers=layers).fit(rows)
    save(transformer, tmp_path / "features.skg")
    copy = load(tmp_path / "features.skg")
    assert copy.layers == layers
    assert copy.get_feature_names_out().tolist() == names
    np.testing.assert_array_equal(copy.transform(rows), transformer.transform(rows))


def test_wrong_layers_are_refused_before_the_model_is_trained(rows, monkeypatch):
    def fit(self, *args, **kwargs):
        raise AssertionError("the model was trained")

    monkeypatch.setattr(GenerativeNet, "fit", fit)
    for layers, error in [("modules", ValueError), (3, ValueError), (lambda name: "a", TypeError)]:
        transformer = GradientNormTransformer(GenerativeNet(DiagonalGaussian), layers=layers)
        with pytest.raises(error, match="layers"):
            transformer.fit(rows)


def test_a_parameter_that_the_model_does_not_have_is_named(net, rows):
    transformer = GradientNormTransformer(FrozenEstimator(net), layers={"a": ["log_scales"]})
    with pytest.raises(ValueError, match="did you mean 'log_scale'"):
        transformer.fit(rows)


@pytest.mark.parametrize("layout", [lambda X: X, lambda X: X[..., None, :, :]], ids=["grey", "CHW"])
def test_groups_of_images_give_the_norm_of_the_summed_gradient(vae, images, layout):
    groups = layout(images.reshape(4, 3, 9, 8))
    transformer = GradientNormTransformer(
        FrozenEstimator(vae), grouped=True, log_likelihood_column=True
    )
    features = transformer.fit(groups).transform(groups)
    X = torch.as_tensor(images[:, None])
    for k in range(4):
        value = vae.module_.log_prob(X[3 * k : 3 * k + 3]).sum()
        gradients = torch.autograd.grad(value, list(vae.module_.parameters()))
        expected = [float(g.double().square().sum()) for g in gradients]
        np.testing.assert_allclose(features[k, :-1], expected, rtol=1e-3)
        np.testing.assert_allclose(features[k, -1], float(value), rtol=1e-5)


def test_groups_of_rows_train_an_unfitted_net_on_their_samples(rows):
    net = GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0)
    groups = make_groups(rows, 4, random_state=0)
    of_groups = GradientNormTransformer(net, grouped=True).fit(groups)
    of_samples = GradientNormTransformer(net).fit(groups.reshape(-1, 3))
    assert of_groups.transform(groups).shape == (15, 2)
    assert of_groups.n_features_in_ == of_samples.n_features_in_ == 3
    np.testing.assert_array_equal(
        of_groups.likelihood_model_.module.mean.detach(),
        of_samples.likelihood_model_.module.mean.detach(),
    )
    with pytest.raises(ValueError, match=r"\(n_groups, group_size, ...\).*make_groups"):
        of_groups.transform(rows)

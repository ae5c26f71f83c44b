"""Training that does not begin anew, options of training in files, and early stopping."""

from __future__ import annotations

import pickle
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit

from skgradood.models import DiagonalGaussian, GenerativeNet, RealNVP
from skgradood.persistence import load, save


@pytest.fixture
def X(rng):
    return rng.normal(size=(130, 3)) * [1, 2, 3] + 5


@pytest.fixture
def general(X):
    return GenerativeNet(RealNVP, module__n_layers=2, max_epochs=2, random_state=1).fit(10 * X)


def weights(net):
    return {name: values.numpy() for name, values in net.module_.state_dict().items()}


WAYS = {
    "net": lambda net: net,
    "frozen": FrozenEstimator,
    "module": lambda net: net.module_,
}


@pytest.mark.parametrize("way", WAYS)
def test_training_begins_with_the_weights_of_the_initial_model(X, general, way):
    before = weights(general)
    net = GenerativeNet(
        RealNVP, module__n_layers=2, initial_model=WAYS[way](general), lr=1e-12, max_epochs=1
    ).fit(X)
    for name, values in weights(net).items():
        np.testing.assert_allclose(values, before[name], atol=1e-9)
    # Also the standardisation, which the data would have set anew.
    np.testing.assert_array_equal(net.module_.location, general.module_.location)
    np.testing.assert_array_equal(general.module_.location, before["location"])
    assert net.set_params(lr=1e-2).fit(X).score(X) > general.score(X)
    for name, values in weights(general).items():
        np.testing.assert_array_equal(values, before[name])


def test_a_clone_keeps_an_initial_model_that_is_frozen(X, general):
    net = clone(
        GenerativeNet(RealNVP, module__n_layers=2, initial_model=FrozenEstimator(general))
    ).fit(X)
    assert net.initial_model.estimator is general
    loose = clone(GenerativeNet(RealNVP, module__n_layers=2, initial_model=general))
    with pytest.raises(NotFittedError, match=r"initial_model must be .*FrozenEstimator"):
        loose.fit(X)


def test_an_initial_model_that_does_not_fit(X, general):
    with pytest.raises(ValueError, match=r"initial_model do not fit this RealNVP.*layers\.5"):
        GenerativeNet(RealNVP, module__n_layers=3, initial_model=general).fit(X)
    with pytest.raises(TypeError, match="initial_model must be a fitted GenerativeNet"):
        GenerativeNet(RealNVP, initial_model=torch.nn.Linear(1, 1)).fit(X)


def test_warm_start_goes_on_as_partial_fit_does(X):
    options = {"max_epochs": 2, "random_state": 0}
    warm = GenerativeNet(DiagonalGaussian, warm_start=True, **options).fit(X + 1).fit(X)
    expected = GenerativeNet(DiagonalGaussian, **options).fit(X + 1).partial_fit(X)
    np.testing.assert_array_equal(warm.score_samples(X), expected.score_samples(X))
    assert [epoch["epoch"] for epoch in warm.history_] == [1, 2, 3, 4]
    anew = GenerativeNet(DiagonalGaussian, **options).fit(X + 1).fit(X)
    assert not np.array_equal(anew.score_samples(X), warm.score_samples(X))


class Sized(DiagonalGaussian):
    """A module with arguments of many kinds."""

    def __init__(self, input_shape, hidden=8, scale=None, activation=torch.nn.ReLU, **others):
        super().__init__(input_shape)


CHANGES = {
    "module": ({}, {"module": DiagonalGaussian}, "module=.*Sized.*module=.*DiagonalGaussian"),
    "dtype": ({}, {"dtype": "float64"}, "with dtype='float32'; got dtype='float64'"),
    "default": ({}, {"module__hidden": 16}, "with module__hidden=8; got module__hidden=16"),
    "number": ({"module__hidden": 4}, {"module__hidden": 16}, "hidden=4; got module__hidden=16"),
    "sequence": ({"module__hidden": [1, 2]}, {"module__hidden": (1, 3)}, r"got .*=\(1, 3\)"),
    "array": ({"module__scale": np.ones(3)}, {"module__scale": np.zeros(3)}, "module__scale"),
    "class": ({}, {"module__activation": torch.nn.GELU}, "module__activation=.*GELU"),
    "partial": (
        {"module__scale": partial(max, 1)}, {"module__scale": partial(max, 2)}, "module__scale"
    ),
    "nested": ({"module__scale": {"a": [1]}}, {"module__scale": {"a": [2]}}, "module__scale"),
    "new": ({}, {"module__depth": 2}, "with module__depth=None; got module__depth=2"),
    "shape": ({}, {"module__input_shape": (4,)}, r"input_shape=\(3,\); got .*=\(4,\)"),
}  # fmt: skip


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("case", CHANGES)
def test_training_goes_on_with_the_same_module_only(X, case, method):
    made_with, changed, message = CHANGES[case]
    net = GenerativeNet(Sized, max_epochs=1, random_state=0, warm_start=True, **made_with).fit(X)
    scores = net.score_samples(X)
    net.set_params(**changed)
    with pytest.raises(ValueError, match=f"(?s){message}.*warm_start=False"):
        getattr(net, method)(X)
    np.testing.assert_array_equal(net.score_samples(X), scores)
    assert len(net.history_) == 1


def test_what_the_refusal_of_another_module_advises(X):
    net = GenerativeNet(Sized, max_epochs=1, random_state=0, warm_start=True).fit(X)
    net.set_params(dtype="float64", module__hidden=16)
    net.set_params(dtype="float32", module__hidden=8).fit(X)
    assert len(net.history_) == 2
    net.set_params(dtype="float64", module__hidden=16, warm_start=False).fit(X)
    assert net.module_.mean.dtype == torch.float64
    net.set_params(warm_start=True).fit(X)
    assert len(net.history_) == 2


def test_equal_arguments_and_those_that_cannot_be_compared_are_the_same(X):
    arguments = {
        "module__hidden": (1, np.nan), "module__scale": np.array([1.0, np.nan]),
        "module__activation": torch.nn.ReLU(), "module__other": partial(max, 1),
    }  # fmt: skip
    net = GenerativeNet(Sized, max_epochs=1, random_state=0, **arguments).fit(X)
    copied = pickle.loads(pickle.dumps(net))
    for twin in (net, copied):
        twin.set_params(
            module__hidden=[1.0, float("nan")], module__scale=torch.tensor([1.0, np.nan]),
            module__activation=torch.nn.ReLU(), module__other=partial(max, 1),
            module__input_shape=[3], lr=0.1,
        )  # fmt: skip
        assert len(twin.partial_fit(X).history_) == 2


def test_fine_tuning_a_general_model_with_outliers(X):
    options = {"dtype": "float64", "max_epochs": 20, "lr": 1e-2, "random_state": 0}
    broad = np.concatenate([X, X + np.array([4, 0, 0])])
    net = GenerativeNet(DiagonalGaussian, warm_start=True, **options).fit(broad)
    plain = clone(net).fit(broad).fit(X)
    net.set_params(outliers=broad, outliers__weight=1.0, outliers__temperature=5.0)
    net.set_params(
        outliers__general=FrozenEstimator(clone(net).set_params(outliers=None).fit(broad))
    )
    net.fit(X)
    assert net.score(X) - net.score(broad) > plain.score(X) - plain.score(broad) + 0.01


# --- copies and files ------------------------------------------------------------------------


@pytest.fixture
def with_outliers(X):
    net = GenerativeNet(
        DiagonalGaussian, max_epochs=1, random_state=0,
        outliers=10 * X, outlier_loss="margin", outliers__weight=0.1, warm_start=True,
    )  # fmt: skip
    return net.fit(X)


def test_parameters_clones_and_pickles(X, with_outliers):
    twins = (
        clone(with_outliers).fit(X),
        pickle.loads(pickle.dumps(with_outliers)),
        GenerativeNet(DiagonalGaussian).set_params(**with_outliers.get_params()).fit(X),
    )
    for twin in twins:
        parameters = twin.get_params()
        np.testing.assert_array_equal(parameters.pop("outliers"), 10 * X)
        assert parameters["outliers__weight"] == 0.1
        assert parameters["outlier_loss"] == "margin"
        assert parameters["warm_start"] is True
        np.testing.assert_array_equal(twin.score_samples(X), with_outliers.score_samples(X))
    assert joblib.hash(twins[1]) == joblib.hash(with_outliers)


def test_a_file_holds_no_training_data(X, with_outliers, general, tmp_path):
    with_outliers.set_params(outliers=np.tile(X, (50, 1)), outliers__general=general)
    with_outliers.set_params(initial_model=general, train_split=ValidSplit(0.2))
    save(with_outliers, tmp_path / "net.skg")
    loaded = load(tmp_path / "net.skg")
    np.testing.assert_array_equal(loaded.score_samples(X), with_outliers.score_samples(X))
    defaults = GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0).get_params()
    assert loaded.get_params() == defaults
    assert (tmp_path / "net.skg").stat().st_size < with_outliers.outliers.nbytes / 4
    loaded.partial_fit(X)


def test_a_pickle_from_before_these_options_loads(X):
    net = GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0).fit(X)
    state = net.__getstate__()
    assert not {"outliers", "outlier_loss", "initial_model", "warm_start"} & set(state)
    twin = object.__new__(GenerativeNet)
    twin.__setstate__(state)
    assert twin.get_params() == net.get_params()


# --- early stopping --------------------------------------------------------------------------


def test_early_stopping_ends_training_and_keeps_the_best_weights(X):
    stop = EarlyStopping(patience=3, load_best=True, threshold=0, threshold_mode="abs")
    net = GenerativeNet(
        RealNVP, module__n_layers=2, lr=2e-2, max_epochs=200, random_state=0, batch_size=16,
        train_split=ValidSplit(0.3, random_state=0), callbacks=[("stop", stop)],
    ).fit(X)  # fmt: skip
    losses = [epoch["valid_loss"] for epoch in net.history_]
    assert len(losses) < 200
    assert np.argmin(losses) == len(losses) - 4
    held_out = next(iter(ValidSplit(0.3, random_state=0)(X)[1:])).indices
    assert -net.score(X[held_out]) == pytest.approx(min(losses), rel=1e-5)

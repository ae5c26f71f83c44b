"""Training with labels: one latent mode a class, the supervised loss, and what comes of them."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch.dataset import ValidSplit
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from skgradood.detectors import LogLikelihoodDetector
from skgradood.models import DiagonalGaussian, GenerativeNet, Glow
from skgradood.persistence import load, save

SMALL = {"n_levels": 2, "n_steps": 2, "hidden_channels": 6}
SHAPE = (1, 8, 8)


def images(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *SHAPE), generator=generator, dtype=torch.uint8)


def make_glow(n_classes=3, **options):
    """A small flow away from its initial state."""
    torch.manual_seed(0)
    model = Glow(SHAPE, n_classes=n_classes, **(SMALL | options)).double()
    model.initialize(images(64))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


# --- the density ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"learned_prior": False}, {"n_levels": 1}])
def test_the_prior_is_a_mixture_with_one_mode_a_class(options):
    model, X = make_glow(**options), images(5)
    prior = model.levels[-1].prior
    top = model.encode((X.double() + 0.5) / 256 - 0.5)[0][-1]
    modes = Independent(Normal(prior.mean, (4 * torch.tanh(prior.log_scale / 4)).exp()), 3)
    mixture = MixtureSameFamily(Categorical(logits=prior.class_logits), modes)
    torch.testing.assert_close(prior.log_prob(top, None), mixture.log_prob(top))
    joint = modes.log_prob(top[:, None]) + prior.class_logits.log_softmax(0)
    torch.testing.assert_close(model.class_posterior(X), joint.softmax(dim=1))
    contributions = model.log_prob_contributions(X)
    torch.testing.assert_close(contributions.sum(dim=1), model.log_prob(X))


def test_every_class_alone_is_a_glow_without_classes():
    """One whose means and scales are those of the class, where these are equal over positions."""
    model, X = make_glow(), images(4)
    with torch.no_grad():
        for name in ("mean", "log_scale"):
            values = getattr(model.levels[-1].prior, name)
            values.copy_(values[..., :1, :1].expand_as(values))
    plain = make_glow(n_classes=None)
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("class_logits")}
    seeded = [torch.Generator().manual_seed(7) for _ in range(2)]
    log_share = model.levels[-1].prior.class_logits.log_softmax(0)
    for k in range(3):
        for name in ("mean", "log_scale"):
            of_class = model.levels[-1].prior.get_parameter(name)[k, :, 0, 0]
            state[f"levels.1.prior.{name}"] = of_class
        plain.load_state_dict(state)
        torch.testing.assert_close(model.class_log_prob(X)[:, k], plain.log_prob(X))
        likelihood, cross_entropy = model.labelled_training_loss(
            X, torch.full((4,), k), seeded[0].manual_seed(7)
        )
        expected = -plain.elbo(X, seeded[1].manual_seed(7)) - log_share[k]
        torch.testing.assert_close(likelihood, expected)
        together = model.training_loss(X, seeded[0].manual_seed(7))
        torch.testing.assert_close(cross_entropy, likelihood - together)
    by_bayes = (model.class_log_prob(X) + log_share).logsumexp(dim=1)
    torch.testing.assert_close(model.log_prob(X), by_bayes)


def test_a_class_is_drawn_from_its_own_mode():
    model = make_glow().float()
    prior = model.levels[-1].prior
    with torch.no_grad():
        prior.mean.copy_(torch.tensor([-3.0, 0.0, 3.0])[:, None, None, None])
        prior.log_scale.fill_(-1.0)
        prior.class_logits.copy_(torch.tensor([0.7, 0.2, 0.1]).log())

    def shares(label=None):
        latent = prior.sample(4000, None, torch.Generator().manual_seed(0), label)
        return latent.mean(dim=(1, 2, 3)).div(3).round().add(1).long().bincount(minlength=3) / 4000

    torch.testing.assert_close(shares(), torch.tensor([0.7, 0.2, 0.1]), rtol=0, atol=0.03)
    for label in range(3):
        assert shares(label)[label] == 1
    first, again, other = (
        model.sample(2, torch.Generator().manual_seed(0), label) for label in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_glow_without_classes_says_so():
    model, X = make_glow(n_classes=None), images(2)
    for method in (model.class_log_prob, model.class_posterior):
        with pytest.raises(TypeError, match="no classes; make it with n_classes=K"):
            method(X)
    with pytest.raises(TypeError, match="no classes"):
        model.sample(2, label=1)
    with pytest.raises(ValueError, match="n_classes must be at least 2, or None; got 1"):
        Glow(SHAPE, n_classes=1)


# --- training ---------------------------------------------------------------------------------


class TwoNormals(nn.Module):
    """Two classes of one column, unit variance and equal shares: all gradients by hand."""

    input_kind = "continuous"
    n_classes = 2

    def __init__(self, input_shape):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([-0.5, 0.25]))

    def _joint(self, X):
        return -0.5 * (X - self.mean) ** 2 - 0.5 * math.log(2 * math.pi) - math.log(2)

    def log_prob(self, X):
        return self._joint(X).logsumexp(dim=1)

    def labelled_training_loss(self, X, y):
        joint = self._joint(X)
        of_label = joint.gather(1, y[:, None]).squeeze(1)
        return -of_label, joint.logsumexp(dim=1) - of_label

    def class_posterior(self, X):
        return self._joint(X).softmax(dim=1)


ONE_STEP = {
    "optimizer": "sgd",
    "lr": 1e-2,
    "max_epochs": 1,
    "batch_size": 1000,
    "dtype": "float64",
    "callbacks__gradient_clipping": None,
    "random_state": 0,
}


@pytest.fixture
def rows(rng):
    y = rng.integers(2, size=300)
    return rng.normal(size=(300, 1)) + y[:, None], np.array(["cat", "dog"])[y]


def by_hand(X, y, weight):
    """Mean losses, and the means after one step."""
    mean, x, is_dog = np.array([-0.5, 0.25]), X[:, 0], (y == "dog").astype(int)
    log_joint = -0.5 * (x[:, None] - mean) ** 2 - 0.5 * np.log(2 * np.pi) - np.log(2)
    posterior = np.exp(log_joint) / np.exp(log_joint).sum(axis=1, keepdims=True)
    one_hot = np.eye(2)[is_dog]
    pull = one_hot + weight * (one_hot - posterior)
    step = (pull * (x[:, None] - mean)).mean(axis=0)
    likelihood = -(one_hot * log_joint).sum(axis=1).mean()
    cross_entropy = -np.log((one_hot * posterior).sum(axis=1)).mean()
    return likelihood, cross_entropy, mean + ONE_STEP["lr"] * step


@pytest.mark.parametrize("weight", [0.0, 1.0, 20.0])
def test_a_step_follows_the_formula(rows, weight):
    X, y = rows
    net = GenerativeNet(TwoNormals, supervised_weight=weight, **ONE_STEP).fit(X, y)
    likelihood, cross_entropy, mean = by_hand(X, y, weight)
    np.testing.assert_allclose(net.module_.mean.detach(), mean, rtol=1e-7)
    epoch = net.history_[0]
    assert epoch["supervised_loss"] == pytest.approx(weight * cross_entropy)
    assert epoch["train_loss"] == pytest.approx(likelihood + weight * cross_entropy)
    assert net.classes_.tolist() == ["cat", "dog"]


@pytest.mark.parametrize("loss", ["softplus", "margin"])
def test_outliers_have_no_label_and_are_measured_by_the_mixture(rows, loss):
    X, y = rows
    options = ONE_STEP | {"outliers": np.full((5, 1), 4.0), "outlier_loss": loss}
    if loss == "softplus":
        options |= {"outliers__weight": 2.0, "outliers__temperature": 3.0}
    net = GenerativeNet(TwoNormals, supervised_weight=5.0, **options).fit(X, y)
    start = TwoNormals(None).double()
    with torch.no_grad():
        log_p_in = start.log_prob(torch.from_numpy(X)).numpy()
        log_p_out = float(start.log_prob(torch.tensor([[4.0]]).double())[0])
    expected = {
        "softplus": 2.0 * np.log1p(np.exp(log_p_out / 3.0)),
        "margin": np.maximum(0, 1.0 + log_p_out - log_p_in).mean(),
    }[loss]
    likelihood, cross_entropy, _ = by_hand(X, y, 5.0)
    epoch = net.history_[0]
    assert epoch["outlier_loss"] == pytest.approx(expected)
    assert epoch["supervised_loss"] == pytest.approx(5.0 * cross_entropy)
    total = likelihood + 5.0 * cross_entropy + expected
    assert epoch["train_loss"] == pytest.approx(total)


def test_inliers_that_are_not_finite_leave_their_labels_behind(rows):
    X, y = rows

    class Ends(TwoNormals):
        def _joint(self, X):
            return super()._joint(X) - torch.where(X > 100, torch.inf, 0.0)

    outliers = {"outliers": np.full((5, 1), 4.0), "outliers__weight": 1.0}
    expected = GenerativeNet(Ends, **outliers, **ONE_STEP).fit(X, y)
    beyond = np.full((50, 1), 500.0)
    with pytest.warns(UserWarning, match="50 of .* were not finite"):
        net = GenerativeNet(Ends, **outliers, **ONE_STEP).fit(np.r_[beyond, X], ["dog"] * 50 + [*y])
    torch.testing.assert_close(net.module_.mean, expected.module_.mean)


def glow_net(**options):
    small = {f"module__{name}": value for name, value in SMALL.items()}
    settings = {"max_epochs": 1, "module__n_classes": 2, "random_state": 0}
    return GenerativeNet(Glow, **(small | settings | options))


@pytest.fixture
def stripes(rng):
    """Images of two kinds: bright on the left, or bright on the right."""
    y = rng.integers(2, size=90)
    X = rng.integers(0, 60, size=(90, 8, 8))
    X[y == 0, :, :4] += 150
    X[y == 1, :, 4:] += 150
    return X.astype(np.uint8), y


def test_what_was_learnt_of_classes(stripes):
    X, y = stripes
    options = {"max_epochs": 10, "lr": 2e-2, "batch_size": 10, "module__n_steps": 1}
    net = glow_net(supervised_weight=20.0, **options).fit(X[:60], y[:60])
    proba = net.predict_proba(X[60:])
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    assert (net.classes_[proba.argmax(axis=1)] == y[60:]).mean() > 0.9
    for label in net.classes_:
        drawn = net.sample(20, random_state=0, label=label)
        assert (net.classes_[net.predict_proba(drawn).argmax(axis=1)] == label).mean() > 0.8


def test_labels_may_be_of_any_kind(stripes, untouched_global_state):
    X, y = stripes
    expected = glow_net().fit(X, y)
    for labels in (2 * y - 1, np.array(["left", "right"])[y], np.array([0.5, 1.5])[y]):
        net = glow_net().fit(X, labels.tolist())
        assert net.classes_.tolist() == np.unique(labels).tolist()
        np.testing.assert_array_equal(net.score_samples(X), expected.score_samples(X))
    other = glow_net(random_state=1).fit(X, y)
    assert not np.array_equal(other.score_samples(X), expected.score_samples(X))


def test_going_on_and_copies_and_files(stripes, tmp_path):
    X, y = stripes
    net = glow_net(warm_start=True, supervised_weight=3.0).fit(X, y)
    twin = pickle.loads(pickle.dumps(net))
    save(net, tmp_path / "net.skg")
    loaded = load(tmp_path / "net.skg")
    for copy in (twin, loaded):
        np.testing.assert_array_equal(copy.predict_proba(X), net.predict_proba(X))
        np.testing.assert_array_equal(copy.classes_, net.classes_)
        assert copy.supervised_weight == 3.0
    zeros = y == 0
    twin.fit(X[zeros], y[zeros])  # one class is enough to go on
    loaded.partial_fit(X[zeros], y[zeros])
    assert [epoch["epoch"] for epoch in twin.history_] == [1, 2]
    assert twin.classes_.tolist() == loaded.classes_.tolist() == [0, 1]


def test_a_general_model_without_classes_is_where_all_of_them_begin(stripes):
    X, y = stripes
    general = glow_net(module__n_classes=None).fit(X)
    net = glow_net(initial_model=FrozenEstimator(general), lr=1e-12).fit(X, y)
    np.testing.assert_allclose(net.score_samples(X), general.score_samples(X), rtol=1e-5)
    np.testing.assert_allclose(net.predict_proba(X), 0.5, atol=1e-4)
    onwards = glow_net(initial_model=FrozenEstimator(net), outliers=X[::-1], outliers__weight=1.0)
    assert onwards.fit(X, y).history_[0].keys() >= {"outlier_loss", "supervised_loss"}
    with pytest.raises(ValueError, match="initial_model do not fit this Glow"):
        glow_net(module__n_classes=None, initial_model=FrozenEstimator(net)).fit(X)


def test_validation_measures_the_mixture(stripes):
    X, y = stripes
    net = glow_net(train_split=ValidSplit(0.3, random_state=0)).fit(X, y)
    held_out = next(iter(ValidSplit(0.3, random_state=0)(X)[1:])).indices
    assert net.history_[0]["valid_loss"] == pytest.approx(-net.score(X[held_out]), rel=1e-5)


def test_in_a_detector_it_is_fitted_first(stripes):
    X, y = stripes
    with pytest.raises(ValueError, match=r"call fit\(X, y\).*FrozenEstimator"):
        LogLikelihoodDetector(glow_net()).fit(X)
    net = glow_net().fit(X, y)
    detector = LogLikelihoodDetector(FrozenEstimator(net)).fit(X)
    np.testing.assert_allclose(detector.score_samples(X), net.score_samples(X), rtol=1e-5)


def test_a_module_is_saved_alone(tmp_path):
    X = images(20).numpy()
    detector = LogLikelihoodDetector(make_glow(conditioner="dense").float()).fit(X)
    save(detector, tmp_path / "detector.skg")
    expected = detector.score_samples(X)
    np.testing.assert_array_equal(load(tmp_path / "detector.skg").score_samples(X), expected)


def test_labels_that_do_not_fit_are_refused(stripes):
    X, y = stripes
    refused = {
        r"n_classes=2, but y has 3 different labels: \[0, 1, 2\]": np.r_[2, y[1:]],
        r"is trained with labels: call fit": None,
        "inconsistent numbers of samples": y[:-1],
        "NaN or infinity": np.r_[np.nan, y[1:]],
    }
    for message, labels in refused.items():
        with pytest.raises(ValueError, match=message):
            glow_net().fit(X, labels)
    net = glow_net().fit(X, y)
    with pytest.raises(ValueError, match=r"\[7\] are none of the classes .* \[0, 1\]"):
        net.partial_fit(X, np.r_[7, y[1:]])
    with pytest.raises(ValueError, match="none of the classes"):
        net.sample(1, label=7)


def test_without_classes_labels_are_ignored(stripes):
    X, y = stripes
    net = glow_net(module__n_classes=None)
    plain = clone(net).fit(X).score_samples(X)
    np.testing.assert_array_equal(net.fit(X, y).score_samples(X), plain)
    assert not hasattr(net, "predict_proba")
    assert not hasattr(net, "classes_")
    with pytest.raises(ValueError, match="has no classes"):
        net.sample(1, label=0)
    net.set_params(module__n_classes=2).fit(X, y)
    assert hasattr(net, "predict_proba")
    assert not hasattr(net.set_params(module__n_classes=None).fit(X), "predict_proba")
    GenerativeNet(DiagonalGaussian, max_epochs=1).fit(X.reshape(90, -1) / 255, y)

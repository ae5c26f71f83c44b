"""GenerativeNet as a scikit-learn estimator."""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import Callback, GradientNormClipping, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn

from skgradood.models import VAE, DiagonalGaussian, GenerativeNet, Glow, RealNVP


@parametrize_with_checks([GenerativeNet(DiagonalGaussian, max_epochs=2)])
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.fixture
def X(rng):
    return rng.normal(size=(130, 3)) * [1, 2, 3] + 5


@pytest.fixture
def digits():
    return (load_digits().images * 15.9).astype(np.uint8)[:300]


def small_vae(**options):
    settings = {"module__latent_dim": 4, "module__width": 4, "max_epochs": 1, "random_state": 0}
    return GenerativeNet(VAE, **(settings | options))


class Diverging(DiagonalGaussian):
    """Its loss is NaN from the second batch on."""

    def training_loss(self, X):
        self.n_calls = getattr(self, "n_calls", 0) + 1
        return -self.log_prob(X) * (math.nan if self.n_calls > 1 else 1)


class BatchMean(DiagonalGaussian):
    def log_prob(self, X):
        return super().log_prob(X).mean()


class Raise(Callback):
    """Raise an exception at the end of the first epoch."""

    def __init__(self, error):
        self.error = error

    def on_epoch_end(self, net, **kwargs):
        raise self.error


def test_scores_are_the_density_of_the_fitted_model(X):
    net = GenerativeNet(DiagonalGaussian, dtype="float64", random_state=0).fit(X)
    mean = net.module_.mean.detach().numpy()
    scale = net.module_.log_scale.detach().exp().numpy()
    scores = net.score_samples(X)
    np.testing.assert_allclose(scores, norm(mean, scale).logpdf(X).sum(axis=1))
    assert scores.dtype == np.float64
    assert net.score(X) == pytest.approx(scores.mean())
    np.testing.assert_allclose(net.bits_per_dim(X), -scores / (3 * math.log(2)))
    np.testing.assert_allclose(mean, X.mean(axis=0), atol=0.1)


def test_training_raises_the_likelihood(X):
    X = np.c_[X, X[:, 0] ** 2]
    short, longer = (
        GenerativeNet(RealNVP, max_epochs=n, lr=5e-3, random_state=0).fit(X) for n in (1, 15)
    )
    assert longer.score(X) > short.score(X) + 0.3
    losses = [epoch["train_loss"] for epoch in longer.history_]
    assert [epoch["epoch"] for epoch in longer.history_] == list(range(1, 16))
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_a_vae_beats_independent_pixels():
    images = (load_digits().images * 15.9).astype(np.uint8)
    train, test = images[:1500], images[1500:]
    counts = np.stack([(train == value).sum(axis=0) for value in range(256)]) + 1e-2
    log_frequencies = np.log(counts / counts.sum(axis=0))
    rows, columns = np.indices((8, 8))
    independent = -log_frequencies[test, rows, columns].mean() / math.log(2)
    net = small_vae(max_epochs=12, module__width=16, lr=3e-3).fit(train)
    assert net.bits_per_dim(test).mean() < independent


@pytest.mark.slow
def test_a_glow_beats_the_histogram_of_all_pixels(rng):
    """On values that fill their range, since a flow's density cannot be all spikes."""
    levels = load_digits().images.astype(int)
    images = (levels * 15 + rng.integers(0, 15, size=levels.shape)).astype(np.uint8)
    frequencies = np.bincount(levels[:1500].ravel()) / levels[:1500].size / 15
    histogram = -np.log2(frequencies[levels[1500:]]).mean()
    options = {"module__n_steps": 4, "module__hidden_channels": 32, "lr": 2e-3}
    net = GenerativeNet(Glow, max_epochs=12, random_state=0, **options).fit(images[:1500])
    assert net.bits_per_dim(images[1500:]).mean() < histogram - 0.1


@pytest.mark.parametrize("layout", ["NHW", "NCHW", "NHWC", "flat", "list", "torch"])
def test_every_layout_of_images_gives_the_same(digits, layout):
    layouts = {
        "NHW": digits,
        "NCHW": digits[:, None],
        "NHWC": digits[..., None],
        "flat": digits.reshape(len(digits), -1),
        "list": list(digits),
        "torch": torch.from_numpy(digits),
    }
    options = {"module__input_shape": (1, 8, 8)} if layout == "flat" else {}
    net = small_vae(**options).fit(layouts[layout])
    assert net.n_features_in_ == 64
    assert net.input_shape_ == (1, 8, 8)
    expected = small_vae().fit(digits).score_samples(digits[:20])
    np.testing.assert_array_equal(net.score_samples(layouts[layout][:20]), expected)


def test_samples_look_like_the_data(X, digits):
    images = small_vae().fit(digits).sample(70, random_state=0)
    assert images.shape == (70, 1, 8, 8)
    assert images.dtype == np.uint8
    net = GenerativeNet(DiagonalGaussian, random_state=0).fit(X)
    rows = net.sample(5, random_state=1)
    assert rows.shape == (5, 3)
    np.testing.assert_array_equal(rows, net.sample(5, random_state=1))
    assert not np.array_equal(rows, net.sample(5, random_state=2))


def test_the_seed_decides_everything(digits, untouched_global_state):
    first, again, other = (
        small_vae(random_state=seed).fit(digits).score_samples(digits[:50]) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    small_vae(random_state=None).fit(digits).sample(2)


def test_scores_do_not_depend_on_batches(digits):
    net = small_vae().fit(digits)
    together = net.score_samples(digits[:33])
    net.set_params(batch_size=7)
    np.testing.assert_allclose(net.score_samples(digits[:33]), together, rtol=1e-5)


def test_partial_fit_goes_on_from_where_training_ended(X):
    net = GenerativeNet(DiagonalGaussian, lr=0.01, max_epochs=2, random_state=0)
    net.partial_fit(X)
    shifted = X + 1
    before, module = net.score(shifted), net.module_
    net.partial_fit(shifted)
    assert net.score(shifted) > before
    assert net.module_ is not module
    assert [epoch["epoch"] for epoch in net.history_] == [1, 2, 3, 4]
    steps = {int(s["step"]) for s in net.net_.optimizer_.state.values()}
    assert steps == {4 * math.ceil(len(X) / 64)}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError("full")])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_an_interrupted_fit_leaves_the_earlier_one(X, error, method):
    net = GenerativeNet(DiagonalGaussian, random_state=0).fit(X)
    scores, state = net.score_samples(X), dict(vars(net))
    net.set_params(callbacks=[Raise(error)])
    with pytest.raises(type(error)):
        getattr(net, method)(X + 10)
    assert vars(net) == state | {"callbacks": net.callbacks}
    np.testing.assert_array_equal(net.score_samples(X), scores)


def test_divergence_names_the_epoch_and_remedies(X):
    net = GenerativeNet(Diverging)
    with pytest.raises(RuntimeError, match=r"diverged.*nan in epoch 1\. Lower lr \(now 0.001\)"):
        net.fit(X)
    with pytest.raises(NotFittedError):
        net.score_samples(X)


class DivergingAtLast(DiagonalGaussian):
    """Has a gradient of NaN where the loss is still a number."""

    def log_prob(self, X):
        values = super().log_prob(X)
        if values.requires_grad:
            values.register_hook(lambda gradient: gradient * torch.nan)
        return values


def test_a_last_step_that_diverges_is_no_fit(X):
    with pytest.raises(RuntimeError, match=r"diverged: mean was not finite after the last step"):
        GenerativeNet(DivergingAtLast, max_epochs=1, batch_size=len(X)).fit(X)


def test_handed_on_parameters_round_trip(X):
    net = small_vae(optimizer="sgd", optimizer__momentum=0.5, iterator_train__shuffle=False)
    copy = clone(net)
    assert copy.get_params() == net.get_params()
    assert copy.get_params()["module__latent_dim"] == 4
    copy.set_params(module__latent_dim=7, module__beta=1, lr=0.5)
    assert copy.get_params()["module__latent_dim"] == 7
    assert copy.get_params()["module__beta"] == 1
    assert "module__latent_dim=7" in repr(copy)
    assert net.get_params()["module__latent_dim"] == 4


def test_handed_on_parameters_arrive(digits):
    net = small_vae(
        optimizer="sgd", optimizer__momentum=0.5, lr=1e-5, train_split=ValidSplit(3)
    ).fit(digits)
    assert net.module_.latent_dim == 4
    assert isinstance(net.net_.optimizer_, torch.optim.SGD)
    assert net.net_.optimizer_.param_groups[0]["momentum"] == 0.5
    assert math.isfinite(net.history_[0]["valid_loss"])


def test_grid_search_over_module_parameters(X):
    net = GenerativeNet(RealNVP, max_epochs=1, random_state=0)
    search = GridSearchCV(net, {"module__hidden": [4, 8], "lr": [1e-3]}, cv=2).fit(X)
    assert search.best_params_["module__hidden"] in (4, 8)


@pytest.mark.parametrize(
    ("argument", "suggestion"),
    [
        ("module_latent_dim", "did you mean module__latent_dim"),
        ("latent_dim", "did you mean module__latent_dim"),
        ("optimizer_momentum", "did you mean optimizer__momentum"),
    ],
)
def test_unknown_arguments_get_a_suggestion(X, argument, suggestion):
    with pytest.raises(TypeError, match=f"unexpected argument '{argument}', {suggestion}"):
        GenerativeNet(VAE, **{argument: 3}).fit(X)


def test_unknown_parameters_cannot_be_set():
    with pytest.raises(ValueError, match="Invalid parameter 'latent_dim'"):
        GenerativeNet(VAE).set_params(latent_dim=3)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (DiagonalGaussian((3,)), "got an instance of DiagonalGaussian"),
        (nn.Identity, r"Identity has no method log_prob\(X\)"),
        (lambda: "no module", "must make a torch.nn.Module; got one of str"),
        (BatchMean, r"log_prob\(\) of BatchMean returned shape \(\) for 64 samples"),
    ],
)
def test_modules_that_do_not_keep_to_the_convention(X, module, message):
    with pytest.raises(TypeError, match=message):
        GenerativeNet(module).fit(X)


BAD_INPUT = {
    "float images": (lambda d: d / 255.0, r"takes images of dtype uint8.*has dtype float64"),
    "integers": (lambda d: d.astype(np.int64), r"in another dtype.*: X\.astype\(np\.uint8\)"),
    "rows": (lambda d: d.reshape(len(d), -1), "is a model of images, but X holds rows"),
    "other size": (lambda d: d[:, :7], r"\(1, 7, 8\).*shape \(1, 8, 8\) were expected"),
    "NaN": (lambda d: np.where(d == d[0, 0, 0], np.nan, d), "row 0 is the first"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_images_are_refused(digits, case):
    change, message = BAD_INPUT[case]
    net = small_vae().fit(digits)
    with pytest.raises(ValueError, match=message):
        net.score_samples(change(digits)) if case == "other size" else net.fit(change(digits))


def test_columns_too_far_from_zero_for_float32_are_told(X):
    far = X + np.array([0, 0, 1e9])
    with pytest.warns(
        UserWarning, match=r"float32 .* 1 columns, among them number 2, .*float64"
    ) as told:
        GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0).fit(far)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GenerativeNet(DiagonalGaussian, max_epochs=1, dtype="float64", random_state=0).fit(far)
        GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0).fit(X + 1e4)
        constant = np.column_stack([X, np.full(len(X), 0.1)])
        GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0).fit(constant)


def test_uint8_rows_are_rows_to_a_model_of_rows(X):
    net = GenerativeNet(DiagonalGaussian, random_state=0)
    integers = X.round().astype(np.uint8)
    scores = net.fit(integers).score_samples(integers)
    np.testing.assert_allclose(scores, net.score_samples(integers.astype(float)))


def test_names_of_columns_are_kept_and_checked(X):
    table = pd.DataFrame(X, columns=["a", "b", "c"])
    net = GenerativeNet(DiagonalGaussian, random_state=0).fit(table)
    assert net.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        net.score_samples(table[["b", "a", "c"]])
    assert not hasattr(net.fit(X), "feature_names_in_")


def test_skorch_callbacks_work_and_stay_the_users(X):
    clip, schedule = GradientNormClipping(1e-3), LRScheduler("StepLR", step_size=1, gamma=0.1)
    before = dict(vars(schedule))
    net = GenerativeNet(DiagonalGaussian, max_epochs=3, callbacks=[clip, schedule]).fit(X)
    assert net.net_.optimizer_.param_groups[0]["lr"] == pytest.approx(1e-6)
    assert vars(schedule) == before


def test_gradients_are_clipped_to_what_is_usual(X):
    class Spiky(DiagonalGaussian):
        def training_loss(self, X):
            return -self.log_prob(X) * (1e6 if (X > 50).any() else 1)

    X = np.r_[X, [[100.0, 0, 0]]]
    options = {"optimizer": "sgd", "lr": 1e-2, "random_state": 0, "max_epochs": 20}
    clipped = GenerativeNet(Spiky, **options).fit(X)
    assert clipped.score(X[:-1]) > -10
    with pytest.raises(RuntimeError, match="diverged"):
        GenerativeNet(Spiky, callbacks__gradient_clipping=None, **options).fit(X)


@pytest.mark.parametrize("n", [64 + 1, 65 * 3, 1])
def test_a_last_batch_of_one_sample_does_no_harm(digits, n):
    net = GenerativeNet(DiagonalGaussian, random_state=0).fit(digits[:n].reshape(n, -1))
    assert len(net.history_) == 10
    if n > 1:
        small_vae().fit(digits[:n])


def test_progress_is_shown_when_asked_for(X, capsys):
    GenerativeNet(DiagonalGaussian, max_epochs=2).fit(X)
    quiet = capsys.readouterr()
    assert quiet.out + quiet.err == ""
    GenerativeNet(DiagonalGaussian, max_epochs=2, verbose=1).fit(X)
    assert re.search(r"epoch 2.*6/6.*nats.*bits/dim", capsys.readouterr().err)
    GenerativeNet(DiagonalGaussian, max_epochs=2, verbose=2).fit(X)
    assert "train_loss" in capsys.readouterr().out


def test_an_error_in_training_is_told_on_a_line_of_its_own(X, capsys):
    net = GenerativeNet(DiagonalGaussian, lr=1e30, max_epochs=9, optimizer="sgd", verbose=1)
    with pytest.raises(RuntimeError) as caught:
        net.fit(X)
    told = capsys.readouterr().err
    assert "diverged" in str(caught.value)  # kept until here, and what it refers to with it
    assert "epoch" in told
    assert told.endswith("\n")


def test_progress_is_not_shown_where_stderr_is_closed(X, monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    GenerativeNet(DiagonalGaussian, max_epochs=1, verbose=1).fit(X)


def test_a_device_that_is_not_there_is_named(X, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device='cuda' was asked for, but CUDA is not available"):
        GenerativeNet(DiagonalGaussian, device="cuda").fit(X)

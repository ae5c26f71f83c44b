"""Windows of Fisher matrices against closed forms and explicit per-sample gradients."""

import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from torch import nn

from skgradood import GenerativeNet
from skgradood.gradients import EngineWarning
from skgradood.inspection import FisherDisplay
from skgradood.models import DiagonalGaussian


class Gaussian(nn.Module):
    """x = A z + b with z standard normal, parametrised by the lower triangle of A⁻¹ and by b."""

    def __init__(self, inverse):
        super().__init__()
        self.inverse = nn.Parameter(torch.tensor(inverse, dtype=torch.float64))
        self.mean = nn.Parameter(torch.zeros(len(inverse), dtype=torch.float64))

    def log_prob(self, X):
        z = (X - self.mean) @ self.inverse.tril().T
        return -0.5 * z.square().sum(1) + self.inverse.diagonal().log().sum()

    @torch.no_grad()
    def sample(self, n, generator=None):
        z = torch.randn(n, len(self.mean), generator=generator, dtype=torch.float64)
        return self.mean + z @ torch.linalg.inv(self.inverse.tril()).T


@pytest.fixture
def gaussian():
    return Gaussian([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [-1.0, 0.3, 0.7]])


def scores_by_autograd(module, X, parameter):
    """The gradient of each row, one backward pass a row, (n, parameter.numel())."""
    rows = []
    for x in torch.as_tensor(X):
        (gradient,) = torch.autograd.grad(module.log_prob(x[None]).sum(), parameter)
        rows.append(gradient.flatten().numpy())
    return np.array(rows)


def normalised_product(scores):
    fisher = scores.T @ scores
    with np.errstate(invalid="ignore"):
        return fisher / np.sqrt(np.outer(np.diag(fisher), np.diag(fisher)))


def test_empirical_window_is_the_normalised_product_of_the_gradients(gaussian, rng):
    X = rng.normal(size=(50, 3))
    display = FisherDisplay.from_estimator(
        gaussian, X, fisher="empirical", layer=["inverse", "mean"], batch_size=7
    )
    for name, parameter in gaussian.named_parameters():
        expected = normalised_product(scores_by_autograd(gaussian, X, parameter))
        np.testing.assert_allclose(display.matrices[name], expected, rtol=1e-10, atol=1e-12)
    # The upper triangle takes no part, and its gradient is zero.
    dead = np.flatnonzero(np.triu(np.ones((3, 3)), 1))
    assert np.isnan(display.matrices["inverse"][dead]).all()
    assert np.isnan(display.matrices["inverse"][:, dead]).all()
    assert np.isnan(display.matrices["inverse"]).sum() == 81 - 36


def test_a_batch_that_is_run_again_counts_once(gaussian, rng):
    """Rows that influence each other are found out after the batch was delivered."""

    class Coupled(Gaussian):
        def log_prob(self, X):
            return super().log_prob(X + 0.5 * X.roll(1, 0))

    X = rng.normal(size=(9, 3))
    coupled = Coupled(gaussian.inverse.tolist())
    with pytest.warns(EngineWarning):
        display = FisherDisplay.from_estimator(coupled, X, fisher="empirical", layer="mean")
    expected = normalised_product(scores_by_autograd(coupled, X, coupled.mean))
    np.testing.assert_allclose(display.matrices["mean"], expected, rtol=1e-10)


def test_window_picks_coordinates(gaussian, rng):
    X = rng.normal(size=(20, 3))
    options = {"fisher": "empirical", "layer": "inverse"}
    whole = FisherDisplay.from_estimator(gaussian, X, **options).matrices["inverse"]
    first = FisherDisplay.from_estimator(gaussian, X, window=4, **options)
    np.testing.assert_allclose(first.matrices["inverse"], whole[:4, :4])
    assert first.n_parameters == {"inverse": 9}
    some = FisherDisplay.from_estimator(gaussian, X, window=[8, 0], **options)
    np.testing.assert_allclose(some.matrices["inverse"], whole[np.ix_([8, 0], [8, 0])])


def test_model_window_converges_to_the_closed_form(gaussian):
    """The Fisher information of a normal distribution's mean is its precision matrix."""
    precision = (gaussian.inverse.T @ gaussian.inverse).detach().numpy()
    deviations = np.sqrt(np.diag(precision))
    exact = precision / np.outer(deviations, deviations)
    errors = []
    for n in (100, 10_000):
        display = FisherDisplay.from_estimator(gaussian, layer="mean", n_samples=n, random_state=0)
        errors.append(np.abs(display.matrices["mean"] - exact).max())
    assert errors[1] < 0.03 < errors[0] + 0.03  # three standard deviations of 1/√n
    assert errors[1] < errors[0]


def test_a_diagonal_fisher_matrix_is_seen_as_one():
    module = DiagonalGaussian((8,))
    display = FisherDisplay.from_estimator(
        module, layer=["mean", "log_scale"], n_samples=4096, random_state=0
    )
    # Entries scatter with a standard deviation of 1/√n, of mean magnitude √(2/π)/√n.
    for value in display.off_diagonal_.values():
        assert value == pytest.approx(np.sqrt(2 / np.pi / 4096), rel=0.3)


def test_the_seed_decides(gaussian, untouched_global_state):
    def window(seed):
        display = FisherDisplay.from_estimator(
            gaussian, layer="mean", n_samples=16, random_state=seed
        )
        return display.matrices["mean"]

    np.testing.assert_array_equal(window(1), window(1))
    assert not np.allclose(window(1), window(2))


def test_at_most_n_samples_of_x(gaussian, rng):
    X = rng.normal(size=(30, 3))
    options = {"fisher": "empirical", "layer": "mean", "random_state": 0}
    few = FisherDisplay.from_estimator(gaussian, X, n_samples=1, **options).matrices["mean"]
    np.testing.assert_allclose(np.abs(few), 1)  # the product of one score with itself has rank 1
    whole = FisherDisplay.from_estimator(gaussian, X, n_samples=30, **options).matrices["mean"]
    expected = normalised_product(scores_by_autograd(gaussian, X, gaussian.mean))
    np.testing.assert_allclose(whole, expected, rtol=1e-10)


def test_a_fitted_net_is_used_as_it_is(rng):
    X = rng.normal(size=(40, 2))
    net = GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0)
    with pytest.raises(NotFittedError):
        FisherDisplay.from_estimator(net, layer="mean")
    module = net.fit(X).module_
    options = {"layer": "mean", "n_samples": 8, "random_state": 0}
    by_net, by_frozen, by_module = (
        FisherDisplay.from_estimator(estimator, **options).matrices["mean"]
        for estimator in (net, FrozenEstimator(net), module)
    )
    np.testing.assert_array_equal(by_net, by_module)
    np.testing.assert_array_equal(by_frozen, by_module)
    assert net.module_ is module


def test_from_matrix_normalises_and_masks():
    fisher = np.array([[4.0, 0.0, -3.0], [0.0, 0.0, 0.0], [-3.0, 0.0, 9.0]])
    display = FisherDisplay.from_matrix({"a": fisher, "b": np.eye(5)}, window=3)
    nan = np.nan
    expected = [[1, nan, -0.5], [nan, nan, nan], [-0.5, nan, 1]]
    np.testing.assert_array_equal(display.matrices["a"], expected)
    assert display.off_diagonal_ == {"a": 0.5, "b": 0.0}
    assert display.n_parameters == {"a": 3, "b": 5}


def test_tiny_scores_do_not_underflow():
    tiny = 1e-300 * np.array([[1.0, 0.5], [0.5, 1.0]])
    np.testing.assert_allclose(
        FisherDisplay.from_matrix(tiny).matrices["layer"], [[1, 0.5], [0.5, 1]]
    )


def test_the_picture_shows_the_matrices():
    fisher = np.array([[4.0, 0.0, -3.0], [0.0, 0.0, 0.0], [-3.0, 0.0, 9.0]])
    display = FisherDisplay.from_matrix({"a": fisher, "a.very" + ".long" * 9: np.eye(2)}).plot()
    assert len(display.axes_) == 2
    shown = display.axes_[0].images[0].get_array()
    np.testing.assert_array_equal(shown.filled(np.nan), display.matrices["a"])
    assert display.axes_[0].images[0].get_clim() == (-1, 1)
    caption = display.axes_[0].get_xlabel()
    assert caption.splitlines() == [
        "3 of 3 parameters",
        "mean magnitude off the diagonal 0.50",
        "1 without gradient (grey)",
    ]
    assert display.axes_[0].get_title() == "a"
    assert display.axes_[1].get_title() == "a.very.lo…" + ".long" * 4


def test_drawing_into_given_axes():
    ax = Figure().subplots()
    display = FisherDisplay.from_matrix(np.eye(2)).plot(ax=ax)
    assert display.axes_.tolist() == [ax]
    assert display.figure_ is ax.figure
    with pytest.raises(ValueError, match="2 axes, one for each panel; got 1"):
        FisherDisplay.from_matrix({"a": np.eye(2), "b": np.eye(2)}).plot(ax=ax)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"skgradood\[plot\]"):
        FisherDisplay.from_matrix(np.eye(2)).plot()


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((2, 3)), "square"),
        ([[1.0, np.nan], [np.nan, 1.0]], "NaN"),
        ([[1.0, 0.5], [0.0, 1.0]], "not symmetric"),
        ([[-1.0, 0.0], [0.0, 1.0]], "negative diagonal"),
    ],
)
def test_what_is_no_fisher_matrix_is_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        FisherDisplay.from_matrix(matrix)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "means"}, r"no layer 'means'; there are 'mean'"),
        ({"layer": []}, "at least one layer"),
        ({"layer": "mean", "fisher": "mc"}, r"\['model', 'empirical'\]; got 'mc'"),
        ({"layer": "mean", "fisher": "empirical"}, "needs samples X"),
        ({"layer": "mean", "X": np.zeros((2, 3))}, "X is not used"),
        ({"layer": "mean", "window": 0}, "at least 1"),
        ({"layer": "mean", "window": [3]}, r"0 \.\.\. 2"),
        ({"layer": "mean", "window": [0.5]}, "whole number"),
    ],
)
def test_wrong_options(gaussian, options, message):
    with pytest.raises(ValueError, match=message):
        FisherDisplay.from_estimator(gaussian, **options)


def test_a_model_that_cannot_draw_samples():
    class Silent(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(2))

        def log_prob(self, X):
            return -(X - self.mean).square().sum(1)

    with pytest.raises(ValueError, match="Silent has no method sample"):
        FisherDisplay.from_estimator(Silent(), layer="mean")

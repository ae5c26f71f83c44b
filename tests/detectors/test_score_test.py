"""The score test: its distribution on a well-specified model, its power, and its far tail."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi2, kstest, ncx2

from skgradood.detectors import ScoreTestDetector
from skgradood.metrics import auroc
from skgradood.persistence import load, save

D = 6


class Gaussian:
    """N(mean, covariance) with its mean as parameter: the score and Fisher matrix in closed form.

    Two layers: coordinates 0-1 and 2-5, whose covariance is block-diagonal.
    """

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.mean = rng.normal(size=D)
        self.blocks = [slice(0, 2), slice(2, D)]
        self.covariance = np.zeros((D, D))
        for block in self.blocks:
            size = block.stop - block.start
            root = rng.normal(size=(size, size))
            self.covariance[block, block] = root @ root.T + 0.1 * np.eye(size)

    def sample(self, n, rng, shift=0.0):
        return rng.multivariate_normal(self.mean + shift, self.covariance, size=n)

    def quadratic_forms(self, groups):
        """(1/B) U'F^-1 U by layers of groups (n, B, d), with U the sum of S^-1 (x - mean)."""
        columns = []
        for block in self.blocks:
            covariance = self.covariance[block, block]
            fisher = np.linalg.inv(covariance)
            score = ((groups - self.mean)[..., block] @ fisher).sum(axis=1)
            form = np.einsum("ni,ij,nj->n", score, np.linalg.inv(fisher), score)
            columns.append(form / groups.shape[1])
        return np.column_stack(columns)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1, 7])
def test_on_a_well_specified_model_p_values_are_uniform(seed, size):
    """For groups of every size: the factor 1/B is in the table, and nowhere else."""
    model, rng = Gaussian(seed), np.random.default_rng(100 + seed)
    train, test = (
        model.quadratic_forms(model.sample(n * size, rng).reshape(n, size, D))
        for n in (10_000, 1000)
    )
    exact = ScoreTestDetector(reference="chi2", df=D).fit(train)
    assert kstest(exact.statistic(test), chi2(D).cdf).pvalue > 0.01
    assert kstest(exact.p_values(test), "uniform").pvalue > 0.01
    fitted = ScoreTestDetector().fit(3.7 * train)
    assert kstest(fitted.p_values(3.7 * test), "uniform").pvalue > 0.01
    assert fitted.df_ == pytest.approx(D, rel=0.1)
    assert fitted.scale_ * fitted.df_ == pytest.approx(3.7 * D, rel=0.05)


@pytest.mark.parametrize("length", [0.5, 1.5, 3.0])
def test_power_under_a_mean_shift_is_that_of_the_noncentral_distribution(length):
    model, rng = Gaussian(0), np.random.default_rng(1)
    direction = np.linalg.cholesky(model.covariance) @ np.full(D, D**-0.5)
    inliers = model.quadratic_forms(model.sample(40_000, rng)[:, None])
    shifted = model.quadratic_forms(model.sample(40_000, rng, length * direction)[:, None])
    detector = ScoreTestDetector(reference="chi2", df=D).fit(inliers)
    # P(T_0 < T_1) for T_0 central and T_1 noncentral with the squared Mahalanobis length.
    expected, _ = quad(lambda t: chi2(D).cdf(t) * ncx2(D, length**2).pdf(t), 0, 200)
    empirical = auroc(detector.score_samples(inliers), detector.score_samples(shifted))
    assert empirical == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("df", [0.5, 6, 300.0, 1e5])
@pytest.mark.parametrize("reference", ["chi2", "fitted"])
def test_far_outliers_rank_however_far(df, reference):
    train = np.random.default_rng(0).chisquare(df, size=(500, 1)) + 1e-9
    detector = ScoreTestDetector(reference=reference, df=df).fit(train)
    statistic = np.geomspace(df, 1e12, 20_000)
    scores = detector.score_samples(statistic[:, None])
    assert np.isfinite(scores).all()
    assert (np.diff(scores) < 0).all()
    assert detector.score_samples([[1e150]])[0] < scores[-1]
    # Where SciPy's survival function does not underflow, it says the same.
    expected = chi2.logsf(statistic / detector.scale_, df)
    near = expected > -500
    np.testing.assert_allclose(scores[near], expected[near], rtol=1e-6, atol=1e-12)
    # Asymptotically -T / 2s.
    assert scores[-1] == pytest.approx(-1e12 / (2 * detector.scale_), rel=1e-4)


@pytest.mark.parametrize("reference", ["chi2", "fitted"])
def test_logarithms_and_quadratic_forms_say_the_same(reference):
    forms = np.random.default_rng(2).chisquare(3, size=(100, 4)) + 1e-6
    options = {"reference": reference, "df": 12 if reference == "chi2" else None}
    expected = ScoreTestDetector(**options).fit(forms).score_samples(forms)
    of_logs = ScoreTestDetector(input="log", **options).fit(np.log(forms))
    np.testing.assert_allclose(of_logs.score_samples(np.log(forms)), expected, rtol=1e-9)
    np.testing.assert_allclose(of_logs.statistic(np.log(forms)), forms.sum(axis=1), rtol=1e-12)


def test_outliers_among_the_training_rows_move_the_reference_little():
    rng = np.random.default_rng(3)
    clean = rng.chisquare(20, size=(1000, 1))
    dirty = np.vstack([clean, rng.chisquare(20, size=(10, 1)) * 20])
    detector = ScoreTestDetector().fit(dirty)
    of_moments = 2 * dirty.mean() ** 2 / dirty.var()
    assert of_moments < 2
    assert detector.df_ > 8


def test_a_fixed_number_of_degrees_of_freedom_leaves_the_scale_to_be_fitted():
    forms = 5 * np.random.default_rng(4).chisquare(8, size=(20_000, 1))
    detector = ScoreTestDetector(df=8).fit(forms)
    assert detector.df_ == 8
    assert detector.scale_ == pytest.approx(5, rel=0.02)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_statistics_of_any_size(scale):
    forms = np.random.default_rng(5).chisquare(4, size=(200, 3))
    expected = ScoreTestDetector().fit(forms)
    detector = ScoreTestDetector().fit(scale * forms)
    np.testing.assert_allclose(
        detector.score_samples(scale * forms), expected.score_samples(forms), rtol=1e-6
    )
    assert detector.df_ == pytest.approx(expected.df_)


def test_unusual_rows_and_zeros():
    forms = np.random.default_rng(6).chisquare(4, size=(100, 3))
    train = np.vstack([forms, [[np.nan, 1, 1], [np.inf, 1, 1]]])
    with pytest.warns(UserWarning, match="2 of 102 training rows"):
        detector = ScoreTestDetector().fit(train)
    rows = np.array([[np.nan, 1, 1], [1, np.inf, 1], [0, 0, 0], [1e308, 1e308, 1e308]])
    scores = detector.score_samples(rows)
    assert scores[:3].tolist() == [-np.inf, -np.inf, 0.0]
    assert -np.inf < scores[3] < -1e100
    assert detector.statistic(rows).tolist() == [np.inf, np.inf, 0.0, np.inf]
    with pytest.warns(UserWarning, match='input="log"'):
        ScoreTestDetector().fit(np.vstack([forms, -forms[:5]]))
    with pytest.raises(ValueError, match='input="log"'):
        ScoreTestDetector().fit(-forms)
    with pytest.raises(ValueError, match="does not vary"):
        ScoreTestDetector().fit(np.ones((10, 3)))


def test_an_exact_reference_needs_its_degrees_of_freedom(tmp_path):
    forms = np.random.default_rng(7).chisquare(4, size=(100, 3))
    with pytest.raises(ValueError, match="needs df"):
        ScoreTestDetector(reference="chi2").fit(forms)
    detector = ScoreTestDetector(reference="chi2", df=12).fit(forms)
    save(detector, tmp_path / "score.skg")
    loaded = load(tmp_path / "score.skg")
    np.testing.assert_array_equal(loaded.p_values(forms), detector.p_values(forms))


def with_covariate(n, rng):
    """Quadratic forms whose sum is chi-square with 8 degrees of freedom times a trend."""
    likelihood = rng.normal(size=n)
    sums = np.exp(0.4 + 1.5 * likelihood - 0.3 * likelihood**2) * rng.chisquare(8, size=n)
    return np.column_stack([0.3 * sums, likelihood, 0.7 * sums])


def test_given_a_covariate_the_test_is_calibrated_at_each_of_its_values():
    rng = np.random.default_rng(0)
    detector = ScoreTestDetector(given=1).fit(with_covariate(4000, rng))
    fresh = with_covariate(4000, rng)
    p_values = detector.p_values(fresh)
    for low, high in ((-1.5, -0.5), (-0.5, 0.5), (0.5, 1.5)):
        chosen = (fresh[:, 1] > low) & (fresh[:, 1] < high)
        assert kstest(p_values[chosen], "uniform").pvalue > 0.01
    assert detector.df_ == pytest.approx(8, rel=0.1)
    without = ScoreTestDetector().fit(fresh[:, [0, 2]]).p_values(fresh[:, [0, 2]])
    assert kstest(without[fresh[:, 1] > 0.5], "uniform").pvalue < 1e-6


def test_the_trend_is_the_least_squares_parabola_and_constant_beyond_the_training_range():
    rng = np.random.default_rng(1)
    X = with_covariate(300, rng)
    detector = ScoreTestDetector(given=-2).fit(X)
    log_sums = np.log(X[:, 0] + X[:, 2])
    expected = np.polyval(np.polyfit(X[:, 1], log_sums, 2), X[:, 1])
    np.testing.assert_allclose(detector.statistic(X), np.exp(log_sums - expected), rtol=1e-8)
    end = X[[X[:, 1].argmax()]]
    beyond = np.add(end, [[0, 5, 0]])
    np.testing.assert_allclose(detector.statistic(beyond), detector.statistic(end))


def test_the_trend_knows_no_unit_however_small():
    X = with_covariate(300, np.random.default_rng(1))
    expected = ScoreTestDetector(given=1).fit(X).score_samples(X)
    X[:, 1] *= 2.0**-1060  # its range is below the normal numbers
    scores = ScoreTestDetector(given=1).fit(X).score_samples(X)
    np.testing.assert_allclose(scores, expected, rtol=1e-3)


@pytest.mark.parametrize(("n", "degree"), [(2, 0), (3, 1), (4, 2), (5, 2)])
@pytest.mark.parametrize("repeats", [1, 4])
@pytest.mark.parametrize("seed", range(5))
def test_few_rows_leave_something_for_the_test_beside_the_trend(n, degree, repeats, seed):
    """Rows that come again, as they do from another batch, tell nothing more of the trend."""
    rng = np.random.default_rng(seed)
    X = with_covariate(n, rng)
    X = np.concatenate([X, *[X[:1] * (1 + 1e-9 * rng.normal(size=3)) for _ in range(repeats - 1)]])
    detector = ScoreTestDetector(given=1).fit(X)
    log_sums = np.log(X[:, 0] + X[:, 2])
    expected = np.polyval(np.polyfit(X[:, 1], log_sums, degree), X[:, 1])
    np.testing.assert_allclose(detector.statistic(X), np.exp(log_sums - expected), rtol=1e-6)
    assert np.log(detector.statistic(X)).std() > 1e-3
    assert np.isfinite(detector.score_samples(with_covariate(20, rng))).all()


def test_what_leaves_nothing_to_estimate_is_told():
    rng = np.random.default_rng(0)
    covariate = rng.normal(size=50)
    forms = np.exp(1 + covariate - 0.2 * covariate**2)
    X = np.column_stack([forms, covariate])
    with pytest.raises(ValueError, match="a function of the column given=1 over the 50 training"):
        ScoreTestDetector(given=1).fit(X)
    for given in (None, 1):
        with pytest.raises(
            ValueError, match=r"not vary by more than 1e-06 .* 6 training .* At least 2 must"
        ):
            ScoreTestDetector(given=given).fit(np.repeat(X[:1], 6, axis=0))


def test_the_covariate_may_be_named_and_must_be_there():
    pd = pytest.importorskip("pandas")
    X = with_covariate(100, np.random.default_rng(2))
    table = pd.DataFrame(X, columns=["a", "log_likelihood", "b"])
    named = ScoreTestDetector(given="log_likelihood").fit(table)
    np.testing.assert_array_equal(
        named.score_samples(table), ScoreTestDetector(given=1).fit(X).score_samples(X)
    )
    for given in ("log_likelihoods", 3, -4):
        with pytest.raises(ValueError, match="none of the 3 columns"):
            ScoreTestDetector(given=given).fit(table)
    with pytest.raises(ValueError, match='reference="fitted"'):
        ScoreTestDetector(given=1, reference="chi2", df=8).fit(X)
    constant = np.column_stack([X[:, :1], np.ones(100)])
    np.testing.assert_allclose(
        ScoreTestDetector(given=1).fit(constant).p_values(constant),
        ScoreTestDetector().fit(X[:, :1]).p_values(X[:, :1]),
    )

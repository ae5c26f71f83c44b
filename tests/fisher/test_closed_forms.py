"""Fisher matrices that are known: by enumeration exactly, by Monte Carlo at the √N rate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tests.fisher import closed, oracles

RNG = np.random.default_rng(0)
A = RNG.normal(size=(3, 3)) + 2 * np.eye(3)
W = RNG.normal(size=(4, 2))
LOG_VARIANCE = np.log(0.4)


def matrices(module, X, kinds=("block", "diagonal"), **options):
    """By parameter: the dense matrices of the kinds."""
    estimate = oracles.estimated(module, torch.as_tensor(X), kinds, **options)
    return {
        name: [oracles.matrix_of(a) for a in members]
        for name, members in estimate.by_parameter.items()
    }


def normal_rows(n, d, seed):
    return np.random.default_rng(seed).normal(size=(n, d))


def actnorm_images(n, seed):
    """Samples of ActNorm([0.3, -0.7], [1, -2]) with 2 × 3 pixels."""
    noise = np.random.default_rng(seed).normal(size=(n, 2, 2, 3))
    scale, shift = np.exp([0.3, -0.7]), np.array([1.0, -2.0])
    return noise / scale[:, None, None] - shift[:, None, None]


def linear_flow_fisher(A):
    """Cov of vec(A⁻ᵀ - z xᵀ) with x = A⁻¹ z: E[z_i z_k x_j x_l] by Isserlis, less the mean."""
    B = np.linalg.inv(A)
    covariance = B @ B.T
    d = len(A)
    # E[z_i x_j] = B_ji, and the score's mean is zero.
    F = np.einsum("ik,jl->ijkl", np.eye(d), covariance) + np.einsum("li,jk->ijkl", B, B)
    return F.reshape(d * d, d * d)


def ppca_fishers(W, log_variance):
    """F_ab = ½ tr(C⁻¹ ∂_a C C⁻¹ ∂_b C), for W and for log σ²."""
    d, k = W.shape
    variance = np.exp(log_variance)
    precision = np.linalg.inv(W @ W.T + variance * np.eye(d))
    derivatives = []
    for i, j in itertools.product(range(d), range(k)):
        E = np.zeros((d, k))
        E[i, j] = 1
        derivatives.append(precision @ (E @ W.T + W @ E.T))
    for_W = 0.5 * np.array([[np.trace(a @ b) for b in derivatives] for a in derivatives])
    return for_W, 0.5 * variance**2 * np.trace(precision @ precision).reshape(1, 1)


MEAN, V = np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, -1.5])
S = np.array([[2.0, 0.7], [0.7, 0.5]])
# Module; rows by number and seed; the Fisher matrices.
CONTINUOUS = {
    "gaussian": (
        closed.Gaussian(MEAN, V),
        lambda n, seed: MEAN + np.exp(V / 2) * normal_rows(n, 3, seed),
        {"mean": np.diag(np.exp(-V)), "log_variance": np.eye(3) / 2},
    ),
    "correlated gaussian": (
        closed.FullGaussian([1.0, 2.0], S),
        lambda n, seed: [1.0, 2.0] + normal_rows(n, 2, seed) @ np.linalg.cholesky(S).T,
        {"mean": np.linalg.inv(S)},
    ),
    "linear flow": (
        closed.LinearFlow(A),
        lambda n, seed: normal_rows(n, 3, seed) @ np.linalg.inv(A).T,
        {"matrix": linear_flow_fisher(A)},
    ),
    "actnorm": (
        closed.ActNorm([0.3, -0.7], [1.0, -2.0]),
        actnorm_images,
        # 6 pixels: F_ss = 2 · 6 for log scales, and 6 exp(2s) for shifts.
        {"log_scale": 12 * np.eye(2), "shift": np.diag(6 * np.exp([0.6, -1.4]))},
    ),
    "ppca": (
        closed.PPCA(W, LOG_VARIANCE),
        lambda n, seed: (
            normal_rows(n, 4, seed)
            @ np.linalg.cholesky(W @ W.T + np.exp(LOG_VARIANCE) * np.eye(4)).T
        ),
        dict(zip(("W", "log_variance"), ppca_fishers(W, LOG_VARIANCE), strict=True)),
    ),
}


@pytest.mark.parametrize("case", CONTINUOUS)
def test_monte_carlo_converges_at_the_rate_of_the_square_root(case):
    module, draw, expected = CONTINUOUS[case]
    numbers, seeds = [100, 400, 1600, 6400], range(4)
    errors = {(name, k): [] for name in expected for k in range(2)}
    for n in numbers:
        squares = dict.fromkeys(errors, 0.0)
        for seed in seeds:
            for name, (block, diagonal) in matrices(module, draw(n, seed)).items():
                F = expected[name]
                squares[name, 0] += ((block - F) ** 2).sum() / (F**2).sum() / len(seeds)
                D = np.diag(np.diag(F))
                squares[name, 1] += ((diagonal - D) ** 2).sum() / (D**2).sum() / len(seeds)
        for key, square in squares.items():
            errors[key].append(np.sqrt(square))
    for key, sizes in errors.items():
        slope = np.polyfit(np.log(numbers), np.log(sizes), 1)[0]
        assert -0.75 < slope < -0.3, (key, slope, sizes)
        assert sizes[-1] < 0.1, (key, sizes)


def rational_rows(counts):
    """Every state as often as its count says, so that the mean over rows is the expectation."""
    return np.repeat(np.arange(len(counts)), counts)


@pytest.mark.parametrize("counts", [(1, 2, 3, 4), (5, 1, 1)])
def test_categorical_logits_exactly_with_rank_one_less(counts):
    p = np.array(counts) / sum(counts)
    module = closed.Categorical(np.log(p) + 3)
    X = rational_rows(counts)[:, None]
    estimate = oracles.estimated(module, torch.as_tensor(X), ["block", "diagonal"], damping=0)
    block, diagonal = estimate.by_parameter["logits"]
    np.testing.assert_allclose(oracles.matrix_of(block), np.diag(p) - np.outer(p, p), atol=1e-15)
    np.testing.assert_allclose(diagonal.eigenvalues, p * (1 - p), rtol=1e-12)
    assert block.effective_dim() == len(p) - 1
    # The pseudo-inverse is diag(1/p) on what sums to zero: the statistic is 1/p_x - 1.
    forms = oracles.statistics(module, torch.as_tensor(X), estimate)[0, :, 0]
    np.testing.assert_allclose(forms, 1 / p[X[:, 0]] - 1, rtol=1e-9)


def test_bernoulli_logits_exactly():
    counts = np.array([1, 3, 7, 5])  # of 8, the rows in which each bit is set
    X = (np.arange(8)[:, None] < counts).astype(float)
    p = counts / 8
    ((block, diagonal),) = matrices(closed.Bernoulli(np.log(p / (1 - p))), X).values()
    np.testing.assert_allclose(np.diag(block), p * (1 - p), rtol=1e-12)
    np.testing.assert_allclose(diagonal, np.diag(p * (1 - p)), rtol=1e-12)


def test_the_score_of_a_linear_flow_has_a_null_space():
    """(∇_A) Aᵀ = I - z zᵀ is symmetric, so d(d-1)/2 directions of the score are dead."""
    d = 4
    matrix = np.random.default_rng(3).normal(size=(d, d)) + 2 * np.eye(d)
    module = closed.LinearFlow(matrix)
    z = normal_rows(200, d, 1)
    X = torch.as_tensor(z @ np.linalg.inv(matrix).T)
    G = oracles.dense_gradients(module, X)["matrix"]
    np.testing.assert_allclose(G @ matrix.T, np.eye(d) - np.einsum("ni,nj->nij", z, z), atol=1e-10)
    estimate = oracles.estimated(module, X, ["block"], damping=0)
    (block,) = estimate.by_parameter["matrix"]
    assert block.effective_dim() == pytest.approx(d * (d + 1) / 2, abs=1e-9)
    # The statistic is free of A: that of the symmetric matrices I - z zᵀ, by their half.
    half = (np.eye(d) - np.einsum("ni,nj->nij", z, z))[:, *np.triu_indices(d)]
    expected = oracles.block(half, half, 0)
    forms = oracles.statistics(module, X, estimate)[0, :, 0]
    np.testing.assert_allclose(forms, expected, rtol=1e-8)


@pytest.mark.parametrize("kind", ["block", "sketch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dead_directions_are_found_in_either_precision(dtype, kind):
    """Rank K - 1 of a categorical model, and d(d+1)/2 of a linear flow."""
    rng = np.random.default_rng(0)
    rows = torch.as_tensor(rng.normal(size=(300, 4)), dtype=dtype)
    flow = closed.LinearFlow(rng.normal(size=(4, 4)) + 2 * np.eye(4)).to(dtype)
    (fisher,) = oracles.estimated(flow, rows, [kind], damping=0).by_parameter["matrix"]
    assert round(fisher.effective_dim(), 6) == 10
    choices = torch.as_tensor(rng.integers(0, 5, size=(300, 1)))
    logits = closed.Categorical(rng.normal(size=5)).to(dtype)
    (fisher,) = oracles.estimated(logits, choices, [kind], damping=0).by_parameter["logits"]
    assert round(fisher.effective_dim(), 6) == 4

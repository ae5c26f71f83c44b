"""Models whose Fisher information is known in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def parameter(values: object) -> nn.Parameter:
    return nn.Parameter(torch.as_tensor(values, dtype=torch.float64))


class Gaussian(nn.Module):
    """Mean and log-variance: diag(exp(-v)) and half the identity."""

    def __init__(self, mean, log_variance):
        super().__init__()
        self.mean, self.log_variance = parameter(mean), parameter(log_variance)

    def log_prob(self, X: Tensor) -> Tensor:
        squares = (X - self.mean) ** 2 / self.log_variance.exp()
        return -0.5 * (squares + self.log_variance + math.log(2 * math.pi)).sum(1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(n, len(self.mean), dtype=torch.float64, generator=generator)
        return (self.mean + (self.log_variance / 2).exp() * noise).detach()


class FullGaussian(nn.Module):
    """Mean of a correlated Gaussian, whose Fisher matrix is the precision."""

    def __init__(self, mean, covariance):
        super().__init__()
        self.mean = parameter(mean)
        self.register_buffer("covariance", torch.as_tensor(covariance, dtype=torch.float64))

    def log_prob(self, X: Tensor) -> Tensor:
        return torch.distributions.MultivariateNormal(self.mean, self.covariance).log_prob(X)


class Bernoulli(nn.Module):
    """Logits of independent bits: diag(p(1 - p))."""

    def __init__(self, logits):
        super().__init__()
        self.logits = parameter(logits)

    def log_prob(self, X: Tensor) -> Tensor:
        return torch.distributions.Bernoulli(logits=self.logits).log_prob(X).sum(1)


class Categorical(nn.Module):
    """Logits of one choice among K, in a single column: diag(p) - p pᵀ, of rank K - 1."""

    def __init__(self, logits):
        super().__init__()
        self.logits = parameter(logits)

    def log_prob(self, X: Tensor) -> Tensor:
        return self.logits.log_softmax(0)[X[:, 0].long()]


class LinearFlow(nn.Module):
    """z = A x with z ~ N(0, I)."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = parameter(matrix)

    def log_prob(self, X: Tensor) -> Tensor:
        z = X @ self.matrix.T
        constant = 0.5 * X.shape[1] * math.log(2 * math.pi)
        return torch.slogdet(self.matrix)[1] - 0.5 * z.square().sum(1) - constant

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        z = torch.randn(n, len(self.matrix), dtype=torch.float64, generator=generator)
        return torch.linalg.solve(self.matrix, z.T).T.detach()


class ActNorm(nn.Module):
    """y = exp(s_c) (x + b_c) for each channel of an image, with y ~ N(0, I)."""

    def __init__(self, log_scale, shift):
        super().__init__()
        self.log_scale, self.shift = parameter(log_scale), parameter(shift)

    def log_prob(self, X: Tensor) -> Tensor:
        scale = self.log_scale[:, None, None]
        y = scale.exp() * (X + self.shift[:, None, None])
        normal = -0.5 * (y.square() + math.log(2 * math.pi))
        return (normal + scale).sum((1, 2, 3))


class PPCA(nn.Module):
    """N(0, W Wᵀ + σ² I), with log σ² the other parameter."""

    def __init__(self, W, log_variance):
        super().__init__()
        self.W, self.log_variance = parameter(W), parameter(log_variance)

    def covariance(self) -> Tensor:
        return self.W @ self.W.T + self.log_variance.exp() * torch.eye(len(self.W)).to(self.W)

    def log_prob(self, X: Tensor) -> Tensor:
        C = self.covariance()
        quadratic = (X @ torch.linalg.inv(C) * X).sum(1)
        return -0.5 * (quadratic + torch.slogdet(C)[1] + X.shape[1] * math.log(2 * math.pi))

"""Models whose log-likelihoods are known, for the tests of detectors by likelihood."""

from __future__ import annotations

import numpy as np
import scipy.stats
import torch
from torch import nn

from skgradood.models import DiagonalGaussian


def gaussian(mean, scale):
    """A DiagonalGaussian with given moments, in float64."""
    module = DiagonalGaussian((len(mean),)).double()
    with torch.no_grad():
        module.mean.copy_(torch.as_tensor(np.array(mean)))
        module.log_scale.copy_(torch.as_tensor(np.log(scale)))
    return module


def gaussian_log_prob(X, mean, scale):
    """The same log-density by SciPy, (n,) nats."""
    return scipy.stats.norm(mean, scale).logpdf(X).sum(axis=1)


def never_trained(*args, **options):
    """The module of a net whose training would be the mistake."""
    raise AssertionError("a model was to be trained")


class Given(nn.Module):
    """Rows of a first column that is the log-likelihood itself; some values stand for others."""

    STANDS_FOR = {101.0: -np.inf, 102.0: np.inf, 103.0: np.nan}
    input_kind = "continuous"

    def __init__(self, column=0):
        super().__init__()
        self.column = column
        self.anchor = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def log_prob(self, X):
        values = X[:, self.column] + 0 * self.anchor
        for sign, value in self.STANDS_FOR.items():
            values = torch.where(X[:, self.column] == sign, value, values)
        return values


class PixelTable(nn.Module):
    """Independent pixels with one table of 256 log-probabilities."""

    input_kind = "image"

    def __init__(self, log_probabilities):
        super().__init__()
        self.table = nn.Parameter(torch.as_tensor(log_probabilities, dtype=torch.float64))

    def log_prob(self, X):
        return self.table[X.long()].flatten(1).sum(dim=1)


class RowVAE(nn.Module):
    """An autoencoder of rows without a sum over columns: a batch differs in no bit from a row."""

    input_kind = "continuous"

    def __init__(self, input_shape):
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.gain = nn.Parameter(torch.full(self.input_shape, 0.4))
        self.log_variance = nn.Parameter(torch.full(self.input_shape, -0.5))
        self.weight = nn.Parameter(torch.ones(self.input_shape))

    def encode(self, X):
        return self.gain * X, self.log_variance.expand(X.shape)

    def bound(self, X, mean, log_variance, noise=None):
        latent = mean if noise is None else mean + noise * (0.5 * log_variance).exp()
        log_prob = -0.5 * (X - self.weight * latent) ** 2 - 0.5 * np.log(2 * np.pi)
        return (log_prob - 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)).sum(dim=1)

    def log_prob(self, X):
        return self.bound(X, *self.encode(X))

"""Objectives of classifiers, for the engine that differentiates log-likelihoods.

Each is a callable ``(module, X, generator) -> (n,)`` in nats, to be passed as ``log_likelihood=``
with a module whose ``forward`` returns the logits (n, K) of K classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def kl_to_uniform(module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
    """Kullback-Leibler divergence from the uniform distribution to the predicted one.

    KL(u || p) = -log K - (1/K) sum_k log p_k. A confident prediction has a large divergence, and
    its gradient is large as well: GradNorm [1]_ takes the norm of it for a score that is *higher*
    for inliers, the other way round than norms of the log-likelihood's gradient.

    Parameters
    ----------
    module : nn.Module
        A classifier: ``module(X)`` are logits, (n, K).
    X : Tensor of shape (n, ...)
        Samples.
    generator : torch.Generator
        Not used.

    Returns
    -------
    Tensor of shape (n,)
        Nats, at least 0.

    Raises
    ------
    TypeError
        If the module does not return logits of two classes or more.

    References
    ----------
    .. [1] R. Huang, A. Geng, Y. Li, "On the importance of gradients for detecting distributional
       shifts in the wild", NeurIPS 2021.
    """
    log_p = F.log_softmax(_logits(module, X), dim=1)
    return -math.log(log_p.shape[1]) - log_p.mean(dim=1)


def predicted_label_log_prob(module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
    """Log-probability that a classifier gives to the label which it predicts.

    Minus the cross-entropy with the predicted label in place of the unknown one, max_k log p_k.

    Parameters
    ----------
    module : nn.Module
        A classifier: ``module(X)`` are logits, (n, K).
    X : Tensor of shape (n, ...)
        Samples.
    generator : torch.Generator
        Not used.

    Returns
    -------
    Tensor of shape (n,)
        Nats, at most 0.

    Raises
    ------
    TypeError
        If the module does not return logits of two classes or more.
    """
    logits = _logits(module, X)
    log_p = F.log_softmax(logits, dim=1)
    is_predicted = F.one_hot(logits.argmax(dim=1), logits.shape[1]).to(log_p.dtype)
    return (log_p * is_predicted).sum(dim=1)


def _logits(module: nn.Module, X: Tensor) -> Tensor:
    logits = module(X)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(
            f"{type(module).__name__} returned {came} for {len(X)} samples; a classifier's forward "
            f"must return logits, ({len(X)}, K) with K >= 2"
        )
    return logits

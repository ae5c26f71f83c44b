"""Rows of tokens: whole numbers, which a model gets as int64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from torch import Tensor, nn

from skgradood import (
    ChiSquareJointDensity,
    FisherPreconditioner,
    GenerativeNet,
    GradientNormTransformer,
)
from skgradood.gradients import layer_gradient_norms

N_TOKENS, LENGTH = 7, 12


class CausalModel(nn.Module):
    """A recurrent language model with tied embeddings."""

    input_kind = "tokens"

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.table = nn.Embedding(N_TOKENS, width)
        self.recurrent = nn.GRU(width, width, batch_first=True)

    def log_prob(self, X: Tensor) -> Tensor:
        states, _ = self.recurrent(self.table(X[:, :-1]))
        logits = states @ self.table.weight.T
        return -F.cross_entropy(logits.mT, X[:, 1:], reduction="none").sum(1)


def chains(n: int, steps: tuple[int, ...], seed: int) -> np.ndarray:
    """Walks around a ring of tokens, by one of some steps each time."""
    rng = np.random.default_rng(seed)
    moves = rng.choice(steps, size=(n, LENGTH))
    return moves.cumsum(axis=1) % N_TOKENS


@pytest.fixture(scope="module")
def trained() -> GenerativeNet:
    return GenerativeNet(CausalModel, max_epochs=30, lr=1e-2, random_state=0).fit(
        chains(400, (1, 2), 0)
    )


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.float32])
def test_a_pipeline_of_tokens_tells_one_language_from_another(trained, dtype):
    density = make_pipeline(
        GradientNormTransformer(FrozenEstimator(trained)), ChiSquareJointDensity()
    ).fit(chains(300, (1, 2), 1).astype(dtype))
    normal, foreign = (chains(100, steps, 2).astype(dtype) for steps in ((1, 2), (3, 5)))
    scores = density.score_samples(np.concatenate([normal, foreign]))
    assert roc_auc_score(np.repeat([1, 0], 100), scores) > 0.95


def test_features_are_those_of_the_tokens(trained):
    X = chains(9, (1, 2), 3)
    expected = layer_gradient_norms(trained.module_, torch.as_tensor(X), engine="loop")
    features = GradientNormTransformer(FrozenEstimator(trained)).fit_transform(X)
    np.testing.assert_allclose(features, expected, rtol=1e-4)
    assert FisherPreconditioner(FrozenEstimator(trained)).fit_transform(X).shape == features.shape
    np.testing.assert_allclose(
        trained.score_samples(X),
        trained.module_.log_prob(torch.as_tensor(X)).detach().numpy(),
        rtol=1e-5,
    )


@pytest.mark.parametrize("wrong", [-1, 0.5])
def test_what_is_no_token_is_refused(trained, wrong):
    X = chains(9, (1, 2), 3).astype(float)
    X[4, 2] = wrong
    message = rf"CausalModel takes tokens, whole numbers from 0, but row 4 of X holds {wrong}"
    for estimator in (
        trained,
        GradientNormTransformer(FrozenEstimator(trained)).fit(np.abs(X // 1)),
    ):
        method = estimator.score_samples if estimator is trained else estimator.transform
        with pytest.raises(ValueError, match=message):
            method(X)
    with pytest.raises(ValueError, match=message):
        GenerativeNet(CausalModel, max_epochs=1).fit(X)

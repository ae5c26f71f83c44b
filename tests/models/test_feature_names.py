"""Columns have names: a model is used for those that it was fitted on, in their order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from skgradood import (
    FisherPreconditioner,
    GenerativeNet,
    GradientNormTransformer,
    LikelihoodRatioDetector,
    LogLikelihoodDetector,
    TypicalityDetector,
    WaicDetector,
    make_detector,
)
from skgradood.features import LogLikelihoodTransformer
from skgradood.models import DiagonalGaussian

ROWS = np.random.default_rng(0).normal([0.0, 50.0], 1.0, size=(60, 2))
FRAME = pd.DataFrame(ROWS, columns=["a", "b"])
SWAPPED = FRAME[["b", "a"]]
NET = GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0)
USERS = {
    "log-likelihood": LogLikelihoodDetector,
    "typicality": TypicalityDetector,
    "ratio": lambda net: LikelihoodRatioDetector(DiagonalGaussian((2,)), net),
    "WAIC": lambda net: WaicDetector([net, net]),
    "gradient norms": GradientNormTransformer,
    "Fisher": FisherPreconditioner,
    "transformer": LogLikelihoodTransformer,
    "recommended": make_detector,
}


@pytest.mark.parametrize("name", USERS)
def test_a_frozen_net_takes_its_own_columns_in_their_order(name):
    frozen = FrozenEstimator(clone(NET).fit(FRAME))
    with pytest.raises(ValueError, match=r"their order: \['a', 'b'\]; got \['b', 'a'\]"):
        USERS[name](frozen).fit(SWAPPED)
    for rows in (FRAME, ROWS):
        USERS[name](frozen).fit(rows)


def test_outliers_and_a_model_to_start_from_have_the_same_columns():
    with pytest.raises(ValueError, match="feature names of outliers"):
        clone(NET).set_params(outliers=SWAPPED).fit(FRAME)
    start = FrozenEstimator(clone(NET).fit(SWAPPED))
    with pytest.raises(ValueError, match="that initial_model was fitted on"):
        clone(NET).set_params(initial_model=start).fit(FRAME)
    clone(NET).set_params(initial_model=start, outliers=SWAPPED).fit(SWAPPED)


@pytest.mark.parametrize(
    "make", [GradientNormTransformer, LogLikelihoodTransformer, LogLikelihoodDetector]
)
def test_a_log_likelihood_that_a_net_does_not_have_is_refused_in_fit(make):
    with pytest.raises(TypeError, match=r"has no method nope\(X\)"):
        make(NET, log_likelihood="nope").fit(ROWS)


@pytest.mark.parametrize("make", [GradientNormTransformer, LogLikelihoodTransformer])
def test_a_device_that_is_not_there_is_refused_before_a_net_is_trained(make, monkeypatch):
    def train(self, X, y=None):
        raise AssertionError("trained")

    monkeypatch.setattr(GenerativeNet, "fit", train)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="CUDA is not available"):
        make(NET, device="cuda").fit(ROWS)

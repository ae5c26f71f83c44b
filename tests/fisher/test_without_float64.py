"""On a device without float64: every architecture, engine and reducer, as on the CPU.

The device is a simulated one, see :mod:`tests.gradients.simulated_device`.
"""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
import pytest
import torch

from skgradood.fisher import APPROXIMATIONS, FisherEstimate, FisherOptions, QuadraticForms
from skgradood.gradients import EngineWarning, GradientEngine, SquaredNorms, layer_layout
from skgradood.gradients.alignment import Cosines, MeanGradients
from skgradood.gradients.reducers import Both
from tests.gradients.cases import CASES
from tests.gradients.simulated_device import moved, simulated_device

LARGEST_BLOCK = 600
RTOL = 1e-4


def measured(module, X, engine):
    """What all reducers say of the rows: norms, forms, cosines and log-likelihoods."""
    module.eval()
    layout = layer_layout(module)
    largest = max(layout.n_parameters)
    kinds = [kind for kind in APPROXIMATIONS if kind != "block" or largest <= LARGEST_BLOCK]
    options = FisherOptions(damping=1e-2, sketch_size=20)
    runner = GradientEngine(module, engine=engine, verify=False, batch_size=len(X))
    estimate = FisherEstimate.of_module(module, layout, kinds, options)
    mean = MeanGradients(layout)
    estimate.fit(lambda sums: runner.run(X[:-1], Both(mean, sums)))
    norms, forms = SquaredNorms(layout), QuadraticForms(layout, estimate.by_parameter)
    cosines, channels = Cosines(layout, mean.result()), SquaredNorms(layer_layout(module, "channel"))
    values = runner.run(X, Both(Both(norms, channels), Both(forms, cosines)))
    return {
        "log-likelihoods": values,
        "norms": norms.result(),
        "norms of channels": channels.result(),
        "cosines": cosines.result(),
        **dict(zip(kinds, forms.result(), strict=True)),
    }


def test_x():
    pass

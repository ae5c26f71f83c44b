"""On an accelerator: the same matrices and statistics as on the CPU."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from skgradood import FisherPreconditioner
from skgradood.fisher import APPROXIMATIONS
from tests.fisher import oracles
from tests.fisher.test_identities import network

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
KINDS = tuple(APPROXIMATIONS)


@pytest.mark.parametrize("basis", ["gradients", "activations"])
@pytest.mark.parametrize("max_factor_size", [1024, 4])
def test_matrices_and_statistics_equal_those_of_the_cpu(basis, max_factor_size):
    module, X = network(30)
    options = {"basis": basis, "max_factor_size": max_factor_size, "damping": 1e-2}
    expected = oracles.estimated(module, X[:20], KINDS, **options)
    there = copy.deepcopy(module).cuda()
    actual = oracles.estimated(there, X[:20].cuda(), KINDS, **options)
    np.testing.assert_allclose(
        oracles.statistics(there, X.cuda(), actual),
        oracles.statistics(module, X, expected),
        rtol=1e-7,
    )


@pytest.mark.parametrize("layers", ["parameter", "channel"])
def test_a_fit_on_one_device_goes_on_on_another(layers):
    module, X = network(30)
    rows = X.numpy()
    kinds = KINDS if layers == "parameter" else KINDS[:5]
    options = {"approximation": kinds, "layers": layers}
    here = FisherPreconditioner(module, device="cpu", **options).fit(rows[:20])
    there = FisherPreconditioner(module, device="cuda", **options).fit(rows[:20])
    np.testing.assert_allclose(there.transform(rows), here.transform(rows), rtol=1e-6)
    moved = pickle.loads(pickle.dumps(there)).set_params(device="cpu")
    np.testing.assert_allclose(moved.transform(rows), here.transform(rows), rtol=1e-6)
    moved.partial_fit(rows[20:])
    here.partial_fit(rows[20:])
    np.testing.assert_allclose(moved.transform(rows), here.transform(rows), rtol=1e-6)

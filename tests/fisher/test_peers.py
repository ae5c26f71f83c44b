"""curvlinops and nngeometry on plain networks: the same matrices, and the same quadratic forms.

Both approximate E[JᵀJ] of a regression, so a network with one output, taken as log p, has the
score J. curvlinops' loss is the sum of squared errors, whose Hessian is 2: its TYPE2 matrix is
twice ours, summed over rows. Both take Kronecker factors from activations, summed over positions,
and output gradients, averaged. The bias of a convolution is where conventions differ: ours is its
exact matrix, curvlinops takes the factor of the output gradients. nngeometry keeps some buffers in
float32, and folds biases into weights, so it has a network without any.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.fisher import oracles
from tests.gradients.building import seeded
from tests.gradients.modules import randomise

pytestmark = pytest.mark.peers

N = 17
DAMPING = 0.05


class OneOutput(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def log_prob(self, X):
        return self.body(X)[:, 0]


def mlp(bias):
    return nn.Sequential(
        nn.Linear(5, 6, bias=bias), nn.Tanh(), nn.Linear(6, 4, bias=bias), nn.Tanh(),
        nn.Linear(4, 1, bias=bias),
    )  # fmt: skip


def convolutions(bias):
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, bias=bias), nn.Tanh(),
        nn.Conv2d(3, 2, 2, stride=2, bias=bias), nn.Tanh(),
        nn.Flatten(), nn.Linear(8, 4, bias=bias), nn.Tanh(), nn.Linear(4, 1, bias=bias),
    )  # fmt: skip


NETWORKS = {"mlp": (mlp, (N, 5)), "convolutions": (convolutions, (N, 2, 5, 5))}


def made(name, *, bias):
    build, shape = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = OneOutput(build(bias)).double()
    randomise(module)
    return module, seeded(shape, torch.float64)


def blocks(matrix, module):
    """The diagonal blocks of a matrix over all parameters."""
    start, found = 0, {}
    for name, parameter in module.named_parameters():
        part = slice(start, start + parameter.numel())
        found[name] = matrix[part, part]
        start = part.stop
    return found


def assert_same_matrices_and_forms(module, X, kind, theirs, names, tolerance):
    estimate = oracles.estimated(module, X, [kind], basis="activations", damping=DAMPING)
    forms = oracles.statistics(module, X, estimate)[0]
    gradients = oracles.dense_gradients(module, X)
    for column, (name, (ours,)) in enumerate(estimate.by_parameter.items()):
        if name not in names:
            continue
        M = theirs[name]
        assert ours.trace() == pytest.approx(np.trace(M), rel=tolerance)
        np.testing.assert_allclose(
            oracles.matrix_of(ours), M, atol=tolerance * np.abs(M).max(), err_msg=name
        )
        g = oracles.flat(gradients[name])
        shifted = M + DAMPING * np.trace(M) / len(M) * np.eye(len(M))
        expected = (g * np.linalg.solve(shifted, g.T).T).sum(1)
        np.testing.assert_allclose(
            forms[:, column], expected, rtol=tolerance / DAMPING, err_msg=name
        )


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", ["kfac", "ekfac"])
def test_half_of_curvlinops(kind, network):
    curvlinops = pytest.importorskip("curvlinops")
    module, X = made(network, bias=True)
    operator_of = {
        "kfac": curvlinops.KFACLinearOperator,
        "ekfac": curvlinops.EKFACLinearOperator,
    }[kind]
    operator = operator_of(
        module.body, nn.MSELoss(reduction="sum"), list(module.parameters()),
        [(X, torch.zeros(N, 1).double())], fisher_type=curvlinops.FisherType.TYPE2,
        kfac_approx=curvlinops.KFACType.EXPAND,
    )  # fmt: skip
    size = sum(p.numel() for p in module.parameters())
    theirs = np.asarray(operator @ torch.eye(size, dtype=torch.float64)) / (2 * N)
    convolved = {"body.0.bias", "body.2.bias"} if network == "convolutions" else set()
    names = {name for name, _ in module.named_parameters()} - convolved
    assert_same_matrices_and_forms(module, X, kind, blocks(theirs, module), names, 1e-9)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", ["diagonal", "kfac", "ekfac", "block"])
def test_nngeometry(kind, network):
    pytest.importorskip("nngeometry")
    from nngeometry import object as matrices
    from nngeometry.metrics import FIM

    module, X = made(network, bias=False)
    form = {
        "diagonal": matrices.PMatDiag,
        "kfac": matrices.PMatKFAC,
        "ekfac": matrices.PMatEKFAC,
        "block": matrices.PMatBlockDiag,
    }[kind]
    rows = DataLoader(TensorDataset(X), batch_size=N)
    fisher = FIM(module.body, rows, form, variant="regression", device="cpu")
    if kind == "ekfac":
        fisher.update_diag(rows)
    theirs = blocks(fisher.to_torch().numpy(), module)
    assert_same_matrices_and_forms(module, X, kind, theirs, set(theirs), 1e-5)

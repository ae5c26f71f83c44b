"""Parameter tensors with a dimension of size zero: statistics and dimensions of zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skgradood import FisherPreconditioner, GradientNormTransformer
from skgradood.detectors import FisherMMDDetector
from skgradood.fisher import APPROXIMATIONS, BASES, FisherEstimate, FisherOptions, FisherSums
from skgradood.gradients import GradientEngine, layer_layout
from skgradood.persistence import load, save
from tests.fisher import oracles
from tests.gradients.building import SquaredOutput, seeded
from tests.gradients.modules import WithoutElements, randomise

KINDS = tuple(APPROXIMATIONS)
EMPTY = ["body.to_nothing", "body.at_nothing", "body.from_nothing", "body.unused"]
X = seeded((12, 5), torch.float64)


@pytest.fixture(scope="module")
def module():
    module = SquaredOutput(WithoutElements(5)).double()
    randomise(module)
    return module


def engine(module):
    return GradientEngine(module, engine="capture", verify=False)


def columns_of_empty(module, layers="parameter"):
    names = layer_layout(module, layers).names
    return [i for i, name in enumerate(names) if name.split("[")[0] in EMPTY]


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("damping", [0.0, 1e-2])
@pytest.mark.parametrize("name", ["auto", "func", "loop"])
def test_statistics_and_dimensions_are_zero(module, name, damping, basis):
    estimate = oracles.estimated(module, X, KINDS, engine=name, damping=damping, basis=basis)
    forms = oracles.statistics(module, X, estimate, engine=name)
    dims = np.array(estimate.effective_dims(layer_layout(module)))
    empty = columns_of_empty(module)
    assert len(empty) == 4
    assert (forms[..., empty] == 0).all()
    assert (dims[:, empty] == 0).all()
    for parameter in EMPTY:
        for approximation in estimate.by_parameter[parameter]:
            assert approximation.n_samples == (0 if approximation.key == "identity" else len(X))
            assert approximation.trace() == approximation.effective_dim() == 0
            if approximation.has_channels:
                shape = module.get_parameter(parameter).shape
                assert approximation.effective_dims().shape == shape
                gradients = torch.zeros(2, *shape, dtype=torch.float64)
                assert approximation.whitened(gradients).shape == (2, *shape)
    others = np.delete(forms, empty, axis=2)
    assert (others > 0).all()
    assert np.isfinite(others).all()
    # On the rows of the fit, Σ λ/(λ + δ) is the mean of the statistic where λ is exact.
    exact = [KINDS.index(kind) for kind in ("diagonal", "ekfac", "block", "sketch")]
    np.testing.assert_allclose(dims[exact], forms[exact].mean(1), rtol=1e-9)


@pytest.mark.parametrize("layers", ["channel", "module"])
def test_they_add_nothing_to_other_layers(module, layers):
    kinds = KINDS[:-1]  # a sketch has no channels
    estimate = oracles.estimated(module, X, kinds, layers=layers, damping=1e-2)
    forms = oracles.statistics(module, X, estimate, layers=layers)
    plain = oracles.estimated(module, X, kinds, damping=1e-2)
    by_parameter = oracles.statistics(module, X, plain)
    assert (forms[..., columns_of_empty(module, layers)] == 0).all()
    np.testing.assert_allclose(forms.sum(2), by_parameter.sum(2), rtol=1e-9)


def test_further_rows_and_sums_of_disjoint_rows(module):
    options = FisherOptions(damping=1e-2)
    layout = layer_layout(module)
    estimate = FisherEstimate.of_module(module, layout, KINDS, options)
    estimate.fit(lambda reducer: engine(module).run(X[:7], reducer))
    estimate.extend(lambda reducer: engine(module).run(X[7:], reducer))
    first = FisherEstimate.of_module(module, layout, KINDS, options).by_parameter["body.unused"]
    second = [approximation.blank() for approximation in first]
    for members, rows in ((first, X[:7]), (second, X[7:])):
        engine(module).run(rows, FisherSums({"body.unused": members}))
    for a, b in zip(first, second, strict=True):
        a.merge(b)
        assert a.n_samples == (0 if a.key == "identity" else 12)
    for approximation in estimate.by_parameter["body.unused"]:
        assert approximation.n_samples == (0 if approximation.key == "identity" else 12)
    forms = oracles.statistics(module, X, estimate)
    assert (forms[..., columns_of_empty(module)] == 0).all()


def test_transformers_serve_them(module):
    rows = X.numpy()
    empty = columns_of_empty(module)
    norms = GradientNormTransformer(module).fit_transform(rows)
    assert (norms[:, empty] == 0).all()
    transformer = FisherPreconditioner(module, approximation=KINDS).fit(rows)
    statistics = transformer.partial_fit(rows[:6]).transform(rows).reshape(12, len(KINDS), -1)
    assert (statistics[..., empty] == 0).all()
    assert (transformer.effective_dim_.reshape(len(KINDS), -1)[:, empty] == 0).all()
    assert (transformer.n_parameters_[empty] == 0).all()


def test_they_are_saved_and_go_on_learning(module, tmp_path):
    rows = X.numpy()
    transformer = FisherPreconditioner(module, approximation=KINDS).fit(rows)
    save(transformer, tmp_path / "fitted.skg")
    loaded = load(tmp_path / "fitted.skg", modules=[SquaredOutput, WithoutElements])
    np.testing.assert_array_equal(loaded.transform(rows), transformer.transform(rows))
    more = rows + 0.5
    transformer.partial_fit(more)
    loaded.partial_fit(more)
    np.testing.assert_array_equal(loaded.transform(more), transformer.transform(more))


def test_the_fisher_kernel_serves_them(module):
    groups = X.numpy().reshape(6, 2, 5)
    for approximation in KINDS:
        detector = FisherMMDDetector(module, approximation=approximation, grouped=True)
        assert np.isfinite(detector.fit(groups).score_samples(groups)).all()

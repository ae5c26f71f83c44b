"""The search for the default of ``make_detector``: statistics, and detectors on each of them.

    python -m benchmarks.search --data-dir DIR --train fashion_mnist --model glow

measures all statistics in one pass over 2500 reference images, which the Fisher matrices have not
seen, test images and out-of-distribution sets; fits every detector on each; and prints worst and
mean AUROC over the sets. The models are those of ``benchmarks/ood.py``, from the same cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import Tensor

from benchmarks.features import argument_parser, trained
from benchmarks.images import load_division
from benchmarks.presets import PRESETS
from skgradood import CombinedDetector, RoseDetector
from skgradood.detectors import on_columns, recommended_detector
from skgradood.fisher import FisherEstimate, FisherOptions, QuadraticForms
from skgradood.gradients import GradientEngine, layer_layout
from skgradood.metrics import auroc
from skgradood.models._fitted import LikelihoodModel

N_FISHER, N_TEST, N_OOD = 2500, 1500, 600
_EXP = FunctionTransformer(np.exp)
_STATISTICS, _LIKELIHOOD = slice(0, -1), slice(-1, None)


@dataclass(frozen=True)
class Statistic:
    """One statistic of every layer."""

    kind: str
    power: float = 1.0
    damping: float = 1e-3
    basis: str = "gradients"

    def __str__(self) -> str:
        if self.kind == "identity":
            return self.kind
        basis = ", activations" if self.basis == "activations" else ""
        return f"{self.kind}{basis}, power {self.power:g}, damping {self.damping:g}"


STATISTICS = (
    Statistic("identity"),
    Statistic("diagonal", 1, 1e-3),
    Statistic("ekfac", 1, 1e-3, "activations"),
    *(Statistic("ekfac", 1, damping) for damping in (1e-6, 1e-3, 1e-1)),
    Statistic("ekfac", 1.5, 1e-3),
    *(Statistic("ekfac", 2, damping) for damping in (1e-4, 1e-3, 3e-3, 1e-2, 1e-1)),
    Statistic("ekfac", 3, 1e-2),
)


def _members() -> dict[str, Any]:
    return dict(recommended_detector().detectors)


def detectors() -> dict[str, Any]:
    """What is fitted on each statistic: log statistics of all layers, and the log-likelihood."""
    members = _members()

    def combined(*names: str) -> CombinedDetector:
        return CombinedDetector([(name, members[name]) for name in names], random_state=0)

    score, joint, given, typical = members
    return {
        "sum": members[score],
        "ROSE": on_columns(_STATISTICS, _EXP, RoseDetector()),
        "joint density": members[joint],
        "sum + joint": combined(score, joint),
        "sum + typicality": combined(score, typical),
        "sum + joint + typicality": combined(score, joint, typical),
        "sum given likelihood + joint + typicality": combined(given, joint, typical),
        "all four": combined(score, given, joint, typical),
    }


def main() -> None:
    """Run the search that the command line asks for."""
    parser = argument_parser(__doc__.splitlines()[0])
    arguments = parser.parse_args()
    preset = PRESETS[arguments.model]
    division = load_division(
        arguments.data_dir,
        arguments.train,
        size=preset.image_size[arguments.train],
        n_test=N_TEST,
        n_ood=N_OOD,
        seed=arguments.seed,
    )
    net, _ = trained(division, arguments)
    model = LikelihoodModel(net.module_, net, net.input_shape_)
    tables = measured(model, division, arguments)
    print(report(tables, list(division.ood)))


def measured(model: LikelihoodModel, division: Any, arguments: argparse.Namespace) -> Any:
    """Tables (n, L + 1) of every statistic, for every part; from the cache if they are there."""
    path = arguments.cache_dir / f"search-{arguments.train}-{arguments.model}.joblib"
    if path.exists():
        return joblib.load(path)
    engine = GradientEngine(model.module)
    layout = layer_layout(model.module)

    def stream(images: np.ndarray) -> Callable:
        inputs: Tensor = model.prepare(images)
        return lambda reducer: engine.run(inputs, reducer)

    fitted = _fitted(model, layout, stream(division.reference[:N_FISHER]))
    parts = {"reference": division.reference[N_FISHER:], "test": division.test, **division.ood}
    tables: dict[str, dict[str, np.ndarray]] = {str(s): {} for s in STATISTICS}
    for part, images in parts.items():
        forms = QuadraticForms(layout, fitted)
        likelihoods = stream(images)(forms)
        for statistic, values in zip(STATISTICS, forms.result(), strict=True):
            logs = np.log(np.maximum(values, np.finfo(float).tiny))
            tables[str(statistic)][part] = np.column_stack([logs, likelihoods])
        print(part, flush=True)
    joblib.dump(tables, path)
    return tables


def _fitted(model: LikelihoodModel, layout: Any, stream: Callable) -> dict[str, list]:
    """Every statistic's approximation of every tensor; those of one kind share their sums."""
    bases = {(s.kind, s.basis) for s in STATISTICS}
    estimates = {}
    for kind, basis in sorted(bases):
        options = FisherOptions(basis=basis)
        estimate = FisherEstimate.of_module(model.module, layout, [kind], options)
        estimates[kind, basis] = estimate.fit(stream).by_parameter
    fitted: dict[str, list] = {name: [] for name in layout.slots}
    for name, members in fitted.items():
        for s in STATISTICS:
            copied = estimates[s.kind, s.basis][name][0].copy()
            copied.options = replace(copied.options, power=s.power, damping=s.damping)
            copied.finalize()
            members.append(copied)
    return fitted


def report(tables: Any, ood: list[str]) -> str:
    """A table of worst and mean AUROC: statistics in rows, detectors in columns."""
    names = list(detectors())
    lines = [f"| statistic | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for statistic, parts in tables.items():
        cells = []
        for detector in detectors().values():
            fitted = make_pipeline(detector).fit(parts["reference"])
            inliers = fitted.score_samples(parts["test"])
            areas = [auroc(inliers, fitted.score_samples(parts[name])) for name in ood]
            cells.append(f"{min(areas):.3f} / {np.mean(areas):.3f}")
        lines.append(f"| {statistic} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

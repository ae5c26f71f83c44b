"""Out-of-distribution detection on real images, with every step of the package.

    python -m benchmarks.ood --data-dir DIR --train fashion_mnist --model vae

trains a model (once: it is cached), extracts features once, compares detectors on nine
out-of-distribution sets, and writes the table to ``docs/results``. DIR holds the ``.npz`` files
named in ``benchmarks/images.py``, each with uint8 images under ``images``.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.frozen import FrozenEstimator

from benchmarks.detectors import (
    CONTROL_TABLE,
    PAPERS_TABLE,
    RECOMMENDED_TABLE,
    Table,
    control_detectors,
    paper_detectors,
)
from benchmarks.images import TRAININGS, Division, load_division
from benchmarks.presets import PRESETS
from benchmarks.results import Run, write_results
from skgradood import FisherPreconditioner, GenerativeNet
from skgradood.baselines import baseline_detectors
from skgradood.evaluation import Comparison, compare_detectors

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Features:
    """Names and values of the features of every part, and how fast they came."""

    names: list[str]
    values: dict[str, np.ndarray]
    images_per_second: float


def main() -> None:
    """Run the benchmark that the command line asks for."""
    arguments = argument_parser(__doc__.splitlines()[0]).parse_args()
    preset = PRESETS[arguments.model]
    division = load_division(
        arguments.data_dir,
        arguments.train,
        size=preset.image_size[arguments.train],
        n_test=arguments.n_test,
        n_ood=arguments.n_ood,
        seed=arguments.seed,
    )
    net, training_seconds = trained(division, arguments)
    ours = extracted(net, division, arguments, RECOMMENDED_TABLE)
    papers = extracted(net, division, arguments, PAPERS_TABLE)
    control = extracted(net, division, arguments, CONTROL_TABLE)
    seed = arguments.seed
    comparison = merged(
        compared(ours, baseline_detectors(ours.names, random_state=seed), division),
        compared(papers, paper_detectors(papers.names), division),
        compared(control, control_detectors(control.names, random_state=seed), division),
    )
    run = Run(
        train=arguments.train,
        model=arguments.model,
        description=f"{preset.description}, {preset.epochs[arguments.train]} epochs",
        seed=arguments.seed,
        n_layers=sum(name.endswith("__identity") for name in ours.names),
        bits_per_dim=float(net.bits_per_dim(division.test[:1000]).mean()),
        training_seconds=training_seconds,
        images_per_second=ours.images_per_second,
        sizes={key: len(ours.values[key]) for key in ("reference", "calibration", "test")},
        n_ood=arguments.n_ood,
    )
    print(write_results(run, comparison, arguments.results_dir))


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Options that the benchmarks on images share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the .npz files")
    parser.add_argument("--train", choices=sorted(TRAININGS), default="fashion_mnist")
    parser.add_argument("--model", choices=sorted(PRESETS), default="vae")
    parser.add_argument("--n-test", type=int, default=5000, help="in-distribution test images")
    parser.add_argument("--n-ood", type=int, default=2000, help="images of each other set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache-dir", type=Path, default=ROOT / "benchmarks" / "cache")
    parser.add_argument("--results-dir", type=Path, default=ROOT / "docs" / "results")
    return parser


def trained(division: Division, arguments: argparse.Namespace) -> tuple[GenerativeNet, float]:
    """Train the preset's model, or take it from the cache."""
    preset = PRESETS[arguments.model]
    net = preset.make(arguments.seed, preset.epochs[arguments.train])
    name = f"{arguments.train}-{arguments.model}"
    return fitted(net, division.model, arguments.cache_dir / name)


def fitted(net: GenerativeNet, images: np.ndarray, prefix: Path) -> tuple[GenerativeNet, float]:
    """Fit a model and say how long it took, or take both from the cache, files ``prefix-*``."""
    path = prefix.with_name(f"{prefix.name}-{_key(net, images)}.joblib")
    if path.exists():
        return joblib.load(path)
    started = time.perf_counter()
    net.fit(images)
    result = net, time.perf_counter() - started
    path.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(result, path)
    return result


def extracted(
    net: GenerativeNet, division: Division, arguments: argparse.Namespace, table: Table
) -> Features:
    """Features of every part, from the cache if they are there."""
    parts = {
        "reference": division.reference,
        "calibration": division.calibration,
        "test": division.test,
        **division.ood,
    }
    objective = PRESETS[arguments.model].wrong_objective if table.is_control else "log_prob"
    transformer = FisherPreconditioner(
        FrozenEstimator(net),
        approximation=table.approximation,
        power=table.power,
        output="log",
        log_likelihood=objective,
        log_likelihood_column=True,
        random_state=arguments.seed,
    )
    options = {k: v for k, v in transformer.get_params(deep=False).items() if k != "estimator"}
    key = _key(net, options | {"log_likelihood": table.is_control}, *parts.values())
    path = arguments.cache_dir / f"{arguments.train}-{arguments.model}-{table.name}-{key}.joblib"
    if path.exists():
        return joblib.load(path)
    started = time.perf_counter()
    transformer.fit(parts["reference"])
    print(f"{table.name}: fitted in {time.perf_counter() - started:.0f} s", flush=True)
    values, started = {}, time.perf_counter()
    for name, images in parts.items():
        values[name] = transformer.transform(images)
        seconds = time.perf_counter() - started
        print(f"{table.name}, {name}: {len(images)} images, {seconds:.0f} s", flush=True)
    n_images = sum(len(images) for images in parts.values())
    names = transformer.get_feature_names_out().tolist()
    result = Features(names, values, n_images / seconds)
    joblib.dump(result, path)
    return result


def compared(features: Features, detectors: dict[str, Any], division: Division) -> Comparison:
    """Detectors on one table of features."""
    return compare_detectors(
        detectors,
        features.values["reference"],
        features.values["test"],
        {name: features.values[name] for name in division.ood},
        X_calibration=features.values["calibration"],
    )


def merged(*comparisons: Comparison) -> Comparison:
    """One table with the detectors of all."""
    first, *others = comparisons
    for other in others:
        metrics = {
            metric: {ood: row | other.metrics[metric][ood] for ood, row in table.items()}
            for metric, table in first.metrics.items()
        }
        rates = first.false_positive_rate | other.false_positive_rate
        first = Comparison(metrics, rates, first.alpha)
    return first


def _key(*objects: object) -> str:
    return hashlib.sha256("".join(joblib.hash(o) for o in objects).encode()).hexdigest()[:12]


if __name__ == "__main__":
    main()

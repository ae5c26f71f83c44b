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

from benchmarks.images import TRAININGS, Division, load_division
from benchmarks.presets import PRESETS
from benchmarks.results import Run, write_results
from skgradood import ChiSquareJointDensity, GenerativeNet, GradientNormTransformer
from skgradood.baselines import baseline_detectors
from skgradood.evaluation import Comparison, compare_detectors

ROOT = Path(__file__).resolve().parent.parent
CONTROL = "wrong objective (control)"


@dataclass(frozen=True)
class Features:
    """Names and values of the features of every part, and how fast they came."""

    names: list[str]
    values: dict[str, np.ndarray]
    images_per_second: float


def main() -> None:
    """Run the benchmark that the command line asks for."""
    arguments = parse_arguments()
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
    score = extracted(net, division, arguments, "log_prob")
    control = extracted(net, division, arguments, preset.wrong_objective)
    comparison = merged(
        compared(score, baseline_detectors(score.names, random_state=arguments.seed), division),
        compared(control, {CONTROL: ChiSquareJointDensity(marginal="normal")}, division),
    )
    run = Run(
        train=arguments.train,
        model=arguments.model,
        description=f"{preset.description}, {preset.epochs[arguments.train]} epochs",
        seed=arguments.seed,
        n_layers=len(score.names) - 1,
        bits_per_dim=float(net.bits_per_dim(division.test[:1000]).mean()),
        training_seconds=training_seconds,
        images_per_second=score.images_per_second,
        sizes={key: len(score.values[key]) for key in ("reference", "calibration", "test")},
        n_ood=arguments.n_ood,
    )
    print(write_results(run, comparison, arguments.results_dir))


def parse_arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the .npz files")
    parser.add_argument("--train", choices=sorted(TRAININGS), default="fashion_mnist")
    parser.add_argument("--model", choices=sorted(PRESETS), default="vae")
    parser.add_argument("--n-test", type=int, default=5000, help="in-distribution test images")
    parser.add_argument("--n-ood", type=int, default=2000, help="images of each other set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache-dir", type=Path, default=ROOT / "benchmarks" / "cache")
    parser.add_argument("--results-dir", type=Path, default=ROOT / "docs" / "results")
    return parser.parse_args()


def trained(division: Division, arguments: argparse.Namespace) -> tuple[GenerativeNet, float]:
    """Train the preset's model, or take it from the cache."""
    preset = PRESETS[arguments.model]
    images = division.model
    net = preset.make(arguments.seed, preset.epochs[arguments.train])
    path = arguments.cache_dir / f"{arguments.train}-{arguments.model}-{_key(net, images)}.joblib"
    if path.exists():
        return joblib.load(path)
    started = time.perf_counter()
    net.fit(images)
    result = net, time.perf_counter() - started
    path.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(result, path)
    return result


def extracted(
    net: GenerativeNet, division: Division, arguments: argparse.Namespace, objective: Any
) -> Features:
    """Features of every part, with the log-likelihood if that is what is differentiated."""
    parts = {
        "reference": division.reference,
        "calibration": division.calibration,
        "test": division.test,
        **division.ood,
    }
    kind = objective if isinstance(objective, str) else objective.__name__.strip("_")
    key = _key(net, *parts.values())
    path = arguments.cache_dir / f"{arguments.train}-{arguments.model}-{kind}-{key}.joblib"
    if path.exists():
        return joblib.load(path)
    transformer = GradientNormTransformer(
        FrozenEstimator(net),
        output="log",
        log_likelihood=objective,
        log_likelihood_column=objective == "log_prob",
        random_state=arguments.seed,
    )
    started = time.perf_counter()
    transformer.fit(parts["reference"])
    values = {}
    for name, images in parts.items():
        values[name] = transformer.transform(images)
        seconds = time.perf_counter() - started
        print(f"{kind}, {name}: {len(images)} images, {seconds:.0f} s", flush=True)
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


def merged(first: Comparison, second: Comparison) -> Comparison:
    """One table with the detectors of both."""
    metrics = {
        metric: {ood: row | second.metrics[metric][ood] for ood, row in table.items()}
        for metric, table in first.metrics.items()
    }
    rates = first.false_positive_rate | second.false_positive_rate
    return Comparison(metrics, rates, first.alpha)


def _key(*objects: object) -> str:
    return hashlib.sha256("".join(joblib.hash(o) for o in objects).encode()).hexdigest()[:12]


if __name__ == "__main__":
    main()

"""Trained models and tables of their features, computed once and kept in a cache."""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
from sklearn.frozen import FrozenEstimator

from benchmarks.detectors import Table
from benchmarks.images import TRAININGS, Division
from benchmarks.presets import PRESETS
from skgradood import FisherPreconditioner, GenerativeNet

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Features:
    """Names and values of the features of every part, and how fast they came."""

    names: list[str]
    values: dict[str, np.ndarray]
    images_per_second: float


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


def latest(train: str, model: str, table: Table, cache_dir: Path) -> Features:
    """The features that were extracted last of a training set and a model, whatever their sizes."""
    paths = cache_dir.glob(f"{train}-{model}-{table.name}-*.joblib")
    newest = max(paths, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise FileNotFoundError(
            f"no features of {model} on {train} in {cache_dir}; run "
            f"python -m benchmarks.ood --train {train} --model {model}"
        )
    return joblib.load(newest)


def _key(*objects: object) -> str:
    return hashlib.sha256("".join(joblib.hash(o) for o in objects).encode()).hexdigest()[:12]

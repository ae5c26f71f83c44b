"""Anomaly detection on rows: likelihood, score tests, neighbours, and what joins them.

    python -m benchmarks.tabular --data-dir DIR

trains a flow on every table and seed (once: features are cached), compares detectors, and prints
the tables of ``docs/results/tabular.md``. DIR holds ``.npz`` files with ``X`` and ``y`` (1 is an
anomaly), such as those of ADBench.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit

from benchmarks.tabular_detectors import Table, compared
from skgradood import FisherPreconditioner, GenerativeNet
from skgradood.models import RealNVP

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("fit", "reference", "test", "anomalies")
APPROXIMATIONS = ("identity", "diagonal", "ekfac")
POWERS = (1.0, 2.0)


@dataclass(frozen=True)
class Limits:
    """Most rows of every part."""

    train: int = 3000
    test: int = 3000
    anomalies: int = 1000


def main() -> None:
    """Run the benchmark that the command line asks for."""
    arguments = parse_arguments()
    paths = sorted(arguments.data_dir.glob("*.npz"))
    if not paths:
        raise SystemExit(f"there are no .npz files in {arguments.data_dir}")
    areas: dict[str, dict[str, list[float]]] = {}
    for seed in range(arguments.seeds):
        for path in paths:
            started = time.perf_counter()
            table = extracted(path, seed, arguments)
            name = path.stem.partition("_")[2] or path.stem
            for detector, area in compared(table, seed).items():
                areas.setdefault(detector, {}).setdefault(name, []).append(area)
            print(f"{name}, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
    print(markdown(areas))


def parse_arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the .npz files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, default=0.1, help="added to rows in training")
    parser.add_argument("--cache-dir", type=Path, default=ROOT / "benchmarks" / "cache")
    return parser.parse_args()


def divided(path: Path, seed: int, limits: Limits) -> dict[str, np.ndarray]:
    """Scaled rows of every part: 70 % of the normal rows train, a third of them as reference."""
    with np.load(path) as file:
        X, is_anomaly = file["X"].astype(np.float64), file["y"].astype(bool)
    rng = np.random.default_rng(seed)
    normal = rng.permutation(X[~is_anomaly])
    n_train = int(0.7 * len(normal))
    train, test = normal[:n_train][: limits.train], normal[n_train:][: limits.test]
    n_fit = int(np.ceil(2 / 3 * len(train)))
    scaler = StandardScaler().fit(train)
    anomalies = rng.permutation(X[is_anomaly])[: limits.anomalies]
    parts = (train[:n_fit], train[n_fit:], test, anomalies)
    return {name: scaler.transform(part) for name, part in zip(PARTS, parts, strict=True)}


def make_net(n_rows: int, seed: int, noise: float) -> GenerativeNet:
    """A flow of rows that stops when held-out rows become no more probable."""
    stop = EarlyStopping(patience=12, threshold=1e-3, threshold_mode="abs", load_best=True)
    return GenerativeNet(
        RealNVP,
        module__noise=noise,
        lr=2e-3,
        max_epochs=60,
        batch_size=int(np.clip(n_rows // 16, 16, 128)),
        train_split=ValidSplit(0.1, random_state=seed),
        callbacks=[("stop", stop)],
        random_state=seed,
    )


def extracted(path: Path, seed: int, arguments: argparse.Namespace) -> Table:
    """Rows, statistics and log-likelihoods of every part, from the cache if they are there."""
    rows = divided(path, seed, Limits())
    net = make_net(len(rows["fit"]), seed, arguments.noise)
    cached = arguments.cache_dir / f"tabular-{path.stem}-{seed}-{cache_key(rows, net)}.joblib"
    if cached.exists():
        return joblib.load(cached)
    net.fit(rows["fit"])
    statistics: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
    for power in POWERS:
        transformer = FisherPreconditioner(
            FrozenEstimator(net),
            approximation=APPROXIMATIONS,
            power=power,
            log_likelihood_column=True,
            batch_size=256,
            random_state=seed,
        ).fit(rows["fit"])
        for part in PARTS:
            columns = transformer.transform(rows[part])
            kinds = np.split(columns[:, :-1], len(APPROXIMATIONS), axis=1)
            for kind, values in zip(APPROXIMATIONS, kinds, strict=True):
                statistics[part][f"{kind}, power {power:g}"] = values
            statistics[part]["log-likelihood"] = columns[:, -1:]
    table = Table(rows, statistics)
    cached.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(table, cached)
    return table


def cache_key(rows: dict[str, np.ndarray], net: GenerativeNet) -> str:
    """What the statistics depend on, in short."""
    content = joblib.hash((rows, net, APPROXIMATIONS, POWERS))
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def markdown(areas: dict[str, dict[str, list[float]]]) -> str:
    """Mean AUROC over seeds, a row a detector; mean and worst over the sets in the last columns."""
    names = list(next(iter(areas.values())))
    lines = [
        f"| detector | {' | '.join(names)} | mean | worst |",
        "|---" * (len(names) + 3) + "|",
    ]
    for detector, by_set in areas.items():
        means = [float(np.mean(by_set[name])) for name in names]
        cells = [f"{value:.3f}" for value in (*means, np.mean(means), min(means))]
        lines.append(f"| {detector} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

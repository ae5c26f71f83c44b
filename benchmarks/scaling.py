"""How time and memory grow with samples and with parameters.

    python -m benchmarks.scaling

measures squared norms of all layers, and the whole fit of diagonal and EKFAC Fisher matrices (two
passes), for n from 100 to 100 000 rows on one perceptron, and for perceptrons of 10 000 to
100 000 000 parameters on 1024 rows: time a sample, and the growth of peak memory, each in a
process of its own. The ordinary forward and backward pass is beside them. Needs
``pip install skgradood[bench]``; writes ``docs/results/scaling.md`` and ``scaling.png``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.methods import METHODS, ORDINARY, OURS
from benchmarks.speed import ROOT, largest_memory, wait
from skgradood.fisher import FisherEstimate, FisherOptions
from skgradood.gradients import GradientEngine, SquaredNorms, layer_layout

D = 64
SAMPLES = tuple(10**k for k in range(2, 6))
PARAMETERS = tuple(10**k for k in range(4, 9))
# The other quantity, while one grows.
ROWS_OF_A_MODEL = 1024
PARAMETERS_OF_ROWS = 10**6
# The ordinary pass gets batches of this size, as the engine does by its own choice.
ORDINARY_BATCH = 1024
FIT = "fit of diagonal and EKFAC"
SERIES = {ORDINARY: "o--", OURS: "s-", FIT: "^:"}


class Point(NamedTuple):
    """One measurement: seconds a sample, and bytes beyond the loaded model and data."""

    n: int
    parameters: int
    method: str
    seconds: float
    memory: float


class Perceptron(nn.Module):
    """Two hidden layers; the squared error of reconstruction stands in for a density."""

    def __init__(self, parameters: int) -> None:
        super().__init__()
        # D w + w² + w D weights
        width = max(1, round((D**2 + parameters) ** 0.5 - D))
        self.net = nn.Sequential(
            nn.Linear(D, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, D)
        )

    def log_prob(self, X: Tensor) -> Tensor:
        """(n, D) to (n,)."""
        return -0.5 * (X - self.net(X)).square().sum(1)


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", nargs="+", type=int, default=list(SAMPLES))
    parser.add_argument("--parameters", nargs="+", type=int, default=list(PARAMETERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results-dir", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--point", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        n, parameters, method = arguments.point
        point = measured(int(n), int(parameters), method, arguments.rounds, arguments.device)
        print(json.dumps(point))
        return
    sizes = [(n, PARAMETERS_OF_ROWS) for n in arguments.samples]
    sizes += [(ROWS_OF_A_MODEL, parameters) for parameters in arguments.parameters]
    points = []
    for n, parameters in sizes:
        for method in SERIES:
            points.append(in_own_process(n, parameters, method, arguments))
            print(points[-1], flush=True)
    arguments.results_dir.mkdir(parents=True, exist_ok=True)
    draw(points, len(arguments.samples), arguments.results_dir / "scaling.png")
    text = page(points, arguments)
    (arguments.results_dir / "scaling.md").write_text(text, encoding="utf-8")


def measured(n: int, parameters: int, method: str, rounds: int, device: str) -> Point:
    """Median time a sample and peak memory of a pass over n rows."""
    torch.manual_seed(0)
    module = Perceptron(parameters).eval().to(device)
    X = torch.randn(n, D)
    METHODS[ORDINARY].start(module, X[:2].to(device), 2)()
    before, times = largest_memory(device), []
    for _ in range(rounds):
        started = time.perf_counter()
        _pass(module, X, method, device)
        wait(device)
        times.append(time.perf_counter() - started)
    count = sum(p.numel() for p in module.parameters())
    return Point(n, count, method, median(times) / n, largest_memory(device) - before)


def _pass(module: nn.Module, X: Tensor, method: str, device: str) -> None:
    if method == ORDINARY:
        for rows in X.split(ORDINARY_BATCH):
            METHODS[ORDINARY].start(module, rows.to(device), len(rows))()
        return
    engine, layout = GradientEngine(module, engine="capture", verify=False), layer_layout(module)
    if method == OURS:
        engine.run(X, SquaredNorms(layout))
    else:
        estimate = FisherEstimate.of_module(module, layout, ["diagonal", "ekfac"], FisherOptions())
        estimate.fit(lambda reducer: engine.run(X, reducer))


def in_own_process(n: int, parameters: int, method: str, arguments: argparse.Namespace) -> Point:
    """The same, where no other measurement has left its memory."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--device", arguments.device]
    command += ["--rounds", str(arguments.rounds), "--point", str(n), str(parameters), method]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return Point(*json.loads(done.stdout))


def draw(points: list[Point], n_sizes: int, path: Path) -> None:
    """Time and memory over samples, and over parameters, on logarithmic axes."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SystemExit("the figure needs matplotlib: pip install 'skgradood[plot]'") from error
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, 2)
    halves = (
        (points[: len(SERIES) * n_sizes], "n", "samples"),
        (points[len(SERIES) * n_sizes :], "parameters", ""),
    )
    for column, (half, field, label) in zip(axes.T, halves, strict=True):
        for method, style in SERIES.items():
            mine = [point for point in half if point.method == method]
            x = [getattr(point, field) for point in mine]
            column[0].loglog(x, [1e6 * p.seconds for p in mine], style, label=method)
            column[1].loglog(x, [max(p.memory, 1e5) / 1e6 for p in mine], style, label=method)
        column[1].set_xlabel(label or field)
    axes[0, 0].set_ylabel("µs a sample")
    axes[1, 0].set_ylabel("peak memory beyond the model, MB")
    axes[0, 0].legend()
    figure.savefig(path, dpi=120)


def page(points: list[Point], arguments: argparse.Namespace) -> str:
    """The result page."""
    command = f"python -m benchmarks.scaling --rounds {arguments.rounds}"
    where = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if arguments.device != "cpu":
        command += f" --device {arguments.device}"
        where = torch.cuda.get_device_name(arguments.device)
    lines = [
        "# Scaling",
        "",
        f"```console\n{command}\n```",
        "",
        f"{platform.machine()}, {where}, torch {version('torch')}, Python "
        f"{platform.python_version()}. A perceptron: squared norms of all layers by *{OURS}*, and "
        f"*{FIT}* Fisher matrices (two passes and the eigenbases), with "
        f'`batch_size="auto"`, beside ordinary forward and backward passes over batches of '
        f"{ORDINARY_BATCH}. Medians; memory is the growth of the largest resident set, or of what "
        "CUDA allocates, beyond the model and the data.",
        "",
        "![Time a sample and peak memory over samples and parameters](scaling.png)",
        "",
        f"| samples | parameters | {' | '.join(f'{name}, µs a sample' for name in SERIES)} "
        f"| {' | '.join(f'{name}, MB' for name in SERIES)} |",
        "|---:" * (2 + 2 * len(SERIES)) + "|",
    ]
    for start in range(0, len(points), len(SERIES)):
        row = points[start : start + len(SERIES)]
        times = [f"{1e6 * point.seconds:.1f}" for point in row]
        memory = [f"{point.memory / 1e6:.0f}" for point in row]
        sizes = [f"{row[0].n:,}", f"{row[0].parameters:,}"]
        lines.append(f"| {' | '.join(sizes + times + memory)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()

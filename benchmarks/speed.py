"""What per-sample layer gradients cost, as a ratio to one ordinary forward and backward pass.

    python -m benchmarks.speed --batch-size 64 256

times the strategies of the engine and an ordinary pass in turn in one process, on the models of
``benchmarks/zoo.py``, takes medians, and measures peak memory in a process for each. Writes
``docs/results/speed.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.zoo import ZOO
from skgradood.gradients import GradientEngine, SquaredNorms, layer_layout

ROOT = Path(__file__).resolve().parent.parent
ORDINARY = "forward + backward"
# Slow strategies are timed on a few samples, and their time is scaled to the batch.
SAMPLES_OF_SLOW_STRATEGIES = 16


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(ZOO), default=list(ZOO))
    parser.add_argument("--batch-size", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each method")
    parser.add_argument("--results-dir", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        name, method, n = arguments.memory_of
        print(json.dumps(own_peak_memory(name, method, int(n))))
        return
    lines = []
    for n in arguments.batch_size:
        for name in arguments.models:
            lines.append(measured(name, n, arguments.rounds))
            print(lines[-1], flush=True)
    arguments.results_dir.mkdir(parents=True, exist_ok=True)
    (arguments.results_dir / "speed.md").write_text(page(lines, arguments), encoding="utf-8")


def measured(name: str, n: int, rounds: int) -> str:
    """One line of the table."""
    torch.manual_seed(0)
    module, X = ZOO[name].make().eval(), ZOO[name].batch(n)
    few = min(n, SAMPLES_OF_SLOW_STRATEGIES)
    ours = runner(module, "capture", X)
    times = interleaved({ORDINARY: runner(module, ORDINARY, X), "capture": ours}, rounds)
    slow = interleaved(
        {strategy: runner(module, strategy, X[:few]) for strategy in ("func", "loop")}, 3
    )
    ordinary = times[ORDINARY]
    memory = {method: peak_memory(name, method, n) for method in (ORDINARY, "capture")}
    cells = [
        name,
        n,
        f"{sum(p.numel() for p in module.parameters()):,}",
        f"{1e3 * ordinary:.0f}",
        f"**{times['capture'] / ordinary:.2f}**",
        f"{slow['func'] * n / few / ordinary:.1f}",
        f"{slow['loop'] * n / few / ordinary:.1f}",
        f"{n / times['capture']:.0f}",
        f"{memory['capture'] / memory[ORDINARY]:.2f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def runner(module: nn.Module, method: str, X: Tensor) -> Callable[[], object]:
    """What is timed: an ordinary pass over a batch, or squared norms of all layers."""
    if method == ORDINARY:
        parameters = list(module.parameters())
        return lambda: torch.autograd.grad(module.log_prob(X).sum(), parameters, allow_unused=True)
    engine = GradientEngine(module, engine=method, batch_size=len(X))
    return lambda: engine.run(X, SquaredNorms(layer_layout(module)))


def interleaved(runners: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, run in turn, after one round that warms up."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds + 1):
        for name, run in runners.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    return {name: median(values[1:]) for name, values in times.items()}


def peak_memory(name: str, method: str, n: int) -> float:
    """Bytes that a method needs beyond the loaded model, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed", "--memory-of", name, method, str(n)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout))


def own_peak_memory(name: str, method: str, n: int) -> float:
    """Growth of this process's largest resident set by two runs of a method."""
    torch.manual_seed(0)
    module, X = ZOO[name].make().eval(), ZOO[name].batch(n)
    runner(module, method, X[:2])()
    before = largest_resident_set()
    run = runner(module, method, X)
    run()
    run()
    return largest_resident_set() - before


def largest_resident_set() -> float:
    """Bytes. Linux's rusage would count the process that started this one, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024.0 * float(line.split()[1])
    raise OSError("/proc/self/status does not tell the largest resident set")


def page(lines: list[str], arguments: argparse.Namespace) -> str:
    """The result page."""
    sizes = " ".join(map(str, arguments.batch_size))
    command = f"python -m benchmarks.speed --batch-size {sizes} --rounds {arguments.rounds}"
    header = [
        "# Speed",
        "",
        f"```console\n{command}\n```",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {version('torch')}, Python {platform.python_version()}. Ratios to one ordinary "
        "forward and backward pass over the same batch, run in turn in the same process; medians. "
        '*capture* is what `engine="auto"` uses on all of these models; *func* (`vmap` over '
        f"`grad`) and *loop* are timed on {SAMPLES_OF_SLOW_STRATEGIES} samples and scaled. Memory "
        "is the growth of the largest resident set.",
        "",
        "| model | batch | parameters | ordinary, ms | capture | func | loop | capture, images/s "
        "| memory of capture |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    return "\n".join([*header, *lines, ""])


if __name__ == "__main__":
    main()

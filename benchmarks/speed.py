"""What per-sample layer gradients cost, as a ratio to one ordinary forward and backward pass.

    python -m benchmarks.speed --batch-size 64 256

times the methods of ``benchmarks/methods.py`` in turn in one process, on the models of
``benchmarks/zoo.py``, takes medians, and measures peak memory in a process for each. Other
libraries (``pip install skgradood[peers]``, or leave them out by ``--methods``) are compared with
a plain loop first. Writes ``docs/results/speed.md``.
"""

from __future__ import annotations

import argparse
import json
import math
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

from benchmarks.methods import FEW, METHODS, ORDINARY, OURS
from benchmarks.peers import PEERS, WRONG, Refused, check_peer, quiet
from benchmarks.zoo import LARGE, ZOO
from skgradood import layer_gradient_norms
from skgradood.gradients import StrategyRefused

ROOT = Path(__file__).resolve().parent.parent
MODELS = ZOO | LARGE
# glibc gives large blocks back to the system and asks for them again, page by page: on a VAE this
# may take as long as all computation, and who pays for it depends on what was done before.
KEPT_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
# A run of a small model takes several batches: what a pass over many rows takes once is no part of
# what a batch takes, and a clock is no judge of a millisecond.
LEAST_SECONDS = 0.05


def main() -> None:
    """Run the benchmark that the command line asks for."""
    arguments = parsed()
    if arguments.memory_of:
        name, method, n = arguments.memory_of
        print(json.dumps(own_peak_memory(name, method, int(n), arguments.device)))
        return
    restart_with_kept_memory()
    models = [*arguments.models, *(LARGE if arguments.large else ())]
    table = Table(arguments.methods)
    for n in arguments.batch_size:
        for name in models:
            print(table.add(name, n, arguments), flush=True)
    arguments.results_dir.mkdir(parents=True, exist_ok=True)
    (arguments.results_dir / arguments.page).write_text(table.page(arguments), encoding="utf-8")


def restart_with_kept_memory() -> None:
    """Start again with an allocator that gives nothing back, where variables can tell it to."""
    if platform.libc_ver()[0] == "glibc" and not KEPT_MEMORY.keys() <= os.environ.keys():
        os.execve(sys.executable, sys.orig_argv, os.environ | KEPT_MEMORY)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(ZOO))
    parser.add_argument("--large", action="store_true", help="the largest models, too")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--batch-size", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each method")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results-dir", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--page", default="speed.md", help="the name of the result page")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.methods = [m for m in METHODS if m in {ORDINARY, OURS, *arguments.methods}]
    return arguments


class Table:
    """The table of ratios, and why some of its cells are empty."""

    def __init__(self, methods: list[str]) -> None:
        self.methods = [method for method in methods if method != ORDINARY]
        self.lines: list[str] = []
        self.reasons: dict[str, int] = {}

    def add(self, name: str, n: int, arguments: argparse.Namespace) -> str:
        """Measure a model, and return its line."""
        module, X = made(name, n, arguments.device)
        cells = {method: self._verdict(method, name, module, X) for method in self.methods}
        running = [ORDINARY, *(method for method, cell in cells.items() if cell is None)]
        rows = {method: METHODS[method].rows(module, n) for method in running}
        passes = batches_a_run(module, X, arguments.device)
        runners = {
            m: METHODS[m].start(module, torch.cat([X[: rows[m]]] * passes), rows[m])
            for m in running
        }
        with quiet():
            times = interleaved(runners, arguments.rounds, arguments.device)
        del runners
        seconds = {method: t * n / rows[method] / passes for method, t in times.items()}
        for method in running[1:]:
            cells[method] = f"{seconds[method] / seconds[ORDINARY]:.2f}"
        cells[OURS] = f"**{cells[OURS]}**"
        peaks = {m: peak_memory(name, m, n, arguments.device) for m in (ORDINARY, OURS)}
        line = [
            name,
            n,
            f"{sum(p.numel() for p in module.parameters()):,}",
            f"{1e3 * seconds[ORDINARY]:.1f}",
            *cells.values(),
            f"{n / seconds[OURS]:.0f}",
            f"{peaks[OURS] / max(peaks[ORDINARY], 1):.2f}",
        ]
        self.lines.append(f"| {' | '.join(map(str, line))} |")
        return self.lines[-1]

    def _verdict(self, method: str, name: str, module: nn.Module, X: Tensor) -> str | None:
        """What stands in a cell without a time; None if the method is right, and is timed."""
        try:
            if method == "func":
                layer_gradient_norms(module, X[:2], engine="func", verify=False)
            if method not in PEERS:
                return None
            error = check_peer(method, module, X)
        except (Refused, StrategyRefused) as refusal:
            return f"refuses[^{self._number(f'{method}, {name}: {str(refusal)[:160]}')}]"
        return f"wrong ({error:.2g})" if error > WRONG else None

    def _number(self, reason: str) -> int:
        return self.reasons.setdefault(reason, len(self.reasons) + 1)

    def page(self, arguments: argparse.Namespace) -> str:
        """The result page."""
        columns = ["model", "batch", "parameters", "ordinary, ms", *self.methods]
        columns += [f"{OURS}, samples/s", f"memory of {OURS}"]
        rule = "|---" + "|---:" * (len(columns) - 1) + "|"
        notes = [f"[^{number}]: {reason}" for reason, number in self.reasons.items()]
        return "\n".join(
            [*heading(arguments), f"| {' | '.join(columns)} |", rule, *self.lines, "", *notes, ""]
        )


def heading(arguments: argparse.Namespace) -> list[str]:
    """What was run where, and how to read the table."""
    sizes = " ".join(map(str, arguments.batch_size))
    command = f"python -m benchmarks.speed --batch-size {sizes} --rounds {arguments.rounds}"
    command += " --large" if arguments.large else ""
    where = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if arguments.device != "cpu":
        command += f" --device {arguments.device}"
        where = torch.cuda.get_device_name(arguments.device)
    peers = [name for name in PEERS if name in arguments.methods]
    compared = (
        f" {', '.join(peers)} get the same batch, or as much of it as memory allows, and are "
        f"*wrong* where a squared norm is off by more than {WRONG:g} relatively (the largest error "
        "is given), and *refuse* where they fail or leave a parameter out."
    )
    return [
        "# Speed",
        "",
        f"```console\n{command}\n```",
        "",
        f"{platform.machine()}, {where}, torch {version('torch')}, Python "
        f"{platform.python_version()}. Ratios to one ordinary forward and backward pass over the "
        "same batch, run in turn in the same process; medians. Where a batch takes less than "
        f"{1e3 * LEAST_SECONDS:.0f} ms, a run passes over as many as take that, and "
        "what it takes once is shared by them. "
        f"{allocator()}"
        f'*{OURS}* is what `engine="auto"` uses on all of these models; *func* (`vmap` over '
        f"`grad`) and *loop* are timed on {FEW} samples and scaled. Memory is the growth of the "
        "largest resident set, or what CUDA allocates, relative to the ordinary pass. "
        "*norms + diagonal + EKFAC* are all three statistics of all layers from one pass, and "
        "*fit of both* is the second pass of estimating their Fisher matrices."
        + (compared if peers else ""),
        "",
    ]


def allocator() -> str:
    """How memory was allocated, a sentence with a space; nothing where it is as everywhere."""
    if not KEPT_MEMORY.keys() <= os.environ.keys():
        return ""
    settings = " ".join(f"{key}={os.environ[key]}" for key in KEPT_MEMORY)
    return f"glibc gives no memory back ({settings}), except where memory is measured. "


def made(name: str, n: int, device: str) -> tuple[nn.Module, Tensor]:
    """A model and a batch for it, the same every time."""
    torch.manual_seed(0)
    entry = MODELS[name]
    return entry.make().eval().to(device), entry.batch(n).to(device)


def batches_a_run(module: nn.Module, X: Tensor, device: str) -> int:
    """As many as an ordinary pass takes `LEAST_SECONDS` for."""
    run = METHODS[ORDINARY].start(module, X, len(X))
    times = []
    for _ in range(3):
        wait(device)
        started = time.perf_counter()
        run()
        wait(device)
        times.append(time.perf_counter() - started)
    return math.ceil(LEAST_SECONDS / min(times))


def interleaved(
    runners: dict[str, Callable[[], object]], rounds: int, device: str
) -> dict[str, float]:
    """Median seconds of each, run in turn, after one round that warms up."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(rounds + 1):
        for name, run in runners.items():
            if turn > (METHODS[name].rounds or rounds):
                continue
            wait(device)
            started = time.perf_counter()
            run()
            wait(device)
            times[name].append(time.perf_counter() - started)
    return {name: median(values[1:]) for name, values in times.items()}


def wait(device: str) -> None:
    """Until an accelerator has done what it was told."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def peak_memory(name: str, method: str, n: int, device: str) -> float:
    """Bytes that a method needs beyond the loaded model, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed", "--device", device]
    command += ["--memory-of", name, method, str(n)]
    usual = {key: value for key, value in os.environ.items() if key not in KEPT_MEMORY}
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=usual)
    return float(json.loads(done.stdout))


def own_peak_memory(name: str, method: str, n: int, device: str) -> float:
    """Growth of this process's largest memory by two runs of a method."""
    module, X = made(name, n, device)
    METHODS[method].start(module, X[:2], 2)()
    before = largest_memory(device)
    run = METHODS[method].start(module, X, n)
    run()
    run()
    return largest_memory(device) - before


def largest_memory(device: str) -> float:
    """Bytes. Linux's rusage would count the process that started this one, too."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device))
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024.0 * float(line.split()[1])
    raise OSError("/proc/self/status does not tell the largest resident set")


if __name__ == "__main__":
    main()

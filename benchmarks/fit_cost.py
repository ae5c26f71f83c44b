"""What fitting Fisher matrices on many images costs, and that memory does not grow with them.

    python -m benchmarks.fit_cost --models VAE --images 1000 10000

fits a `FisherPreconditioner` with diagonal and EKFAC approximations (two passes over all images,
one half of which is held out from each of two matrices) and transforms the same images, in a
process of its own for every number of images. Times are ratios to as many passes of ordinary
forward and backward over the same images in the same process; memory is the growth of the
largest resident set beyond model and images.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.methods import METHODS, ORDINARY
from benchmarks.speed import ROOT, largest_memory, made
from skgradood import FisherPreconditioner

_ORDINARY_BATCH = 64


def main() -> None:
    """Print a line for every model and number of images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["VAE"])
    parser.add_argument("--images", nargs="+", type=int, default=[1000, 10_000])
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(measured(arguments.point[0], int(arguments.point[1]))))
        return
    print("| model | images | fit | transform | fit, s | memory of ordinary, MB | memory, MB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for model in arguments.models:
        for n in arguments.images:
            fit, transform, ordinary, before, after = in_own_process(model, n)
            print(
                f"| {model} | {n:,} | {fit / (2 * ordinary):.2f} | {transform / ordinary:.2f} "
                f"| {fit:.0f} | {before / 1e6:.0f} | {after / 1e6:.0f} |",
                flush=True,
            )


def measured(model: str, n: int) -> tuple[float, float, float, float, float]:
    """Seconds of fit, transform and one ordinary pass; memory growth of the latter, and of all."""
    module, X = made(model, n, "cpu")
    start = largest_memory("cpu")

    def ordinary() -> None:
        for rows in X.split(_ORDINARY_BATCH):
            METHODS[ORDINARY].start(module, rows, len(rows))()

    ordinary_seconds = _seconds(ordinary)
    before = largest_memory("cpu") - start
    transformer = FisherPreconditioner(module, approximation=("diagonal", "ekfac"), random_state=0)
    images = X.numpy()
    fit = _seconds(lambda: transformer.fit(images))
    transform = _seconds(lambda: transformer.transform(images))
    return fit, transform, ordinary_seconds, before, largest_memory("cpu") - start


def in_own_process(model: str, n: int) -> tuple[float, ...]:
    """The same, where nothing else has taken memory before."""
    command = [sys.executable, "-m", "benchmarks.fit_cost", "--point", model, str(n)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return tuple(json.loads(done.stdout))


def _seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

"""Likelihood regret: all samples at once against one after another.

    python -m benchmarks.regret --device auto --n-steps 100

optimises a copy of the encoder of a VAE (1 x 32 x 32, 32 channels) for every image, with
``LikelihoodRegretDetector`` and with a loop over images as in published code, in turn in one
process, and compares time and scores. Writes ``docs/results/regret.md``.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from skgradood.detectors import LikelihoodRegretDetector
from skgradood.models import VAE
from skgradood.models._batches import resolve_device

ROOT = Path(__file__).resolve().parent.parent
LR = 1e-4


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--n-images", type=int, default=256, help="images optimised at once")
    parser.add_argument("--n-loop", type=int, default=8, help="images the loop is timed on")
    parser.add_argument("--n-steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--results-dir", type=Path, default=ROOT / "docs" / "results")
    arguments = parser.parse_args()
    text = page(arguments, *measured(arguments))
    print(text)
    arguments.results_dir.mkdir(parents=True, exist_ok=True)
    (arguments.results_dir / "regret.md").write_text(text, encoding="utf-8")


def measured(arguments: argparse.Namespace) -> tuple[dict[str, float], float]:
    """Images a second by method, and the largest relative difference of the scores."""
    device = resolve_device(arguments.device)
    torch.manual_seed(0)
    module = VAE((1, 32, 32)).to(device, getattr(torch, arguments.dtype)).eval()
    images = np.random.default_rng(0).integers(
        0, 256, (arguments.n_images, 1, 32, 32), dtype=np.uint8
    )
    few = images[: arguments.n_loop]
    detectors = {
        over: LikelihoodRegretDetector(
            module, over=over, n_steps=arguments.n_steps, lr=LR, device=device
        ).fit(few)
        for over in ("encoder", "posterior")
    }
    loop = torch.as_tensor(few, device=device)
    runners: dict[str, tuple[int, Callable[[], np.ndarray]]] = {
        "loop": (len(few), lambda: looped(module, loop, arguments.n_steps)),
        "encoder": (len(images), lambda: detectors["encoder"].score_samples(images)),
        "posterior": (len(images), lambda: detectors["posterior"].score_samples(images)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    scores: dict[str, np.ndarray] = {}
    for _ in range(arguments.rounds + 1):
        for name, (_, run) in runners.items():
            started = time.perf_counter()
            scores[name] = run()
            seconds[name].append(time.perf_counter() - started)
    rates = {name: n / median(seconds[name][1:]) for name, (n, _) in runners.items()}
    ours = scores["encoder"][: len(few)]
    return rates, float(np.max(np.abs(ours / scores["loop"] - 1)))


def looped(module: nn.Module, images: Tensor, n_steps: int) -> np.ndarray:
    """Minus the regret of every image, one image and one copy of the model after another."""
    scores = []
    for image in images:
        own = copy.deepcopy(module)
        encoder = nn.ModuleList([own.encoder, own.to_mean, own.to_log_variance])
        update = torch.optim.Adam(encoder.parameters(), lr=LR)
        bounds = []
        for _ in range(n_steps + 1):
            value = own.log_prob(image[None]).sum()
            bounds.append(value.item())
            update.zero_grad()
            (-value).backward()
            update.step()
        scores.append(bounds[0] - max(bounds))
    return np.array(scores)


def page(arguments: argparse.Namespace, rates: dict[str, float], difference: float) -> str:
    """The result page."""
    command = f"python -m benchmarks.regret --device {arguments.device} --n-images "
    command += f"{arguments.n_images} --n-steps {arguments.n_steps} --dtype {arguments.dtype}"
    device = resolve_device(arguments.device)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        machine += f", {torch.cuda.get_device_name(device)}"
    lines = [
        "# Likelihood regret",
        "",
        f"```console\n{command}\n```",
        "",
        f"{machine}, torch {version('torch')}. {arguments.n_steps} steps of Adam for every image "
        f"of 1 x 32 x 32. The loop, as in published code, is timed on {arguments.n_loop} images, "
        f"the detector on {arguments.n_images}; medians of {arguments.rounds} runs in turn. "
        f"Largest relative difference of the scores: {difference:.1e}.",
        "",
        "| method | images/s | times the loop |",
        "|---|---:|---:|",
    ]
    names = {
        "loop": "loop over images",
        "encoder": '`over="encoder"`',
        "posterior": '`over="posterior"`',
    }
    lines += [
        f"| {names[name]} | {rate:.2f} | {rate / rates['loop']:.1f} |"
        for name, rate in rates.items()
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()

"""Likelihood regret: all samples at once against one after another.

    OMP_NUM_THREADS=1 python -m benchmarks.regret --device cpu

optimises a copy of the encoder of a VAE for every image, with ``LikelihoodRegretDetector`` and with
a loop over images as in published code, in turn in one process, and compares time and scores, for a
small VAE and for that of ROSE, both trained on the bundled digits. Writes
``docs/results/regret.md``.
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
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from skgradood.datasets import load_digits_ood
from skgradood.detectors import LikelihoodRegretDetector
from skgradood.models import VAE, GenerativeNet
from skgradood.models._batches import resolve_device

ROOT = Path(__file__).resolve().parent.parent
LR = 1e-4
# A little training, so that there is something to regret.
N_TRAIN = 640
METHODS = {
    "loop": "loop over images",
    "encoder": '`over="encoder"`',
    "posterior": '`over="posterior"`',
}


class Model(NamedTuple):
    """A VAE by the arguments of its constructor, and how many images the detector is timed on."""

    description: str
    arguments: dict[str, Any]
    n_images: int


MODELS = {
    "digits": Model(
        "VAE of 1 x 8 x 8, width 16, latent 16",
        {"input_shape": (1, 8, 8), "width": 16, "latent_dim": 16},
        256,
    ),
    "rose": Model(
        "VAE of ROSE, 1 x 32 x 32, width 32, latent 100", {"input_shape": (1, 32, 32)}, 24
    ),
}


class Measured(NamedTuple):
    """What one method does: images a second, and floating-point operations an image."""

    rate: float
    flops: float


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--n-images", type=int, help="images that the detector is timed on")
    parser.add_argument("--n-loop", type=int, default=8, help="images the loop is timed on")
    parser.add_argument("--n-steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--results-dir", type=Path, default=ROOT / "docs" / "results")
    arguments = parser.parse_args()
    sections = [section(name, arguments, *measured(name, arguments)) for name in arguments.models]
    text = "\n".join([*preamble(arguments), *sections])
    print(text)
    arguments.results_dir.mkdir(parents=True, exist_ok=True)
    (arguments.results_dir / "regret.md").write_text(text, encoding="utf-8")


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds of this process alone where it has one thread, of the wall where it has more."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def measured(
    name: str, arguments: argparse.Namespace
) -> tuple[dict[str, Measured], np.ndarray, np.ndarray]:
    """Figures by method, and the same images' scores by the loop and by the detector."""
    device = resolve_device(arguments.device)
    n_images = arguments.n_images or MODELS[name].n_images
    module, images = trained(MODELS[name], n_images, arguments.dtype)
    module = module.to(device).eval()
    few, steps = images[: arguments.n_loop], arguments.n_steps
    detectors = {
        over: LikelihoodRegretDetector(module, over=over, n_steps=steps, lr=LR, device=device).fit(
            few
        )
        for over in ("encoder", "posterior")
    }
    runners: dict[str, tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]] = {
        "loop": (few, lambda X: looped(module, torch.as_tensor(X, device=device), steps)),
        "encoder": (images, detectors["encoder"].score_samples),
        "posterior": (images, detectors["posterior"].score_samples),
    }
    clock = clock_of(device)
    seconds: dict[str, list[float]] = {method: [] for method in runners}
    scores: dict[str, np.ndarray] = {}
    flops: dict[str, float] = {}
    for method, (_, run) in runners.items():  # not timed
        with FlopCounterMode(display=False) as counter:
            run(few)
        flops[method] = counter.get_total_flops() / len(few)
    for _ in range(arguments.rounds):
        for method, (X, run) in runners.items():
            started = clock()
            scores[method] = run(X)
            seconds[method].append(clock() - started)
    figures = {
        method: Measured(len(X) / median(seconds[method]), flops[method])
        for method, (X, _) in runners.items()
    }
    return figures, scores["loop"], scores["encoder"][: len(few)]


def trained(model: Model, n_images: int, dtype: str) -> tuple[nn.Module, np.ndarray]:
    """A VAE of the bundled digits, in the size that it takes, and fresh images of them."""
    digits = load_digits_ood(random_state=0)
    options = {f"module__{name}": value for name, value in model.arguments.items()}
    enlarge = np.ones((options["module__input_shape"][1] // digits.train.shape[-1],) * 2, np.uint8)
    net = GenerativeNet(
        VAE, max_epochs=1, batch_size=32, lr=2e-3, dtype=dtype, random_state=0, **options
    ).fit(np.kron(digits.train[:N_TRAIN], enlarge))
    return net.module_, np.kron(digits.test[:n_images], enlarge)[:, None]


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


def preamble(arguments: argparse.Namespace) -> list[str]:
    """Head of the page: what was run, on what."""
    command = f"python -m benchmarks.regret --device {arguments.device} --n-loop "
    command += f"{arguments.n_loop} --n-steps {arguments.n_steps} --rounds {arguments.rounds} "
    command += f"--dtype {arguments.dtype}"
    if arguments.n_images:
        command += f" --n-images {arguments.n_images}"
    device = resolve_device(arguments.device)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        machine += f", {torch.cuda.get_device_name(device)}"
    clock = "processor time" if clock_of(device) is time.process_time else "wall-clock time"
    return [
        "# Likelihood regret",
        "",
        f"```console\n{command}\n```",
        "",
        f"{machine}, torch {version('torch')}; a product of two matrices of 1024 x 1024 runs at "
        f"{product_rate(device) / 1e9:.0f} GFLOP/s. Models trained for one epoch on "
        f"{N_TRAIN} digits; {arguments.n_steps} steps of Adam for every one of some fresh digits. "
        f"The loop, as in published code, is timed on {arguments.n_loop} of them; medians of "
        f"{arguments.rounds} runs in turn, {clock}. FLOP are those of convolutions and matrix "
        "products, forwards and backwards.",
        "",
    ]


def product_rate(device: torch.device) -> float:
    """FLOP/s of a product of two square matrices."""
    size, n_runs = 1024, 10
    a = torch.ones(size, size, device=device)
    clock = clock_of(device)
    (a @ a).sum().item()
    started = clock()
    for _ in range(n_runs):
        b = a @ a
    b.sum().item()
    return n_runs * 2 * size**3 / (clock() - started)


def section(
    name: str,
    arguments: argparse.Namespace,
    figures: dict[str, Measured],
    looped_scores: np.ndarray,
    scores: np.ndarray,
) -> str:
    """The table of one model."""
    loop = figures["loop"]
    rows = [
        f"| {METHODS[method]} | {found.rate:.2f} | {found.rate / loop.rate:.1f} | "
        f"{found.flops / (arguments.n_steps + 1) / 1e6:.1f} | "
        f"{found.flops * found.rate / 1e9:.1f} |"
        for method, found in figures.items()
    ]
    return "\n".join(
        [
            f"## {MODELS[name].description}",
            "",
            f"The detector on {arguments.n_images or MODELS[name].n_images} images:",
            "",
            "| method | images/s | times the loop | MFLOP an image and step | GFLOP/s |",
            "|---|---:|---:|---:|---:|",
            *rows,
            "",
            f"Regrets of {np.abs(scores).min():.2f} to {np.abs(scores).max():.2f} nats; largest "
            f'relative difference between loop and `over="encoder"`: '
            f"{np.abs(scores / looped_scores - 1).max():.1e}.",
            "",
        ]
    )


if __name__ == "__main__":
    main()

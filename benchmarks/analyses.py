"""The papers' analyses of likelihoods and detectors, on real images.

    python -m benchmarks.analyses --data-dir DIR --model vae likelihoods brightness

takes the model of ``benchmarks.ood`` (from its cache, or trains it), makes the analyses named, of
`ANALYSES`, prints their numbers and saves each as a figure in ``docs/figures``. DIR is that of
``benchmarks.ood``. What is drawn is kept in the cache: ``--redraw`` draws it again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib

from benchmarks.analyses_detectors import brightness, fisher, runtime
from benchmarks.analyses_likelihoods import fourier, hsv, likelihoods, low_level, scales
from benchmarks.analyses_subject import Subject
from benchmarks.features import ROOT, argument_parser, trained
from benchmarks.images import load_division
from benchmarks.presets import PRESETS


@dataclass(frozen=True)
class Analysis:
    """How a display is made, and how it is drawn."""

    make: Callable[[Subject], Any]
    plot_options: dict[str, Any] = field(default_factory=dict)


ANALYSES: dict[str, Analysis] = {
    "likelihoods": Analysis(likelihoods, {"unit": "bits_per_dim"}),
    "brightness": Analysis(brightness),
    "fisher": Analysis(fisher, {"scale": "log", "chance": None}),
    "fourier": Analysis(fourier),
    "low_level": Analysis(low_level),
    "scales": Analysis(scales),
    "runtime": Analysis(runtime),
    "hsv": Analysis(hsv),
}


def main() -> None:
    """Make the analyses that the command line names."""
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("analyses", nargs="+", choices=ANALYSES)
    parser.add_argument("--n-repetitions", type=int, default=2, help="of the sweep over counts")
    parser.add_argument("--figures-dir", type=Path, default=ROOT / "docs" / "figures")
    parser.add_argument("--redraw", action="store_true", help="from the cache, measuring nothing")
    arguments = parser.parse_args()
    subject = None if arguments.redraw else _subject(arguments)
    for name in arguments.analyses:
        path = arguments.cache_dir / f"analysis-{name}-{arguments.model}.joblib"
        if subject is not None:
            print(f"## {name}, {arguments.model}", flush=True)
            joblib.dump(ANALYSES[name].make(subject), path)
        figure = joblib.load(path).plot(**ANALYSES[name].plot_options).figure_
        figure.savefig(arguments.figures_dir / f"{name}-{arguments.model}.png", dpi=90)


def _subject(arguments: argparse.Namespace) -> Subject:
    division = load_division(
        arguments.data_dir,
        arguments.train,
        size=PRESETS[arguments.model].image_size[arguments.train],
        n_test=arguments.n_test,
        n_ood=arguments.n_ood,
        seed=arguments.seed,
    )
    return Subject(trained(division, arguments)[0], division, arguments)


if __name__ == "__main__":
    main()

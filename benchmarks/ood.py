"""Out-of-distribution detection on real images, with every step of the package.

    python -m benchmarks.ood --data-dir DIR --train fashion_mnist --model vae

trains a model (once: it is cached), extracts features once, compares detectors on nine
out-of-distribution sets, and writes the table to ``docs/results``. DIR holds the ``.npz`` files
named in ``benchmarks/images.py``, each with uint8 images under ``images``.
"""

from __future__ import annotations

from typing import Any

from benchmarks.detectors import (
    CONTROL_TABLE,
    PAPERS_TABLE,
    RECOMMENDED_TABLE,
    control_detectors,
    paper_detectors,
)
from benchmarks.features import Features, argument_parser, extracted, trained
from benchmarks.images import Division, load_division
from benchmarks.presets import PRESETS
from benchmarks.results import Run, write_results
from skgradood.baselines import baseline_detectors
from skgradood.evaluation import Comparison, compare_detectors


def main() -> None:
    """Run the benchmark that the command line asks for."""
    arguments = argument_parser(__doc__.splitlines()[0]).parse_args()
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
    ours = extracted(net, division, arguments, RECOMMENDED_TABLE)
    papers = extracted(net, division, arguments, PAPERS_TABLE)
    control = extracted(net, division, arguments, CONTROL_TABLE)
    seed = arguments.seed
    comparison = merged(
        compared(ours, baseline_detectors(ours.names, random_state=seed), division),
        compared(papers, paper_detectors(papers.names), division),
        compared(control, control_detectors(control.names, random_state=seed), division),
    )
    run = Run(
        train=arguments.train,
        model=arguments.model,
        description=f"{preset.description}, {preset.epochs[arguments.train]} epochs",
        seed=arguments.seed,
        n_layers=sum(name.endswith("__identity") for name in ours.names),
        bits_per_dim=float(net.bits_per_dim(division.test[:1000]).mean()),
        training_seconds=training_seconds,
        images_per_second=ours.images_per_second,
        sizes={key: len(ours.values[key]) for key in ("reference", "calibration", "test")},
        n_ood=arguments.n_ood,
    )
    print(write_results(run, comparison, arguments.results_dir))


def compared(features: Features, detectors: dict[str, Any], division: Division) -> Comparison:
    """Detectors on one table of features."""
    return compare_detectors(
        detectors,
        features.values["reference"],
        features.values["test"],
        {name: features.values[name] for name in division.ood},
        X_calibration=features.values["calibration"],
    )


def merged(*comparisons: Comparison) -> Comparison:
    """One table with the detectors of all."""
    first, *others = comparisons
    for other in others:
        metrics = {
            metric: {ood: row | other.metrics[metric][ood] for ood, row in table.items()}
            for metric, table in first.metrics.items()
        }
        rates = first.false_positive_rate | other.false_positive_rate
        first = Comparison(metrics, rates, first.alpha)
    return first


if __name__ == "__main__":
    main()

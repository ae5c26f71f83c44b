"""ROSE beside its published row, and what each of its conditions is worth.

    python -m benchmarks.rose --data-dir DIR

takes the VAE of ``benchmarks/ood.py`` from the same cache, estimates Fisher matrices from
different numbers of its own training images and in both bases, and compares ROSE with EKFAC over
all layers and over the encoder's, normalised by images that the matrices have and have not seen.
Omniglot comes in both polarities. The page goes to ``docs/results/rose.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import joblib
import numpy as np

from benchmarks.features import argument_parser, trained
from benchmarks.images import Division, load_division
from benchmarks.presets import PRESETS
from skgradood import RoseDetector
from skgradood.fisher import FisherEstimate, FisherOptions, QuadraticForms
from skgradood.gradients import GradientEngine, layer_layout
from skgradood.metrics import auroc
from skgradood.models._fitted import LikelihoodModel

PUBLISHED = {
    "MNIST": 0.995,
    "KMNIST": 0.997,
    "notMNIST": 1.000,
    "Omniglot": 1.000,
    "CIFAR-10 (grey)": 0.999,
    "SVHN (grey)": 1.000,
    "noise": 0.996,
    "constant": 1.000,
}
PUBLISHED_LIKELIHOOD = {
    "MNIST": 0.161,
    "KMNIST": 0.626,
    "notMNIST": 0.980,
    "Omniglot": 1.000,
    "CIFAR-10 (grey)": 1.000,
    "SVHN (grey)": 0.999,
    "noise": 1.000,
    "constant": 0.953,
}
INVERTED = "Omniglot, dark on light"
N_REFERENCE, N_TEST, N_OOD = 2000, 1500, 600


_HEADER = (
    "# ROSE beside its published row",
    "",
    "```console\npython -m benchmarks.rose --data-dir DIR\n```",
    "",
    "The VAE of [ood-fashion_mnist-vae](ood-fashion_mnist-vae.md) (4 epochs, the paper's has 100), "
    "its Fisher matrices from its own training images, damping 0.001 of the mean eigenvalue. "
    f"Normalised by {N_REFERENCE} other images of the training set, or by {N_REFERENCE} that are "
    f"in the matrices; {N_TEST} test images, {N_OOD} of each other set. The last condition of a "
    f"row is what it changes. *{INVERTED}* is 255 minus Omniglot.",
    "",
)


@dataclass(frozen=True)
class Fit:
    """One estimate of all Fisher matrices: from how many images, and in which eigenbasis."""

    n_images: int
    basis: str = "gradients"

    def __str__(self) -> str:
        return f"{self.n_images} images, basis of {self.basis}"


FITS = (Fit(300), Fit(2500), Fit(2500, "activations"), Fit(10_000))


def main() -> None:
    """Measure, print and write the page."""
    arguments = argument_parser(__doc__.splitlines()[0]).parse_args()
    division = load_division(
        arguments.data_dir,
        arguments.train,
        size=PRESETS[arguments.model].image_size[arguments.train],
        n_test=N_TEST,
        n_ood=N_OOD,
        seed=arguments.seed,
    )
    division.ood[INVERTED] = 255 - division.ood["Omniglot"]
    net, _ = trained(division, arguments)
    model = LikelihoodModel(net.module_, net, net.input_shape_)
    path = arguments.cache_dir / "rose.joblib"
    if not path.exists():
        joblib.dump(measured(model, division), path)
    text = page(*joblib.load(path))
    (arguments.results_dir / "rose.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def measured(model: LikelihoodModel, division: Division) -> tuple[list[str], dict]:
    """Names of the layers; EKFAC statistics (fits, n, L) and log-likelihoods of every part."""
    engine, layout = GradientEngine(model.module), layer_layout(model.module)

    def stream(images: np.ndarray) -> Callable:
        inputs = model.prepare(images)
        return lambda reducer: engine.run(inputs, reducer)

    estimates = []
    for fit in FITS:
        options = FisherOptions(basis=fit.basis)
        estimate = FisherEstimate.of_module(model.module, layout, ["ekfac"], options)
        estimates.append(estimate.fit(stream(division.model[: fit.n_images])).by_parameter)
        print(fit, flush=True)
    fitted = {name: [own[name][0] for own in estimates] for name in layout.slots}
    parts = {
        "reference": division.reference[:N_REFERENCE],
        "seen": division.model[:N_REFERENCE],
        "test": division.test,
        **division.ood,
    }
    tables = {}
    for part, images in parts.items():
        forms = QuadraticForms(layout, fitted)
        likelihoods = np.asarray(stream(images)(forms))
        tables[part] = np.stack(list(forms.result())), likelihoods
        print(part, flush=True)
    return list(layout.names), tables


@dataclass(frozen=True)
class Variant:
    """One way of running ROSE on the measured statistics."""

    title: str
    fit: int
    prefix: str = ""
    reference: str = "reference"
    logarithm: bool = False
    power: float = np.inf


def variants() -> Iterator[Variant]:
    """What is compared: one condition changed at a time."""
    for k, fit in enumerate(FITS):
        yield Variant(str(fit), k)
    last = len(FITS) - 1
    most = f"{FITS[last].n_images} images"
    yield Variant(f"{most}, layers of the encoder", last, "encoder")
    yield Variant(f"{most}, layers of the decoder", last, "decoder")
    yield Variant(f"{most}, sum of rectified scores", last, power=1)
    yield Variant(f"{most}, logarithms", last, logarithm=True)
    yield Variant(f"{most}, normalised by images in F", last, reference="seen")


def areas(variant: Variant, names: list[str], tables: dict) -> dict[str, float]:
    """AUROC of every set against the test images."""
    columns = [k for k, name in enumerate(names) if name.startswith(variant.prefix)]

    def statistics(part: str) -> np.ndarray:
        values = tables[part][0][variant.fit][:, columns]
        return np.log(np.maximum(values, np.finfo(float).tiny)) if variant.logarithm else values

    detector = RoseDetector(power=variant.power).fit(statistics(variant.reference))
    inliers = detector.score_samples(statistics("test"))
    return {
        name: auroc(inliers, detector.score_samples(statistics(name)))
        for name in tables
        if name not in ("reference", "seen", "test")
    }


def page(names: list[str], tables: dict) -> str:
    """The text of the result page."""
    sets = [name for name in tables if name not in ("reference", "seen", "test")]
    likelihood = {name: auroc(tables["test"][1], tables[name][1]) for name in sets}
    rows = [("published, ROSE with EKFAC", PUBLISHED)]
    rows += [(v.title, areas(v, names, tables)) for v in variants()]
    rows += [
        ("published, log-likelihood", PUBLISHED_LIKELIHOOD),
        ("log-likelihood", likelihood),
    ]
    lines = [*_HEADER, "| AUROC | " + " | ".join(sets) + " |", "|---|" + "---:|" * len(sets)]
    for title, values in rows:
        cells = [f"{values[name]:.3f}" if name in values else "" for name in sets]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

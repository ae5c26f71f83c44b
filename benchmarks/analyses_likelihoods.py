"""Analyses of what a likelihood depends on."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from sklearn.frozen import FrozenEstimator

from benchmarks.analyses_subject import Subject, report, report_correlations
from benchmarks.features import fitted
from benchmarks.presets import PRESETS
from skgradood import GenerativeNet, LogLikelihoodTransformer
from skgradood.complexity import code_lengths
from skgradood.datasets import load_images, mix_fourier, rgb_to_hsv
from skgradood.inspection import LikelihoodDisplay, RankCorrelationDisplay
from skgradood.metrics import auroc
from skgradood.models import PixelDifferenceModel

COLOUR_FILES = {
    "CIFAR-10": "cifar10_test5k.npz",
    "SVHN": "svhn_test6k.npz",
    "CelebA": "celeba_3k.npz",
}
OTHER_FILE, OTHER_NAME, OTHER_EPOCHS, OTHER_HELD_OUT = "kmnist_test.npz", "KMNIST", 6, 2000


def likelihoods(subject: Subject) -> LikelihoodDisplay:
    """Histograms of the log-likelihood, set by set."""
    display = LikelihoodDisplay.from_predictions(
        subject.log_likelihoods, n_features=subject.net.n_features_in_
    )
    bits = -1 / (subject.net.n_features_in_ * np.log(2))
    rows = [
        (name, bits * np.median(values), display.auroc_.get(name, np.nan))
        for name, values in subject.log_likelihoods.items()
    ]
    report(("set", "median bits/dim", "AUROC of the log-likelihood"), rows)
    return display


def fourier(subject: Subject) -> RankCorrelationDisplay:
    """Rank correlation of mixed images' likelihoods with those of their two sources."""
    test = subject.division.test
    own, other = np.array_split(test, 2)
    n = min(len(own), len(other))
    pairs = {"both Fashion-MNIST": (own[:n], other[:n])}
    for name in ("MNIST", "CIFAR-10 (grey)"):
        foreign = subject.division.ood[name][:n]
        pairs[f"amplitudes of {name}"] = (foreign, own[: len(foreign)])
        pairs[f"phases of {name}"] = (own[: len(foreign)], foreign)
    scores: dict[str, list[np.ndarray]] = {"mixed": [], "amplitude source": [], "phase source": []}
    for amplitude, phase in pairs.values():
        images = (mix_fourier(amplitude, phase), amplitude, phase)
        for values, X in zip(scores.values(), images, strict=True):
            values.append(subject.net.score_samples(X))
    columns = {name: np.concatenate(values) for name, values in scores.items()}
    display = RankCorrelationDisplay.from_predictions(
        {"mixed": columns.pop("mixed")},
        against=columns,
        groups=np.concatenate([np.repeat(name, len(pair[0])) for name, pair in pairs.items()]),
    )
    report_correlations(display)
    return display


def low_level(subject: Subject) -> RankCorrelationDisplay:
    """Rank correlation of the model's likelihood with densities that know little."""
    training, images = subject.division.model, list(subject.sets.values())
    densities = {
        "pixel differences": PixelDifferenceModel().fit(training),
        "pseudo-likelihood": PixelDifferenceModel(normalize=False).fit(training),
    }
    columns = {
        name: np.concatenate([density.score_samples(X) for X in images])
        for name, density in densities.items()
    }
    for codec in ("png", "zlib"):
        columns[f"minus {codec} length"] = -np.concatenate(
            [code_lengths(X[:, None], codec=codec) for X in images]
        )
    likelihood = np.concatenate(list(subject.log_likelihoods.values()))
    display = RankCorrelationDisplay.from_predictions(
        {subject.arguments.model: likelihood}, against=columns, groups=subject.groups
    )
    report_correlations(display)
    ends = np.cumsum([len(X) for X in images])[:-1]
    ratios = {name: likelihood - values for name, values in columns.items()}
    for title, by_name in (("AUROC by it alone", columns), ("AUROC of the ratio to it", ratios)):
        parts = {name: np.split(values, ends) for name, values in by_name.items()}
        rows = [
            (set_name, *(auroc(part[0], part[k]) for part in parts.values()))
            for k, set_name in enumerate(subject.sets)
            if k > 0
        ]
        report((title, *by_name), rows)
    return display


def scales(subject: Subject) -> RankCorrelationDisplay:
    """Rank correlations between the scales of two flows, trained on different images."""
    arguments = subject.arguments
    size = PRESETS[arguments.model].image_size[arguments.train]
    images = load_images(arguments.data_dir / OTHER_FILE, size=(size, size), mode="grey").data
    images = images[np.random.default_rng(arguments.seed).permutation(len(images))]
    other, _ = fitted(
        PRESETS[arguments.model].make(arguments.seed, OTHER_EPOCHS),
        images[OTHER_HELD_OUT:],
        arguments.cache_dir / f"{OTHER_NAME.lower()}-{arguments.model}",
    )
    held_out = images[: min(OTHER_HELD_OUT, arguments.n_ood)]
    print(f"{OTHER_NAME}: {other.bits_per_dim(held_out).mean():.3f} bits/dim on held-out images")
    sets = subject.sets | {OTHER_NAME: held_out}
    rows = of_scales(subject.net, sets, "Fashion-MNIST")
    columns = of_scales(other, sets, OTHER_NAME)
    groups = np.concatenate([np.repeat(name, len(X)) for name, X in sets.items()])
    report_correlations(
        RankCorrelationDisplay.from_predictions(rows, against=columns, groups=groups)
    )
    for name, values in {**rows, **columns}.items():
        by_set = {key: values[groups == key] for key in sets}
        inliers = by_set["Fashion-MNIST"]
        areas = [f"{key} {auroc(inliers, by_set[key]):.3f}" for key in list(sets)[1:]]
        print(f"AUROC by {name}: {', '.join(areas)}")
    shown = np.isin(groups, ["Fashion-MNIST", OTHER_NAME, "CIFAR-10 (grey)"])
    return RankCorrelationDisplay.from_predictions(
        {name: values[shown] for name, values in rows.items()},
        against={name: values[shown] for name, values in columns.items()},
        groups=groups[shown],
    )


def of_scales(
    net: GenerativeNet, sets: dict[str, np.ndarray], trained_on: str
) -> dict[str, np.ndarray]:
    """The log-likelihood of all images and what each scale contributes, by name."""
    transformer = LogLikelihoodTransformer(FrozenEstimator(net), contributions=True)
    transformer.fit(next(iter(sets.values())))
    parts = np.concatenate([transformer.transform(X) for X in sets.values()])
    columns = {f"{trained_on}, scale {k + 1}": part for k, part in enumerate(parts.T)}
    return columns | {f"{trained_on}, all": parts.sum(axis=1)}


class ChangeHistograms:
    """Histograms of changes of bits per dimension, by the name of the set."""

    def __init__(self, changes: dict[str, np.ndarray]) -> None:
        self.changes = changes

    def plot(self) -> ChangeHistograms:
        """Draw into a new figure, ``figure_``."""
        self.figure_ = Figure(figsize=(7, 3.4), layout="constrained")
        ax = self.figure_.subplots()
        for name, values in self.changes.items():
            ax.hist(values, bins=60, range=(-1, 3), histtype="step", linewidth=1.6, label=name)
        ax.set_xlabel("change of bits per dimension from RGB to HSV")
        ax.set_ylabel("images")
        ax.legend(frameon=False)
        return self


def hsv(subject: Subject) -> ChangeHistograms:
    """What representing colours by HSV does to bits/dim; no deep model takes part."""
    arguments = subject.arguments
    sets, change = {}, {}
    for name, file in COLOUR_FILES.items():
        images = load_images(arguments.data_dir / file, size=(32, 32), mode="rgb").data
        rng = np.random.default_rng(arguments.seed)
        sets[name] = images[rng.permutation(len(images))[: arguments.n_ood]]
        _, log_det = rgb_to_hsv(sets[name], random_state=arguments.seed)
        change[name] = log_det.sum(axis=(1, 2))
    training = load_images(arguments.data_dir / "cifar10_train20k.npz", mode="rgb").data
    model = PixelDifferenceModel().fit(training)
    rgb = {name: model.score_samples(images) for name, images in sets.items()}
    displays = [
        LikelihoodDisplay.from_predictions(values, n_features=3 * 32 * 32)
        for values in (rgb, {name: rgb[name] - change[name] for name in sets})
    ]
    to_bits = 1 / (3 * 32 * 32 * np.log(2))
    rows = [
        (
            name,
            to_bits * change[name].mean(),
            to_bits * change[name].std(),
            *(display.auroc_.get(name, np.nan) for display in displays),
        )
        for name in sets
    ]
    report(("set", "mean change in bits/dim", "std", "AUROC in RGB", "AUROC in HSV"), rows)
    return ChangeHistograms({name: to_bits * values for name, values in change.items()})

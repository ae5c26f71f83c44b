"""Analyses of what detectors find, and of what that takes."""

from __future__ import annotations

from functools import cache

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from benchmarks.analyses_subject import Subject, report, report_sweep
from skgradood import (
    ChiSquareJointDensity,
    FisherPreconditioner,
    GradientNormTransformer,
    LikelihoodRatioDetector,
    LogLikelihoodDetector,
    RoseDetector,
    ScoreTestDetector,
    TypicalityDetector,
    make_detector,
)
from skgradood.datasets import perturb
from skgradood.inspection import RuntimeDisplay, SweepDisplay
from skgradood.metrics import auroc
from skgradood.models import PixelDifferenceModel

FACTORS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8)
FISHER_COUNTS = (10, 30, 100, 300, 1000, 2500)
N_FISHER_REFERENCE = 300  # images that detectors are fitted on in that sweep


def brightness(subject: Subject) -> SweepDisplay:
    """AUROC of test images of changed brightness against other test images as they are."""
    frozen = FrozenEstimator(subject.net)
    detectors = {
        "log-likelihood": LogLikelihoodDetector(frozen),
        "two-sided likelihood": TypicalityDetector(frozen, statistic="p_value"),
        "ratio to pixel differences": LikelihoodRatioDetector(frozen, PixelDifferenceModel()),
        "recommended": make_detector(frozen, random_state=0),
    }
    for detector in detectors.values():
        detector.fit(subject.reference)
    test = subject.division.test

    @cache
    def scores(factor: float) -> dict[str, np.ndarray]:
        images = perturb(test, "brightness", severity=factor)
        return {name: detector.score_samples(images) for name, detector in detectors.items()}

    def detected(factor: float, seed: int) -> dict[str, float]:
        kept, changed = np.array_split(np.random.default_rng(seed).permutation(len(test)), 2)
        return {
            name: auroc(scores(1.0)[name][kept], scores(factor)[name][changed])
            for name in detectors
        }

    display = SweepDisplay.from_function(
        detected, FACTORS, n_repetitions=10, random_state=0, value_name="brightness"
    )
    report_sweep(display)
    return display


def fisher(subject: Subject) -> SweepDisplay:
    """Mean AUROC over all sets against the number of images in the Fisher matrices."""
    pool, reference = subject.division.reference, subject.division.calibration[:N_FISHER_REFERENCE]
    kinds = ("diagonal", "ekfac")

    def detected(n_samples: int, seed: int) -> dict[str, float]:
        preconditioner = FisherPreconditioner(
            FrozenEstimator(subject.net), approximation=kinds, cross_fit=False
        )
        rows = np.random.default_rng(seed).permutation(len(pool))[:n_samples]
        preconditioner.fit(pool[rows])
        fitting = preconditioner.transform(reference)
        values = {name: preconditioner.transform(X) for name, X in subject.sets.items()}
        names = preconditioner.get_feature_names_out()
        results = {}
        for kind in kinds:
            columns = [k for k, name in enumerate(names) if name.endswith(f"__{kind}")]
            for title, detector in (("score test", ScoreTestDetector()), ("ROSE", RoseDetector())):
                detector.fit(fitting[:, columns])
                inliers, *others = (detector.score_samples(X[:, columns]) for X in values.values())
                results[f"{title}, {kind}"] = float(np.mean([auroc(inliers, X) for X in others]))
        return results

    display = SweepDisplay.from_function(
        detected,
        FISHER_COUNTS,
        n_repetitions=subject.arguments.n_repetitions,
        random_state=0,
        value_name="images in the Fisher matrices",
        result_name="mean AUROC",
    )
    report_sweep(display)
    return display


def runtime(subject: Subject) -> RuntimeDisplay:
    """Time to score an image against AUROC over all sets."""
    frozen = FrozenEstimator(subject.net)
    detectors = {
        "log-likelihood": LogLikelihoodDetector(frozen),
        "two-sided likelihood": TypicalityDetector(frozen, statistic="p_value"),
        "ratio to zlib": LikelihoodRatioDetector(frozen, "zlib"),
        "ratio to pixel differences": LikelihoodRatioDetector(frozen, PixelDifferenceModel()),
        "pixel differences alone": PixelDifferenceModel(),
        "joint density (published)": make_pipeline(
            GradientNormTransformer(frozen),
            ChiSquareJointDensity(marginal="lognormal", dependence="independent"),
        ),
        "ROSE (EKFAC)": make_pipeline(
            FisherPreconditioner(frozen, approximation="ekfac"), RoseDetector()
        ),
        "score test (EKFAC)": make_pipeline(
            FisherPreconditioner(frozen, approximation="ekfac"), ScoreTestDetector()
        ),
        "recommended": make_detector(frozen, random_state=0),
    }
    for detector in detectors.values():
        detector.fit(subject.reference)
    display = RuntimeDisplay.from_estimators(detectors, subject.division.test, subject.division.ood)
    rows = [
        (name, 1e3 * seconds, display.mean_[name], display.worst_[name])
        for name, seconds in display.seconds.items()
    ]
    report(("detector", "ms/image", "mean AUROC", "worst AUROC"), rows)
    return display

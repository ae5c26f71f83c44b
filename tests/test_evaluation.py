"""Tables of detectors: every number equals the one computed by hand."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import OneClassSVM

from skgradood.detectors import ChiSquareJointDensity, ConformalDetector
from skgradood.evaluation import Comparison, compare_detectors
from skgradood.metrics import auroc, average_precision, fpr_at_tpr

RNG = np.random.default_rng(0)
REFERENCE, CALIBRATION, TEST = (RNG.normal(size=(n, 3)) for n in (400, 200, 500))
OOD = {"shifted": RNG.normal(2, 1, size=(60, 3)), "narrow": RNG.normal(0, 0.1, size=(40, 3))}
OOD["ties with the calibration scores"] = CALIBRATION
DETECTORS = {
    "density": ChiSquareJointDensity(),
    "forest": IsolationForest(n_estimators=10, random_state=0),
    "svm": make_pipeline(StandardScaler(), OneClassSVM(nu=0.1)),
}


@pytest.fixture(scope="module")
def comparison():
    return compare_detectors(DETECTORS, REFERENCE, TEST, OOD, alpha=0.1, X_calibration=CALIBRATION)


def test_every_number_by_hand(comparison):
    for name in DETECTORS:
        detector = clone(DETECTORS[name]).fit(REFERENCE)
        calibration, scores_in = detector.score_samples(CALIBRATION), detector.score_samples(TEST)

        def flagged(scores, calibration=calibration):
            ranks = (calibration[None] <= scores[:, None]).sum(axis=1)
            return np.mean((1 + ranks) / (len(calibration) + 1) <= 0.1)

        assert comparison.false_positive_rate[name] == flagged(scores_in)
        for ood, samples in OOD.items():
            scores_out = detector.score_samples(samples)
            expected = {
                "auroc": auroc(scores_in, scores_out),
                "average_precision": average_precision(scores_in, scores_out),
                "fpr95": fpr_at_tpr(scores_in, scores_out),
                "detection_rate": flagged(scores_out),
            }
            assert {m: t[ood][name] for m, t in comparison.metrics.items()} == expected


def test_the_detectors_given_are_not_fitted():
    detector = ChiSquareJointDensity()
    compare_detectors({"d": detector}, REFERENCE, TEST, OOD, X_calibration=CALIBRATION)
    assert not hasattr(detector, "offset_")


def test_fitted_detectors_are_used_as_they_are(comparison):
    fitted = ChiSquareJointDensity().fit(REFERENCE)
    again = compare_detectors(
        {"density": fitted}, REFERENCE[:5], TEST, OOD, alpha=0.1, X_calibration=CALIBRATION
    )
    assert again.metrics["auroc"]["narrow"]["density"] == pytest.approx(
        comparison.metrics["auroc"]["narrow"]["density"]
    )
    with pytest.raises(ValueError, match=r"detector 'density' is fitted.*pass X_calibration"):
        compare_detectors({"density": fitted}, REFERENCE, TEST, OOD)


def test_without_calibration_data_a_part_of_the_reference_serves():
    result = compare_detectors(DETECTORS, REFERENCE, TEST, OOD, random_state=0)
    by_hand = ConformalDetector(ChiSquareJointDensity(), random_state=0).fit(REFERENCE)
    assert result.false_positive_rate["density"] == np.mean(by_hand.predict(TEST) == -1)
    assert result.alpha == 0.05


def test_images_and_scores_of_minus_infinity():
    def flatten(images):
        return images.reshape(len(images), -1)

    detector = make_pipeline(FunctionTransformer(flatten), ChiSquareJointDensity())
    images = RNG.normal(size=(300, 1, 2, 2))
    broken = np.full((5, 1, 2, 2), np.nan)
    result = compare_detectors({"d": detector}, images, images, {"broken": broken}, random_state=0)
    assert result.metrics["auroc"]["broken"]["d"] == 1
    assert result.metrics["detection_rate"]["broken"]["d"] == 1


def test_nothing_to_compare():
    with pytest.raises(ValueError, match="got 0 detectors and 3 OOD sets"):
        compare_detectors({}, REFERENCE, TEST, OOD)
    with pytest.raises(ValueError, match="got 3 detectors and 0 OOD sets"):
        compare_detectors(DETECTORS, REFERENCE, TEST, {})


EXAMPLE = Comparison(
    metrics={
        "auroc": {"svhn": {"a": 0.25, "long name": 1.0}, "noise": {"a": 0.75, "long name": 0.5}},
        "fpr95": {"svhn": {"a": 0.25, "long name": 1.0}, "noise": {"a": 0.75, "long name": 0.5}},
    },
    false_positive_rate={"a": 0.051, "long name": 0.0487},
    alpha=0.05,
)


def test_markdown():
    assert EXAMPLE.to_markdown() == (
        "| auroc                   |     a | long name |\n"
        "| ----------------------- | ----: | --------: |\n"
        "| svhn                    | 0.250 |     1.000 |\n"
        "| noise                   | 0.750 |     0.500 |\n"
        "| worst                   | 0.250 |     0.500 |\n"
        "| mean                    | 0.500 |     0.750 |\n"
        "| false positives at 0.05 | 0.051 |     0.049 |"
    )


def test_the_worst_false_positive_rate_is_the_largest():
    assert "| worst                   | 0.750 |     1.000 |" in EXAMPLE.to_markdown("fpr95")


def test_unknown_metric():
    with pytest.raises(ValueError, match=r"\['auroc', 'fpr95'\]; got 'f1'"):
        EXAMPLE.to_markdown("f1")


def test_rows_are_ready_for_a_csv_file(comparison):
    rows = comparison.to_rows()
    assert [(row["ood"], row["detector"]) for row in rows] == [
        (ood, name) for ood in OOD for name in DETECTORS
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    assert file.getvalue().startswith(
        "ood,detector,auroc,average_precision,fpr95,detection_rate,false_positive_rate,alpha"
    )
    assert rows[0]["false_positive_rate"] == comparison.false_positive_rate["density"]


@pytest.mark.parametrize("random_state", [0, None, np.random.RandomState(0)])
def test_all_detectors_are_calibrated_on_the_same_samples(random_state):
    twins = {"one": ChiSquareJointDensity(), "other": ChiSquareJointDensity()}
    compared = compare_detectors(
        twins, REFERENCE[:100], TEST, OOD, alpha=0.1, random_state=random_state
    )
    assert compared.false_positive_rate["one"] == compared.false_positive_rate["other"]

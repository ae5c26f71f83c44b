"""What the benchmark of bits per dimension computes by itself, against plain formulas."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from benchmarks import bits_simple
from benchmarks.bits_models import SECONDS, pixel_cnn
from benchmarks.bits_page import Row, Section, page
from skgradood.complexity import code_lengths


@pytest.fixture
def images(rng):
    """Correlated values of 3 x 4 pixels, to fit to and to test on."""
    values = rng.normal(size=(400, 12)) @ rng.normal(size=(12, 12)) * 6 + 100
    return np.split(values.round().clip(0, 255).astype(np.uint8).reshape(-1, 3, 4), [300])


def test_histogram_is_a_count_at_each_place(images, monkeypatch):
    monkeypatch.setattr(bits_simple, "PSEUDO_COUNTS", (0.1,))
    train, test = images
    bits = np.zeros(len(test))
    for row, column in np.ndindex(3, 4):
        for k, image in enumerate(test):
            same = (train[:, row, column] == image[row, column]).sum()
            bits[k] -= np.log2((same + 0.1) / (len(train) + 25.6)) / 12
    np.testing.assert_allclose(bits_simple.histogram_bits(train, test), bits)


def test_pooled_histogram_is_a_count_of_all_values(images, monkeypatch):
    monkeypatch.setattr(bits_simple, "PSEUDO_COUNTS", (1.0,))
    train, test = images
    bits = [
        -np.mean([np.log2(((train == v).sum() + 1) / (train.size + 256)) for v in image.ravel()])
        for image in test
    ]
    np.testing.assert_allclose(bits_simple.pooled_histogram_bits(train, test), bits)


def test_gaussian_is_the_mean_log_density_over_values_spread_in_their_bins(
    images, rng, monkeypatch
):
    monkeypatch.setattr(bits_simple, "VARIANCES", (0.25,))
    train, test = (part.reshape(-1, 12).astype(float) for part in images)
    normal = multivariate_normal(train.mean(axis=0), np.cov(train.T) + 0.25 * np.eye(12))
    at_midpoints = -normal.logpdf(test) / np.log(2) / 12
    found = bits_simple.gaussian_bits(*images)
    more = np.trace(np.linalg.inv(normal.cov)) / 24 / np.log(2) / 12
    np.testing.assert_allclose(found, at_midpoints + more)
    spread = test + rng.uniform(-0.5, 0.5, (4000, *test.shape))
    drawn = -normal.logpdf(spread) / np.log(2) / 12
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - found) < 5 * error).all()


def test_the_kindest_choice_is_taken(images, monkeypatch):
    best = {}
    for name, function in [
        ("VARIANCES", bits_simple.gaussian_bits),
        ("PSEUDO_COUNTS", bits_simple.histogram_bits),
    ]:
        best[name] = function(*images).mean()
        for choice in getattr(bits_simple, name):
            with monkeypatch.context() as patch:
                patch.setattr(bits_simple, name, (choice,))
                assert best[name] <= function(*images).mean() + 1e-12


def test_one_file_has_one_container(images):
    _, test = images
    alone = bits_simple.code_bits(test, "zlib")
    np.testing.assert_allclose(alone * 12 * np.log(2), code_lengths(test, codec="zlib"))
    together = bits_simple.joint_code_bits(test, "zlib")
    assert together == pytest.approx(
        code_lengths(test.reshape(1, -1, 4), codec="zlib")[0] / test.size / np.log(2)
    )
    assert together < alone.mean()


def test_training_records_held_out_loss_by_processor_time(rng):
    X = rng.integers(0, 256, (50, 8, 8), dtype=np.uint8)
    history = pixel_cnn(0).set_params(max_epochs=2, module__width=4).fit(X).history_
    assert 0 < history[0][SECONDS] < history[1][SECONDS]
    assert all(np.isfinite(epoch["valid_loss"]) for epoch in history)


def test_the_page_has_every_number():
    rows = [Row("a model", 2.3456, 0.012, 500, "bound", "budget"), Row("a file", 5, None, 1, "l")]
    sections = {
        "cifar10": Section(rows, {}),
        "digits": Section(rows[:1], {"m": [(30.0, 3.0), (60.0, 2.5)], "n": [(90.0, 4.0)]}),
    }
    text = page(sections, argparse.Namespace(n_test=10, n_ood=20, seed=0))
    assert "| a model | 2.346 ± 0.012 | bound | 500 | budget |" in text
    assert "| a file | 5.000 | l | 1 |  |" in text
    assert "| PixelCNN++ | 2.92 |" in text
    assert "| m | 3.000 (0.5 min) | 2.500 (1.0 min) |" in text
    assert "| n | 4.000 (1.5 min) |  |" in text

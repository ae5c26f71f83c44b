"""Detectors of tiny data, fitted once by the command line, for all of its tests."""

import numpy as np
import pandas as pd
import pytest

from skgradood.cli import main
from skgradood.datasets import load_digits_ood


@pytest.fixture(scope="session")
def digits():
    return load_digits_ood(random_state=0)


@pytest.fixture(scope="session")
def image_detector(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    np.savez(folder / "train.npz", images=digits.train[:300])
    arguments = ["fit", str(folder / "train.npz"), "--out", str(folder / "det.skg")]
    assert main([*arguments, "--epochs", "1"]) == 0
    return folder / "det.skg"


@pytest.fixture(scope="session")
def table():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3)) * [1, 100, 0.01]
    return pd.DataFrame(rows, columns=["a", "b", "c"])


@pytest.fixture(scope="session")
def table_detector(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    table.to_csv(folder / "train.csv", index=False)
    arguments = ["fit", str(folder / "train.csv"), "--out", str(folder / "det.skg")]
    assert main([*arguments, "--epochs", "2", "--alpha", "0.1"]) == 0
    return folder / "det.skg"

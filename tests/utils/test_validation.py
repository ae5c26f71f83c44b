from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from skgradood.utils.validation import check_outlier_labels, check_samples

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, size=(5, 3, 8, 6), dtype=np.uint8)
GREY = IMAGES[:, :1]

# what is passed, options, what must come out
ACCEPTED = {
    "rows": (RNG.normal(size=(4, 3)), {}, (4, 3), np.float64),
    "float32 rows": (np.ones((4, 3), np.float32), {}, (4, 3), np.float32),
    "integer rows": (np.ones((4, 3), int), {}, (4, 3), np.float64),
    "boolean rows": (np.ones((4, 3), bool), {}, (4, 3), np.float64),
    "objects that are numbers": (np.ones((4, 3), object), {}, (4, 3), np.float64),
    "a data frame": (pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]}), {}, (2, 2), np.float64),
    "lists": ([[1, 2], [3, 4]], {}, (2, 2), np.float64),
    "channels first": (IMAGES, {}, (5, 3, 8, 6), np.uint8),
    "channels last": (IMAGES.transpose(0, 2, 3, 1), {}, (5, 3, 8, 6), np.uint8),
    "without channels": (GREY[:, 0], {}, (5, 1, 8, 6), np.uint8),
    "a list of images": (list(IMAGES), {}, (5, 3, 8, 6), np.uint8),
    "a tensor": (torch.from_numpy(IMAGES), {}, (5, 3, 8, 6), np.uint8),
    "a bfloat16 tensor": (torch.ones(4, 3, dtype=torch.bfloat16), {}, (4, 3), np.float64),
    "flat rows": (IMAGES.reshape(5, -1), {"input_shape": (3, 8, 6)}, (5, 3, 8, 6), np.uint8),
    "float images": (IMAGES / 255, {"input_shape": (3, 8, 6)}, (5, 3, 8, 6), np.float64),
}

REFUSED = {
    "no rows": (np.zeros((0, 3)), {}, r"0 sample\(s\) \(shape=\(0, 3\)\)"),
    "no columns": (np.zeros((3, 0)), {}, r"0 feature\(s\) \(shape=\(3, 0\)\)"),
    "one dimension": (np.zeros(3), {}, r"shape \(3,\).*Reshape your data"),
    "five dimensions": (np.zeros((2, 1, 1, 2, 2)), {}, "got 5D array"),
    "ragged": ([[1.0], [1.0, 2.0]], {}, "ragged"),
    "ragged images": ([np.zeros((2, 2)), np.zeros((2, 3))], {}, "ragged"),
    "text": ([["a", "b"]], {}, "must hold real numbers; got dtype"),
    "complex": (np.ones((2, 2)) * 1j, {}, "Complex data not supported"),
    "sparse": (sp.eye_array(3), {}, "Sparse data was passed"),
    "NaN": ([[0.0, 1.0], [np.nan, 1.0], [np.nan, 1.0]], {}, "NaN: row 1 is the first of 2"),
    "a missing value of pandas": (
        pd.DataFrame({"a": [1.0, None], "b": [1, 2]}).convert_dtypes(),
        {},
        "NaN: row 1 is the first",
    ),
    "infinity": ([[0.0], [1.0], [np.inf]], {}, "infinity: row 2 is the first of 1"),
    "wrong size": (np.zeros((2, 5)), {"input_shape": (1, 2, 2)}, "5 features.*expecting 4"),
    "wrong shape": (IMAGES, {"input_shape": (1, 8, 6)}, r"\(3, 8, 6\).*\(1, 8, 6\)"),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_one_layout_for_everything(case):
    X, options, shape, dtype = ACCEPTED[case]
    samples = check_samples(X, **options)
    assert samples.shape == shape
    assert samples.dtype == dtype
    if shape == IMAGES.shape:
        np.testing.assert_allclose(samples * (255 if dtype == np.float64 else 1), IMAGES)


@pytest.mark.parametrize("case", REFUSED)
def test_bad_samples_are_explained(case):
    X, options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        check_samples(X, **options)


def test_objects_that_are_no_numbers_are_a_type_error():
    with pytest.raises(TypeError, match=r"must hold real numbers.*got dtype object"):
        check_samples(np.array([[object()]]))


def test_errors_use_the_name_of_the_argument():
    with pytest.raises(ValueError, match="X_out contains NaN"):
        check_samples([[np.nan]], name="X_out")


def test_channels_first_where_both_readings_fit():
    X = RNG.normal(size=(2, 1, 4, 3))
    np.testing.assert_array_equal(check_samples(X), X)


def test_a_memory_map_is_not_copied(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.shares_memory(check_samples(mapped), mapped)


def test_labels():
    labels = check_outlier_labels([1.0, -1.0, 1.0])
    assert labels.tolist() == [1, -1, 1]
    assert labels.dtype.kind == "i"


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, 1], r"np.where\(y == 1, -1, 1\).*np.where\(y == 1, 1, -1\)"),
        ([True, False], r"np.where\(y == 1, -1, 1\)"),
        ([1, 2, -1], r"got the values \[-1, 1, 2\]"),
        (["in", "out"], r"got the values \['in', 'out'\]"),
        ([1.0, np.nan], r"got the values \[1.0, nan\]"),
        ([[1], [-1]], r"one-dimensional; got shape \(2, 1\)"),
    ],
)
def test_bad_labels_are_explained(y, message):
    with pytest.raises(ValueError, match=message):
        check_outlier_labels(y)

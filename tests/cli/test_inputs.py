"""What the commands read: layouts, sizes, what is left out, and what is told of it."""

import re

import numpy as np
import pytest
from PIL import Image
from sklearn.frozen import FrozenEstimator

from skgradood.cli import main
from skgradood.cli._fit import _warn_of_size
from skgradood.detectors import ChiSquareJointDensity, ConformalDetector
from skgradood.models import RealNVP
from skgradood.persistence import load, save
from tests.cli.told import assert_one_line_error, read_csv


def score(detector, data, *options):
    out = data.parent / "scores.csv"
    assert main(["score", str(detector), str(data), "--out", str(out), *options]) == 0
    return read_csv(out)


# --- layouts ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def colour(digits):
    grey = digits.train[:60, None]
    return np.concatenate([grey, 255 - grey, grey // 2], axis=1)  # channels first


@pytest.fixture(scope="module")
def colour_detector(colour, tmp_path_factory):
    folder = tmp_path_factory.mktemp("colour")
    np.save(folder / "first.npy", colour)
    arguments = ["fit", str(folder / "first.npy"), "--out", str(folder / "det.skg")]
    assert main([*arguments, "--epochs", "1"]) == 0
    return folder / "det.skg"


@pytest.mark.parametrize("options", [[], ["--size", "8", "8"]])
def test_channels_may_come_first_or_last(colour, colour_detector, tmp_path, options):
    np.save(tmp_path / "first.npy", colour)
    np.save(tmp_path / "last.npy", colour.transpose(0, 2, 3, 1))
    first = score(colour_detector, tmp_path / "first.npy", *options)
    assert first == score(colour_detector, tmp_path / "last.npy", *options)
    expected = load(colour_detector).score_samples(colour).tolist()
    assert [float(row["score"]) for row in first] == expected
    out = str(tmp_path / "report.html")
    assert main(["report", str(colour_detector), str(tmp_path / "first.npy"), "--out", out]) == 0


def test_a_channel_of_grey_images_may_have_its_dimension(image_detector, digits, tmp_path):
    np.save(tmp_path / "grey.npy", digits.test[:5])
    np.save(tmp_path / "one.npy", digits.test[:5, None])
    expected = score(image_detector, tmp_path / "grey.npy")
    assert score(image_detector, tmp_path / "one.npy") == expected


def test_channels_first_of_another_size(colour_detector, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros((4, 3, 16, 12), np.uint8))
    arguments = ["score", str(colour_detector), str(tmp_path / "x.npy")]
    assert main([*arguments, "--out", str(tmp_path / "x.csv")]) == 1
    assert_one_line_error(capsys, "8 x 8", "have 16 x 12", "--size 8 8")


def test_another_number_of_channels(digits, tmp_path, capsys):
    np.save(tmp_path / "two.npy", np.repeat(digits.train[:40, None], 2, axis=1))
    np.save(tmp_path / "grey.npy", digits.train[:5])
    detector = str(tmp_path / "det.skg")
    arguments = ["fit", str(tmp_path / "two.npy"), "--out", detector, "--epochs", "1"]
    assert main(arguments) == 0
    assert len(score(detector, tmp_path / "two.npy")) == 40
    arguments = ["score", detector, str(tmp_path / "grey.npy"), "--out", str(tmp_path / "x.csv")]
    assert main(arguments) == 1
    assert_one_line_error(capsys, "judges images of 2 channels", "have 1")


@pytest.mark.parametrize("options", [[], ["--size", "8", "8"]])
@pytest.mark.parametrize("which", ["grey", "colour"])
def test_one_colour_picture_is_not_many_grey_ones(
    request, which, options, image_detector, tmp_path, capsys
):
    detector = request.getfixturevalue("colour_detector") if which == "colour" else image_detector
    np.save(tmp_path / "one.npy", np.zeros((20, 24, 3), np.uint8))
    arguments = ["score", str(detector), str(tmp_path / "one.npy"), *options]
    assert main([*arguments, "--out", str(tmp_path / "x.csv")]) == 1
    assert_one_line_error(capsys, "one colour picture", "(1, H, W, 3)")


# --- detectors -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["score", "report"])
def test_a_detector_that_was_saved_unfitted(command, tmp_path, capsys):
    save(ConformalDetector(ChiSquareJointDensity()), tmp_path / "det.skg")
    arguments = [command, str(tmp_path / "det.skg"), "data", "--out", str(tmp_path / "x")]
    assert main(arguments) == 1
    assert_one_line_error(capsys, "det.skg holds a ConformalDetector that is not fitted")


def test_the_size_is_found_inside_a_frozen_pipeline(image_detector, digits, tmp_path, capsys):
    frozen = FrozenEstimator(load(image_detector).detector_)
    detector = ConformalDetector(frozen, calibration="prefit").fit(digits.train[300:340])
    save(detector, tmp_path / "det.skg")
    np.save(tmp_path / "large.npy", np.zeros((2, 9, 9), np.uint8))
    arguments = ["score", str(tmp_path / "det.skg"), str(tmp_path / "large.npy")]
    assert main([*arguments, "--out", str(tmp_path / "x.csv")]) == 1
    assert_one_line_error(capsys, "8 x 8", "9 x 9", "--size 8 8")


# --- folders ---------------------------------------------------------------------------------


@pytest.fixture
def folder(digits, tmp_path):
    """Sixty images, of which 22 are broken; a hidden one, a note, and a link to a folder."""
    root = tmp_path / "photos"
    (root / ".thumbs").mkdir(parents=True)
    for number, image in enumerate(digits.test[:60]):
        Image.fromarray(image).save(root / f"{number:02}.png")
    for number in range(22):
        (root / f"{number:02}.png").write_bytes(b"broken")
    (root / ".thumbs" / "t.png").write_bytes(b"broken")
    (root / "notes.txt").write_text("x")
    (root / "link").symlink_to(tmp_path)
    return root


@pytest.mark.parametrize("command", ["fit", "score"])
def test_what_was_left_out_is_told(command, image_detector, folder, tmp_path, capsys):
    detector = [] if command == "fit" else [str(image_detector)]
    arguments = [command, *detector, str(folder), "--out", str(tmp_path / "x")]
    assert main(arguments) == 1
    assert_one_line_error(capsys, "00.png cannot be read")
    options = ["--epochs", "1", "--model", "pixelcnn"] if command == "fit" else []
    assert main([*arguments, *options, "--on-error", "skip"]) == 0
    told = capsys.readouterr().err
    assert f"2 files in {folder} were ignored: they are hidden, or no images" in told
    assert f"1 links to folders in {folder} were not followed" in told
    skipped = re.findall(r"^skgradood: skipped (.*)$", told, re.MULTILINE)
    assert skipped == [f"{number:02}.png" for number in range(20)]
    assert "... and 2 more" in told


def test_the_title_of_a_report_on_the_current_folder(image_detector, folder, monkeypatch):
    monkeypatch.chdir(folder)
    arguments = ["report", str(image_detector), ".", "--on-error", "skip", "--out", "x.html"]
    assert main(arguments) == 0
    assert "<title>photos judged by det.skg</title>" in (folder / "x.html").read_text()


@pytest.mark.parametrize(("side", "model", "fitting"), [(14, "glow", 16), (7, "vae", 8)])
def test_sides_that_a_model_does_not_take(side, model, fitting, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros((30, side, side), np.uint8))
    arguments = ["fit", str(tmp_path / "x.npy"), "--out", str(tmp_path / "x.skg")]
    assert main([*arguments, "--model", model, "--epochs", "1"]) == 1
    assert_one_line_error(capsys, f"{side} x {side}", f"--size {fitting} {fitting}")


# --- tables ----------------------------------------------------------------------------------


def test_a_first_line_of_numbers_is_told(table_detector, table, tmp_path, capsys):
    table.to_csv(tmp_path / "bare.csv", index=False, header=False)
    arguments = ["fit", str(tmp_path / "bare.csv"), "--out", str(tmp_path / "x.skg")]
    assert main([*arguments, "--epochs", "1"]) == 0
    assert "bare.csv holds numbers and was read as data" in capsys.readouterr().err


def test_rows_have_no_size(table_detector, tmp_path, capsys):
    np.save(tmp_path / "rows.npy", np.zeros((30, 3)))
    for data in (table_detector.parent / "train.csv", tmp_path / "rows.npy"):
        arguments = ["score", str(table_detector), str(data), "--size", "4", "4"]
        assert main([*arguments, "--out", str(tmp_path / "x.csv")]) == 1
        assert_one_line_error(capsys, "--size is for images", "holds rows")


@pytest.mark.parametrize(
    ("columns", "rows", "told"), [(1000, 60, "9.8 million"), (1000, 60_000, None), (30, 12, None)]
)
def test_more_parameters_than_rows_determine_are_told_of(columns, rows, told, capsys):
    _warn_of_size(RealNVP, (columns,), rows)
    warning = capsys.readouterr().err
    assert bool(warning) == (told is not None)
    assert told is None or (told in warning and f"{rows} training rows" in warning)

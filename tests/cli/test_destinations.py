"""Where results go: nothing is lost, and what cannot be written is known before the work."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from skgradood.cli import main
from tests.cli.told import assert_one_line_error, read_csv


@pytest.fixture
def data(digits, tmp_path):
    np.save(tmp_path / "data.npy", digits.test[:6])
    return tmp_path / "data.npy"


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["score", "report"])
def test_an_error_half_way_leaves_the_old_file(command, image_detector, data, monkeypatch, capsys):
    out = data.parent / "out"
    out.write_text("old")

    def fail(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    assert main([command, str(image_detector), str(data), "--out", str(out)]) == 1
    assert_one_line_error(capsys, "no space left")
    assert out.read_text() == "old"
    assert sorted(os.listdir(data.parent)) == ["data.npy", "out"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_names_that_are_no_text_are_escaped(image_detector, digits, tmp_path):
    folder = tmp_path / "été"
    folder.mkdir()
    Image.fromarray(digits.test[0]).save(folder / "a.png")
    os.rename(folder / "a.png", os.path.join(os.fsencode(folder), b"\xe9t\xe9.png"))
    out = tmp_path / b"\xe9.csv".decode("utf-8", "surrogateescape")
    assert main(["score", str(image_detector), str(folder), "--out", str(out)]) == 0
    assert [row["name"] for row in read_csv(out)] == [r"\udce9t\udce9.png"]
    out = tmp_path / "report.html"
    assert main(["report", str(image_detector), str(folder), "--out", str(out)]) == 0
    assert r"\udce9t\udce9.png" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", [["fit"], ["report", "det.skg"]])
def test_a_dash_is_no_name_where_nothing_goes_to_standard_output(command, tmp_path, capsys):
    assert main([*command, str(tmp_path), "--out", "-"]) == 1
    assert_one_line_error(capsys, "--out - is no file", "name a file")


@pytest.mark.parametrize("command", [["fit"], ["score", "det.skg"], ["report", "det.skg"]])
def test_no_input_is_overwritten(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "data.npy")
    for name in ("data.npy", "det.skg"):
        (tmp_path / name).write_text("old")
    assert main([*command, str(tmp_path), "--out", "."]) == 1
    assert_one_line_error(capsys, ". is a folder")
    for out in ("./data.npy", "link", *[str(tmp_path / name) for name in command[1:]]):
        assert main([*command, "data.npy", "--out", out]) == 1
        assert_one_line_error(capsys, f"--out {out} is the same file", "would be lost")
    assert (tmp_path / "data.npy").read_text() == (tmp_path / "det.skg").read_text() == "old"


@pytest.mark.parametrize("command", [["fit"], ["score", "det.skg"], ["report", "det.skg"]])
def test_a_name_too_long_is_known_before_the_data_are_read(command, tmp_path, capsys):
    assert main([*command, "nosuchdata", "--out", str(tmp_path / ("n" * 300))]) == 1
    assert_one_line_error(capsys, "nnn cannot be written")


@pytest.mark.parametrize("command", [["fit"], ["score", "det.skg"], ["report", "det.skg"]])
def test_a_folder_without_rights_is_known_before_the_data_are_read(
    command, tmp_path, monkeypatch, capsys
):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder / "temporary"))

    monkeypatch.setattr("skgradood.utils.files.try_folder", refuse)
    assert main([*command, "nosuchdata", "--out", str(tmp_path / "x")]) == 1
    assert_one_line_error(capsys, f"{tmp_path / 'x'} cannot be written: Permission denied")


@pytest.mark.parametrize("out", ["file", "file/figures"])
def test_demo_knows_before_the_work_where_no_figure_can_go(out, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("old")
    monkeypatch.setattr("skgradood.cli._demo.load_digits_ood", None)
    assert main(["demo", "--out", out]) == 1
    assert_one_line_error(capsys, "file is a file; --out takes the name of a folder")


def test_demo_knows_before_the_work_that_its_folder_cannot_be_made(tmp_path, monkeypatch, capsys):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder / "temporary"))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("skgradood.cli._demo.load_digits_ood", None)
    monkeypatch.setattr("skgradood.cli._data.try_folder", refuse)
    assert main(["demo"]) == 1
    assert_one_line_error(capsys, "demo-output cannot be written: Permission denied")


# --- standard output -------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["-", "/dev/stdout"])
def test_a_table_on_stdout_is_the_table_in_a_file(out, image_detector, data, capfd):
    if out != "-" and not os.path.exists(out):
        pytest.skip("no /dev/stdout here")
    file = data.parent / "scores.csv"
    assert main(["score", str(image_detector), str(data), "--out", str(file)]) == 0
    summary = capfd.readouterr().out.partition(";")[0]
    assert main(["score", str(image_detector), str(data), "--out", out]) == 0
    captured = capfd.readouterr()
    assert list(csv.reader(captured.out.splitlines())) == list(csv.reader(file.open()))
    assert captured.err == f"skgradood: {summary}\n"


def test_closed_streams(image_detector, data, monkeypatch, capsys):
    arguments = ["score", str(image_detector), str(data)]
    out = data.parent / "scores.csv"
    with monkeypatch.context() as context:
        context.setattr(sys, "stdout", None)
        assert main([*arguments, "--out", str(out)]) == 0
        assert len(read_csv(out)) == 6
        assert main([*arguments, "--out", "-"]) == 1
    assert_one_line_error(capsys, "standard output is closed")
    with monkeypatch.context() as context:
        context.setattr(sys, "stderr", None)
        assert main(["fit", str(data), "--out", str(out)]) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a shell is needed")
def test_a_command_in_a_shell_without_streams(table_detector, tmp_path):
    train, out = table_detector.parent / "train.csv", tmp_path / "det.skg"
    command = f'"{sys.executable}" -m skgradood fit "{train}" --out "{out}" --epochs 1 >&- 2>&-'
    assert subprocess.run(command, shell=True, check=False).returncode == 0
    assert out.exists()


def test_what_stdout_cannot_show_is_escaped(monkeypatch, table_detector, tmp_path):
    with (tmp_path / "told").open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        arguments = ["score", str(table_detector), str(table_detector.parent / "train.csv")]
        assert main([*arguments, "--out", str(tmp_path / "été.csv")]) == 0
    assert r"\xe9t\xe9.csv" in (tmp_path / "told").read_text(encoding="ascii")

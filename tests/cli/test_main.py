"""The command line, called in this process with tiny data."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.utils import Bunch

import skgradood
from skgradood.cli import main
from skgradood.persistence import load
from tests.cli.told import assert_one_line_error, read_csv

# --- fit and score ---------------------------------------------------------------------------


def test_scores_of_a_folder_are_those_of_the_detector(image_detector, digits, tmp_path, capsys):
    for number, image in enumerate(digits.test[:5]):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("x")
    out = tmp_path / "scores.csv"
    assert main(["score", str(image_detector), str(tmp_path), "--out", str(out)]) == 0
    detector = load(image_detector)
    rows = read_csv(out)
    assert list(rows[0]) == ["name", "score", "p_value", "verdict"]
    assert [row["name"] for row in rows] == [f"{number}.png" for number in range(5)]
    X = digits.test[:5]
    assert [float(row["score"]) for row in rows] == detector.score_samples(X).tolist()
    assert [float(row["p_value"]) for row in rows] == detector.p_values(X).tolist()
    assert [row["verdict"] == "outlier" for row in rows] == (detector.predict(X) == -1).tolist()
    captured = capsys.readouterr()
    assert "of 5 samples are outliers" in captured.out
    assert "1 files" in captured.err


def test_noise_is_flagged(image_detector, digits, tmp_path):
    np.save(tmp_path / "noise.npy", digits.ood["noise"][:20])
    out = tmp_path / "scores.csv"
    assert main(["score", str(image_detector), str(tmp_path / "noise.npy"), "--out", str(out)]) == 0
    assert [row["verdict"] for row in read_csv(out)].count("outlier") >= 18


def test_colour_is_made_grey_for_a_detector_of_grey_images(image_detector, digits, tmp_path):
    colour = np.repeat(digits.test[:4, :, :, None], 3, axis=3)
    for name, X in {"colour": colour, "grey": digits.test[:4]}.items():
        np.save(tmp_path / f"{name}.npy", X)
        arguments = ["score", str(image_detector), str(tmp_path / f"{name}.npy")]
        assert main([*arguments, "--out", str(tmp_path / f"{name}.csv")]) == 0
    assert read_csv(tmp_path / "colour.csv") == read_csv(tmp_path / "grey.csv")


def test_fit_is_reproducible(digits, image_detector, tmp_path):
    train = str(image_detector.parent / "train.npz")
    arguments = ["fit", train, "--out", str(tmp_path / "again.skg"), "--epochs", "1"]
    assert main(arguments) == 0
    X = digits.test[:10]
    np.testing.assert_array_equal(
        load(tmp_path / "again.skg").score_samples(X), load(image_detector).score_samples(X)
    )


def test_fit_summary(digits, tmp_path, capsys):
    np.save(tmp_path / "few.npy", digits.train[:60])
    out = str(tmp_path / "det.skg")
    arguments = ["fit", str(tmp_path / "few.npy"), "--out", out, "--epochs", "1"]
    assert main([*arguments, "--model", "glow", "--size", "12", "12"]) == 0
    captured = capsys.readouterr()
    assert "36 train Glow, 12 fit the density, 12 calibrate" in captured.out
    assert re.search(r"held-out \d+\.\d+ bits/dim", captured.out)
    assert "expected false-positive rate 0.0000" in captured.out
    assert "12 samples are few" in captured.err
    assert "nothing will ever be flagged" in captured.err
    assert load(out).score_samples(np.zeros((1, 12, 12), np.uint8)).shape == (1,)


@pytest.mark.parametrize("n", [20, 25])
def test_as_few_images_as_are_asked_for(n, digits, tmp_path):
    np.save(tmp_path / "few.npy", digits.train[:n])
    out = str(tmp_path / "det.skg")
    arguments = ["fit", str(tmp_path / "few.npy"), "--out", out, "--epochs", "1"]
    assert main(arguments) == 0
    assert np.isfinite(load(out).score_samples(digits.test[:20])).all()


def test_a_spline_flow_of_rows(table_detector, tmp_path):
    out = str(tmp_path / "det.skg")
    arguments = ["fit", str(table_detector.parent / "train.csv"), "--out", out, "--epochs", "1"]
    assert main([*arguments, "--model", "spline_flow"]) == 0
    assert np.isfinite(load(out).score_samples(np.zeros((2, 3)))).all()


@pytest.mark.parametrize("model", ["pixelcnn", "diffusion"])
def test_other_models(model, digits, tmp_path):
    np.save(tmp_path / "few.npy", digits.train[:40])
    out = str(tmp_path / "det.skg")
    arguments = ["fit", str(tmp_path / "few.npy"), "--out", out, "--epochs", "1"]
    assert main([*arguments, "--model", model]) == 0
    detector = load(out)
    scores = detector.score_samples(digits.test[:4])
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(detector.score_samples(digits.test[:4]), scores)
    np.testing.assert_allclose(detector.score_samples(digits.test[1:2]), scores[1:2], rtol=1e-3)


def test_tables(table_detector, table, tmp_path):
    far = table[:20].add([50, 0, 0])
    pd.concat([table[:80], far]).to_parquet(tmp_path / "data.parquet", index=False)
    out = tmp_path / "scores.csv"
    arguments = ["score", str(table_detector), str(tmp_path / "data.parquet"), "--out", str(out)]
    assert main(arguments) == 0
    verdicts = [row["verdict"] for row in read_csv(out)]
    assert verdicts[80:].count("outlier") == 20
    assert verdicts[:80].count("outlier") <= 20
    assert load(table_detector).alpha == 0.1


def test_report_tells_what_score_tells(image_detector, digits, tmp_path, capsys):
    for number, image in enumerate([*digits.test[:5], *digits.ood["noise"][:3]]):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    out, page = tmp_path / "scores.csv", tmp_path / "report.html"
    assert main(["score", str(image_detector), str(tmp_path), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    arguments = ["report", str(image_detector), str(tmp_path), "--out", str(page)]
    assert main(arguments) == 0
    assert capsys.readouterr().out.replace("report.html", "scores.csv") == told
    html = page.read_text(encoding="utf-8")
    flagged = [row["name"] for row in read_csv(out) if row["verdict"] == "outlier"]
    assert sorted(re.findall(r'class="name">([^<]+)<', html)) == sorted(flagged)
    assert {"5.png", "6.png", "7.png"} <= set(flagged)
    assert "by itself: " in html
    assert main([*arguments, "--max-shown", "1"]) == 0
    assert page.read_text(encoding="utf-8").count('class="name"') == 1


def test_a_report_on_rows_names_the_layers_of_the_model(table_detector, table, tmp_path):
    """Not the columns of the table, which the model is given standardised."""
    rows = table.head(20).assign(c=1.0)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    page = tmp_path / "report.html"
    arguments = ["report", str(table_detector), str(tmp_path / "rows.csv"), "--out", str(page)]
    assert main(arguments) == 0
    detector = load(table_detector)
    assert (detector.predict(rows) == -1).any()
    features = detector.detector_[-1]["features"].get_feature_names_out().tolist()
    told = re.findall(r"<tr><td>([^<]+)</td>", page.read_text(encoding="utf-8"))
    assert len(told) == 10
    assert set(told) <= set(features) - {"log_likelihood"}


# --- errors ----------------------------------------------------------------------------------


def test_wrong_size_names_the_remedy(image_detector, tmp_path, capsys):
    np.save(tmp_path / "large.npy", np.zeros((2, 9, 9), np.uint8))
    arguments = ["score", str(image_detector), str(tmp_path / "large.npy")]
    arguments += ["--out", str(tmp_path / "scores.csv")]
    assert main(arguments) == 1
    assert_one_line_error(capsys, "8 x 8", "9 x 9", "--size 8 8")
    assert main([*arguments, "--size", "8", "8"]) == 0


def test_rows_for_a_detector_of_images(image_detector, table_detector, tmp_path, capsys):
    arguments = ["score", str(image_detector), str(table_detector.parent / "train.csv")]
    assert main([*arguments, "--out", str(tmp_path / "scores.csv")]) == 1
    assert_one_line_error(capsys, "judges images", "holds rows")


@pytest.mark.parametrize("columns", [["a", "c", "b"], ["a", "b", "d"]])
def test_columns_in_another_order_or_with_other_names(
    table_detector, table, tmp_path, capsys, columns
):
    table.set_axis(columns, axis=1).to_csv(tmp_path / "other.csv", index=False)
    arguments = ["score", str(table_detector), str(tmp_path / "other.csv")]
    assert main([*arguments, "--out", str(tmp_path / "scores.csv")]) == 1
    assert_one_line_error(capsys, "feature names")


def test_model_that_does_not_fit_the_data(table_detector, tmp_path, capsys):
    arguments = ["fit", str(table_detector.parent / "train.csv"), "--model", "vae"]
    assert main([*arguments, "--out", str(tmp_path / "det.skg")]) == 1
    assert_one_line_error(capsys, "--model vae", "rows", "--model auto")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["fit", "nothing", "--out", "x.skg"], ["no file or folder nothing"]),
        (["fit", "nothing", "--out", "no/folder/x.skg"], ["folder of no/folder/x.skg"]),
        (["score", "nothing.skg", "data", "--out", "x.csv"], ["nothing.skg"]),
        (["score", "few.npy", "data", "--out", "x.csv"], ["not a saved detector"]),
        (["fit", "few.npy", "--out", "x.skg"], ["at least 20 samples"]),
        (["fit", "rows.npy", "--out", "x.skg", "--device", "abacus"], ["abacus"]),
    ],
)
def test_errors_are_one_line(arguments, parts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("few.npy", np.zeros((5, 8, 8), np.uint8))
    np.save("rows.npy", np.random.default_rng(0).normal(size=(50, 2)))
    assert main(arguments) == 1
    assert_one_line_error(capsys, *parts)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["report", "det.skg", "data"],
        ["fit", "data"],
        ["fit", "data", "--out", "x.skg", "--model", "nosuchmodel"],
        ["fit", "data", "--out", "x.skg", "--epochs", "0"],
        ["fit", "data", "--out", "x.skg", "--epochs", "many"],
        ["fit", "data", "--out", "x.skg", "--alpha", "1.5"],
        ["fit", "data", "--out", "x.skg", "--alpha", "few"],
        ["fit", "data", "--out", "x.skg", "--seed", "-1"],
        ["fit", "data", "--out", "x.skg", "--seed", str(2**32)],
        ["fit", "data", "--out", "x.skg", "--batch-size", "1e20"],
        ["fit", "data", "--out", "x.skg", "--batch-size", str(10**20)],
        ["fit", "data", "--out", "x.skg", "--epochs", "9" * 5000],
        ["fit", "data", "--out", "x.skg", "--lr", "-1"],
        ["fit", "data", "--out", "x.skg", "--lr", "nan"],
        ["fit", "data", "--out", ""],
        ["score", "det.skg", "data", "--out", ""],
        ["demo", "--out", ""],
        ["score", "det.skg"],
        ["report", "det.skg", "data", "--out", "x.html", "--max-shown", "0"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    told = capsys.readouterr().err
    assert "usage: skgradood" in told
    assert "invalid _" not in told  # argparse's words for it, with the name of our function


def test_a_missing_value_is_named_by_its_row_in_the_file(table, tmp_path, capsys):
    rows = table.to_numpy(copy=True)
    rows[123, 1] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    assert main(["fit", str(tmp_path / "rows.npy"), "--out", str(tmp_path / "x.skg")]) == 1
    assert_one_line_error(capsys, "rows.npy has 1 missing", "data row 123, column 1")


def test_what_is_too_large_to_be_standardised_is_named(table, tmp_path, capsys):
    table = table.copy()
    table.iloc[17, 1] = -1e300
    table.to_csv(tmp_path / "rows.csv", index=False)
    np.save(tmp_path / "rows.npy", table.to_numpy())
    column = str(table.columns[1])
    for name, named in (("rows.csv", repr(column)), ("rows.npy", "column 1")):
        assert main(["fit", str(tmp_path / name), "--out", str(tmp_path / "x.skg")]) == 1
        assert_one_line_error(capsys, named, "-1e+300", "data row 17")


@pytest.mark.parametrize("command", [["fit"], ["score", "det.skg"], ["report", "det.skg"]])
@pytest.mark.parametrize(("out", "told"), [("", "is a folder"), ("no/where", "does not exist")])
def test_where_the_result_cannot_go_is_known_before_the_data_are_read(
    command, out, told, tmp_path, capsys
):
    assert main([*command, "nosuchdata", "--out", str(tmp_path / out)]) == 1
    assert_one_line_error(capsys, told, str(tmp_path / out))


@pytest.mark.parametrize("told", [[], ["Unable to allocate 9 TiB"]])
def test_images_that_do_not_fit_into_memory(told, monkeypatch, tmp_path, capsys):
    def fill(*path, **options):
        raise MemoryError(*told)

    monkeypatch.setattr("skgradood.cli._data.load_images", fill)
    assert main(["fit", "photos", "--out", str(tmp_path / "x.skg")]) == 1
    what = "photos does not fit into memory" + "".join(f" ({text})" for text in told)
    assert_one_line_error(capsys, f"{what}; give fewer files", "--size H W")


def test_no_memory_is_no_traceback(monkeypatch, capsys):
    def fill(**options):
        raise MemoryError

    monkeypatch.setattr("skgradood.cli._demo.demo", fill)
    assert main(["demo"]) == 1
    assert_one_line_error(capsys, "MemoryError")


def test_an_interruption_is_no_traceback(monkeypatch, capsys):
    def interrupt(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr("skgradood.cli._demo.demo", interrupt)
    assert main(["demo"]) == 130
    assert "interrupted" in capsys.readouterr().err


# --- help ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["demo", "fit", "score", "report"])
def test_help_explains_every_option(command, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main([command, "--help"])
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    assert "%%" not in text
    options = re.findall(r"^  (--[a-z-]+)(?: [A-Z{\[][^ ]*)*(.*)$", text, re.MULTILINE)
    assert "--out" in [name for name, _ in options]


def test_help_is_quick_and_version_is_told():
    code = "import sys; from skgradood.cli import main\ntry: main(['--version'])\n"
    code += "finally: assert 'torch' not in sys.modules"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == f"skgradood {skgradood.__version__}\n"


# --- demo ------------------------------------------------------------------------------------


def test_demo_without_matplotlib_still_prints_the_table(digits, tmp_path, monkeypatch, capsys):
    few = {part: images[:60] for part, images in digits.items() if part != "ood"}
    few["ood"] = {name: digits.ood[name][:30] for name in ("inversion", "halves")}
    monkeypatch.setattr("skgradood.cli._demo.load_digits_ood", lambda **options: Bunch(**few))
    for name in [*sys.modules, "matplotlib"]:
        if name.split(".")[0] == "matplotlib":
            monkeypatch.setitem(sys.modules, name, None)
    assert main(["demo", "--epochs", "1", "--out", str(tmp_path / "figures")]) == 0
    text = capsys.readouterr().out
    assert "skgradood[plot]" in text
    assert "| inversion " in text
    assert not (tmp_path / "figures").exists()


@pytest.mark.slow
def test_demo_end_to_end(tmp_path):
    """In a process of its own, as a user runs it: within a minute, and worth looking at."""
    command = [sys.executable, "-m", "skgradood", "demo", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    header, *lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    names = [cell.strip() for cell in header.strip("|").split("|")]
    table = {}
    for line in lines[1:]:
        name, *values = (cell.strip() for cell in line.strip("|").split("|"))
        table[name] = dict(zip(names[1:], map(float, values), strict=True))
    assert len(names) == 5
    assert len(table) >= 8 + 3
    assert table["mean"]["recommended"] > table["mean"]["log-likelihood"]
    assert table["noise"]["recommended"] > 0.95
    rates = [rate for name, row in table.items() if "false" in name for rate in row.values()]
    assert len(rates) == 4
    assert all(0.0 <= rate <= 0.11 for rate in rates)
    with Image.open(tmp_path / "detectors.png") as figure:
        assert figure.size[0] > 800

"""Loading rows from tables, and refusing what is broken."""

import numpy as np
import pandas as pd
import pytest

from skgradood.datasets import load_images


def write_table(frame, path):
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)


@pytest.fixture
def frame():
    return pd.DataFrame({"height": [1.5, 2.5, -3.0], "count": [1, 2, 3]})


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables(tmp_path, frame, ending):
    path = tmp_path / f"rows.{ending}"
    write_table(frame, path)
    loaded = load_images(path)
    np.testing.assert_array_equal(loaded.data, [[1.5, 1], [2.5, 2], [-3, 3]])
    assert loaded.data.dtype == np.float64
    assert loaded.feature_names == ["height", "count"]
    assert loaded.names == ["0", "1", "2"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_columns_that_are_not_numeric_are_named(tmp_path, frame, ending):
    frame["city"], frame["when"] = ["a", "b", "c"], ["x", "y", "z"]
    path = tmp_path / f"rows.{ending}"
    write_table(frame, path)
    with pytest.raises(ValueError, match=rf"rows.{ending} .*not numeric: city, when"):
        load_images(path)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_missing_values_are_named(tmp_path, frame, ending):
    frame.loc[1, "height"] = np.nan
    path = tmp_path / f"rows.{ending}"
    write_table(frame, path)
    with pytest.raises(ValueError, match=r"1 missing .* data row 1, column 'height'"):
        load_images(path)


@pytest.mark.parametrize("line", ["1,1", "1.0,1.0", '"1.00","1.00"'])
def test_a_csv_without_header_loses_no_row(tmp_path, line):
    """Not even one that repeats a number, which pandas would rename as a column ("1.0.1")."""
    (tmp_path / "bare.csv").write_text(f"{line}\n3,4\n")
    loaded = load_images(tmp_path / "bare.csv")
    np.testing.assert_array_equal(loaded.data, [[1, 1], [3, 4]])
    assert loaded.feature_names == ["column_0", "column_1"]


def test_a_saved_row_index_is_no_feature(tmp_path, frame):
    frame.to_csv(tmp_path / "index.csv")
    with pytest.raises(ValueError, match="columns without a name"):
        load_images(tmp_path / "index.csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("header.csv", b"a,b\n"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n"),
        # More values than names, of which pandas makes an index, and loses the first column.
        ("unnamed.csv", b"a,b\n1,2,3\n4,5,6\n"),
        ("trailing.csv", b"a,b\n1,2,\n3,4,\n"),
        ("binary.csv", b"a,b\n\xff\xfe,2\n"),
        ("no.parquet", b"PAR1 no table PAR1"),
    ],
)
def test_broken_tables_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        load_images(tmp_path / name)


# --- a first line that may be a row or a header ------------------------------------------------


@pytest.mark.parametrize("line", ["0,1,2", '"0","1","2"'])
def test_the_names_that_pandas_gives_are_a_header(tmp_path, line):
    (tmp_path / "rows.csv").write_text(f"{line}\n3,4,5\n6,7,8\n")
    loaded = load_images(tmp_path / "rows.csv")
    np.testing.assert_array_equal(loaded.data, [[3, 4, 5], [6, 7, 8]])
    assert loaded.feature_names == ["0", "1", "2"]
    assert len(loaded.notes) == 1
    assert "rows.csv holds numbers and was read as names of columns" in loaded.notes[0]


def test_a_row_index_beside_the_names_that_pandas_gives_is_no_feature(tmp_path):
    pd.DataFrame(np.zeros((4, 3))).to_csv(tmp_path / "index.csv")
    with pytest.raises(ValueError, match="columns without a name"):
        load_images(tmp_path / "index.csv")


@pytest.mark.parametrize("line", ["400,410,420", "1,2,3", "0,1,3", "0.0,1.0,2.0"])
def test_other_numbers_are_a_row_and_this_is_told(tmp_path, line):
    (tmp_path / "rows.csv").write_text(f"{line}\n3,4,5\n")
    loaded = load_images(tmp_path / "rows.csv")
    assert loaded.data.shape == (2, 3)
    assert len(loaded.notes) == 1
    assert "rows.csv holds numbers and was read as data" in loaded.notes[0]


def test_of_a_header_of_words_nothing_is_told(tmp_path, frame):
    write_table(frame, tmp_path / "rows.csv")
    assert load_images(tmp_path / "rows.csv").notes == []


@pytest.mark.parametrize("line", ["1.5,,3", ",2.5,3", "1.5,NA,3", "1.5,nan,3"])
def test_a_first_row_with_a_missing_value_is_no_header(tmp_path, line):
    (tmp_path / "bare.csv").write_text(f"{line}\n3,4,5\n")
    with pytest.raises(ValueError, match=r"bare.csv has 1 missing .* data row 0"):
        load_images(tmp_path / "bare.csv")


@pytest.mark.parametrize(("mark", "told"), [(";", "';'"), ("\t", "tabs")])
@pytest.mark.parametrize("rows", [["a{}b", "1{}2"], ["1{}2", "3{}4"], ["a{}b", "1,5{}2,5"]])
def test_another_separator_is_named(tmp_path, mark, told, rows):
    (tmp_path / "rows.csv").write_text("\n".join(row.format(mark) for row in rows) + "\n")
    with pytest.raises(ValueError, match=f"rows.csv .*separated by {told}.* commas"):
        load_images(tmp_path / "rows.csv")

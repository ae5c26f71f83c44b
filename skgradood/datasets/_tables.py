"""Rows from ``.csv`` and ``.parquet`` files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from skgradood.utils.optional import import_extra

_SEPARATORS = {";": "';'", "\t": "tabs"}


def load_table(path: Path) -> Bunch:
    """Read a table of numbers.

    Returns
    -------
    Bunch
        ``data``: ndarray of shape (n, d), float64; ``feature_names``: d str; ``notes``: what was
        decided about a first line that may be a row or a header.

    Raises
    ------
    ValueError
        For a file that cannot be parsed, columns that are not numeric or have no name, and
        missing or infinite values; columns and rows are named.
    """
    pandas = import_extra("pandas", extra="tables")
    try:
        frame, notes = _READERS[path.suffix.lower()](pandas, path)
    except (ValueError, OSError) as error:
        if isinstance(error, (FileNotFoundError, PermissionError)):
            raise
        what = str(error).strip()
        raise ValueError(f"{path} is not a readable table: {what}{_separated(path)}") from error
    _check_columns(frame, path)
    rows = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    check_finite(rows, frame.columns, path)
    names = [str(column) for column in frame.columns]
    return Bunch(data=rows, feature_names=names, notes=notes)


def _read_csv(pandas: Any, path: Path) -> tuple[Any, list[str]]:
    # As text, since pandas renames repeated names ("1.0" to "1.0.1"); and two lines, since it takes
    # for an index what a first row has more of than there are names, and here refuses it.
    top = pandas.read_csv(path, header=None, nrows=2, dtype=str)
    first = list(top.iloc[0].fillna(""))
    filled = [cell for cell in first if cell]
    if not filled or not all(_is_number(cell) for cell in filled):
        return pandas.read_csv(path), []
    if _are_default_names(first):
        return pandas.read_csv(path), [_first_line(path, "names of columns")]
    # It is a row, and must not be lost as a header.
    frame = pandas.read_csv(path, header=None)
    frame.columns = [f"column_{index}" for index in range(frame.shape[1])]
    return frame, [_first_line(path, "data, not as names of columns")]


def _are_default_names(cells: list[str]) -> bool:
    """Whether they are 0, 1, ..., the names that pandas writes, perhaps beside a row index."""
    names = cells if cells[0] else cells[1:]
    return names == [str(index) for index in range(len(names))]


def _first_line(path: Path, what: str) -> str:
    return f"the first line of {path} holds numbers and was read as {what}"


def _read_parquet(pandas: Any, path: Path) -> tuple[Any, list[str]]:
    import_extra("pyarrow", extra="tables")
    return pandas.read_parquet(path, engine="pyarrow"), []


_READERS = {".csv": _read_csv, ".parquet": _read_parquet}
TABLE_SUFFIXES = frozenset(_READERS)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_columns(frame: Any, path: Path) -> None:
    if frame.shape[0] == 0 or frame.shape[1] == 0:
        raise ValueError(f"{path} holds {frame.shape[0]} rows of {frame.shape[1]} columns")
    unnamed = [name for name in frame.columns if str(name).startswith("Unnamed: ")]
    if unnamed:
        raise ValueError(
            f"{path} has columns without a name ({', '.join(map(str, unnamed))}): probably a saved "
            "row index, which is no feature; name the column or remove it "
            "(pandas: to_csv(..., index=False))"
        )
    other = [str(name) for name, dtype in frame.dtypes.items() if not _is_numeric(dtype)]
    if other:
        raise ValueError(
            f"{path} has columns that are not numeric: {', '.join(other)}; "
            f"encode them as numbers or remove them{_separated(path)}"
        )


def _is_numeric(dtype: Any) -> bool:
    return dtype.kind in "biuf"


def _separated(path: Path) -> str:
    """Advice for a CSV file whose first line seems to be separated by something else."""
    if path.suffix.lower() != ".csv":
        return ""
    with path.open(encoding="utf-8", errors="replace") as stream:
        line = stream.readline()
    names = [name for mark, name in _SEPARATORS.items() if mark in line and "," not in line]
    return f"; it seems to be separated by {names[0]}, and must be by commas" if names else ""


def check_finite(rows: np.ndarray, columns: Sequence[Any], path: Path) -> None:
    """Refuse missing and infinite values; ValueError names the file, the row and the column."""
    bad_rows, bad_columns = np.nonzero(~np.isfinite(rows))
    if len(bad_rows):
        raise ValueError(
            f"{path} has {len(bad_rows)} missing or infinite values, the first in data row "
            f"{bad_rows[0]}, column {columns[bad_columns[0]]!r}; fill them or drop the rows"
        )

"""Rows from ``.csv`` and ``.parquet`` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from skgradood.utils.optional import import_extra


def load_table(path: Path) -> tuple[np.ndarray, list[str]]:
    """Read a table of numbers.

    Returns
    -------
    rows : ndarray of shape (n, d), float64
    feature_names : list of d str

    Raises
    ------
    ValueError
        For a file that cannot be parsed, columns that are not numeric or have no name, and
        missing or infinite values; columns and rows are named.
    """
    pandas = import_extra("pandas", extra="tables")
    try:
        frame = _READERS[path.suffix.lower()](pandas, path)
    except (ValueError, OSError) as error:
        if isinstance(error, (FileNotFoundError, PermissionError)):
            raise
        raise ValueError(f"{path} is not a readable table: {error}") from error
    _check_columns(frame, path)
    rows = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    _check_finite(rows, frame, path)
    return rows, [str(column) for column in frame.columns]


def _read_csv(pandas: Any, path: Path) -> Any:
    # As text, since pandas renames repeated names ("1.0" to "1.0.1"); and two lines, since it takes
    # for an index what a first row has more of than there are names, and here refuses it.
    top = pandas.read_csv(path, header=None, nrows=2, dtype=str, keep_default_na=False)
    if not all(_is_number(name) for name in top.iloc[0]):
        return pandas.read_csv(path)
    # The first line holds numbers: it is a row, and must not be lost as a header.
    frame = pandas.read_csv(path, header=None)
    frame.columns = [f"column_{index}" for index in range(frame.shape[1])]
    return frame


def _read_parquet(pandas: Any, path: Path) -> Any:
    import_extra("pyarrow", extra="tables")
    return pandas.read_parquet(path, engine="pyarrow")


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
            "encode them as numbers or remove them"
        )


def _is_numeric(dtype: Any) -> bool:
    return dtype.kind in "biuf"


def _check_finite(rows: np.ndarray, frame: Any, path: Path) -> None:
    bad_rows, bad_columns = np.nonzero(~np.isfinite(rows))
    if len(bad_rows):
        raise ValueError(
            f"{path} has {len(bad_rows)} missing or infinite values, the first in data row "
            f"{bad_rows[0]}, column {frame.columns[bad_columns[0]]!r}; fill them or drop the rows"
        )

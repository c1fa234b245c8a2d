"""Columns of a CSV or Parquet file as numbers or texts.

A CSV file's values are read as text and parsed here, so that what a column holds does not depend on what a version of pyarrow takes it for.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from dropout_trainer.readers.failures import invalid, listed, misspelt
from dropout_trainer.readers.uri import read_bytes

Numbers = np.ndarray[tuple[int], np.dtype[np.float64]]
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
"""Where numbers are read; of text only the empty one is missing."""
PARQUET_ENDINGS = (".parquet", ".pq")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LARGEST_BLOCK = 2**31 - 1
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)


@dataclass(frozen=True)
class Columns:
    """The rows of a file, oldest first as it has them."""

    uri: str
    table: Any

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def names(self) -> list[str]:
        return list(self.table.column_names)

    def require(self, field: str, wanted: Sequence[str]) -> None:
        """Raises StageFailure that lists the columns when one of those is not there."""
        for name in wanted:
            if name not in self.names:
                raise misspelt(field, f"there is no column '{name}' in {self.uri}; its columns are {listed(self.names)}")

    def take(self, rows: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> "Columns":
        """The rows where that is true, [N]."""
        return Columns(self.uri, self.table.filter(pa.array(rows)))

    def numbers(self, name: str, field: str, remedy: str) -> Numbers:
        """[N], NaN where there is no value. Raises StageFailure that names a value which is no finite number."""
        column = _plain(self.table.column(name))
        if pa.types.is_string(column.type):
            column = _parsed(column, name, field, remedy)
        elif pa.types.is_boolean(column.type):
            column = column.cast(pa.uint8())
        elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)
                  or pa.types.is_null(column.type)):
            raise invalid(field, f"column '{name}' holds {column.type}, not numbers; {remedy}")
        values = np.array(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
        if np.isinf(values).any():
            raise invalid(field, f"column '{name}' holds infinity in row {1 + int(np.isinf(values).argmax())}; replace or drop that row")
        return values

    def texts(self, name: str) -> list[str]:
        """Without white space around them, "" where there is no value. Whole numbers have no point: 1.0 and 1 are the same name."""
        column = _plain(self.table.column(name))
        if pa.types.is_string(column.type):
            return [(value or "").strip() for value in column.to_pylist()]
        return [_text(value) for value in column.to_pylist()]


def read_csv(uri: str) -> Columns:
    """A CSV file as RFC 4180 has it, in UTF-8, its columns' names in the first line. Raises StageFailure for anything else."""
    content = read_bytes(uri, unpack=True).removeprefix(BYTE_ORDER_MARK)
    try:
        header = next(csv.reader(io.TextIOWrapper(io.BytesIO(content), "utf-8", newline="")), [])
        _require_columns(header, uri)
        table = pyarrow.csv.read_csv(
            io.BytesIO(content),
            pyarrow.csv.ReadOptions(use_threads=False, block_size=min(len(content) + 1, LARGEST_BLOCK)),
            pyarrow.csv.ParseOptions(newlines_in_values=True),
            pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False),
        )
    except (pa.ArrowException, ValueError, csv.Error) as error:
        raise invalid("uri", f"{uri} cannot be read as CSV in UTF-8: {_first_line(error)}") from None
    return _with_rows(uri, table)


def read_parquet(uri: str) -> Columns:
    """Raises StageFailure when it is no Parquet file."""
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(read_bytes(uri)), use_threads=False)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise invalid("uri", f"{uri} cannot be read as Parquet: {_first_line(error)}") from None
    _require_columns(table.column_names, uri)
    return _with_rows(uri, table)


def read_either(uri: str) -> Columns:
    """Parquet by the name's ending, else CSV."""
    return read_parquet(uri) if uri.lower().endswith(PARQUET_ENDINGS) else read_csv(uri)


def _require_columns(names: Sequence[str], uri: str) -> None:
    if not names:
        raise invalid("uri", f"{uri} is empty; its first line must name the columns")
    if unnamed := [number for number, name in enumerate(names, 1) if not name.strip()]:
        remedy = "give it one, or leave it out (pandas writes such an index unless told index=False)"
        raise invalid("uri", f"{uri}: column {unnamed[0]} has no name; {remedy}")
    if twice := [name for name in dict.fromkeys(names) if list(names).count(name) > 1]:
        raise invalid("uri", f"{uri} has more than one column called {listed(twice)}; rename them")


def _with_rows(uri: str, table: Any) -> Columns:
    if table.num_rows == 0:
        raise invalid("uri", f"{uri} has columns but no rows")
    return Columns(uri, table)


def _plain(column: Any) -> Any:
    """One array, of values where it was of a dictionary's, of pa.string() where it was any kind of string."""
    array = column.combine_chunks()
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(pa.string()) if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type) else array


def _parsed(column: Any, name: str, field: str, remedy: str) -> Any:
    trimmed = pc.utf8_trim_whitespace(column)
    given = pc.if_else(pc.is_in(trimmed, pa.array(MISSING)), pa.scalar(None, pa.string()), trimmed)
    try:
        return pc.replace_substring_regex(given, r"^\+", "").cast(pa.float64())
    except pa.ArrowInvalid:
        texts = ((row, text) for row, text in enumerate(given.to_pylist(), 1) if text is not None and not NUMBER.fullmatch(text))
        row, text = next(texts, (0, "?"))
        raise invalid(field, f"column '{name}' holds text, as '{text[:40]}' in row {row}; {remedy}") from None


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")[:300]

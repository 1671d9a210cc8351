"""A CSV or Parquet file as columns of text, because an id `007` must not become the number 7."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from embedcache.errors import InputError, suggest
from embedcache.store.parquet import read_parquet
from embedcache.types import IntArray, StringArray, strings

MISSING = ("", "NA", "N/A", "#N/A", "<NA>", "n.a.", "NaN", "NaT", "null", "unknown", "?", "-")
"""What a cell says when the value is not known, in any case of letters."""

_MISSING_WORDS = frozenset(word.lower() for word in MISSING)
_LONGEST_MISSING = max(map(len, _MISSING_WORDS))
_LEADING_ZERO = re.compile(r"[+-]?0\d")


def is_missing(word: str) -> bool:
    """Whether a cell says that its value is not known."""
    return len(word) <= _LONGEST_MISSING and word.lower() in _MISSING_WORDS


def number(word: str) -> float | None:
    """The number that `word` writes, or None. `007` is no number: its zeros mean something."""
    if _LEADING_ZERO.match(word) or "_" in word:
        return None
    try:
        value = float(word)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


@dataclass(frozen=True)
class Column:
    """A column as its distinct words, and which of them each row has."""

    name: str
    words: list[str]
    """Without leading and trailing blanks; "" for null."""
    codes: IntArray
    """Shape (rows,): index into `words`."""

    def counts(self) -> IntArray:
        """Rows per word."""
        return np.bincount(self.codes, minlength=len(self.words))

    def text(self) -> StringArray:
        """Shape (rows,)."""
        return strings(self.words)[self.codes]

    def numbers(self) -> npt.NDArray[np.float64] | None:
        """A number per word, NaN for missing, if every known word is one and one is known; else None."""
        values = [None if is_missing(word) else number(word) for word in self.words]
        known = [value for word, value in zip(self.words, values, strict=True) if not is_missing(word)]
        if not known or None in known:
            return None
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


@dataclass(frozen=True)
class Table:
    """A table by columns. Rows are counted from 1 in messages, as the user would."""

    name: str
    """The file's base name."""
    data: pa.Table

    def __len__(self) -> int:
        return int(self.data.num_rows)

    @property
    def names(self) -> list[str]:
        """The columns' names, in the file's order."""
        return list(self.data.column_names)

    def column(self, name: str) -> Column:
        """A column by its exact name. Raises UnknownNameError if there is none."""
        if name not in self.names:
            raise suggest(f"column of {self.name}", name, self.names)
        text = _as_text(self.data[name])
        encoded = pc.utf8_trim_whitespace(pc.fill_null(text, "")).combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.unify_dictionaries().combine_chunks()
        return Column(name, encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64))

    def where(self, row: int) -> str:
        """How a message names the row at position `row`."""
        return f"row {row + 1} of {self.name}"

    def find(self, explicit: str | None, candidates: Sequence[str]) -> str | None:
        """The column that the user named, or else the first of `candidates` that is there, whatever its case and signs.

        Raises InputError if the named column is not there.
        """
        if explicit is not None:
            if explicit not in self.names:
                raise InputError(str(suggest(f"column of {self.name}", explicit, self.names)))
            return explicit
        plain = {plain_name(name): name for name in reversed(self.names)}
        return next((plain[candidate] for candidate in candidates if candidate in plain), None)


def plain_name(name: str) -> str:
    """A column's name in lower case without signs: `Patient ID`, `patient_id` and `PatientID` are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def read_table(path: Path) -> Table:
    """The table in a CSV (comma, semicolon or tab) or Parquet file.

    Raises InputError if it is not there, can not be read, has no rows, or has two columns of one name.
    """
    if path.is_dir():
        raise InputError(f"{path.name} is a folder, and a table is a CSV or Parquet file; is this --dataset folder?")
    if not path.is_file():
        raise InputError(f"there is no table {path.name}; give the path of a CSV or Parquet file.")
    try:
        data = read_parquet(path) if _is_parquet(path) else _read_csv(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 text; save it as CSV in UTF-8, or as Parquet.") from error
    except (pa.ArrowException, OSError) as error:
        # Arrow's own words may hold a whole row, and with it a patient
        reason = "its text is not UTF-8" if "UTF8" in str(error) else f"it is damaged ({type(error).__name__})"
        raise InputError(f"{path.name} can not be read as CSV or Parquet: {reason}; save it anew.") from None
    repeated = {name for name in data.column_names if data.column_names.count(name) > 1}
    if repeated:
        raise InputError(f"{path.name} has two columns called {min(repeated)!r}; rename one.")
    if data.num_rows == 0:
        raise InputError(f"{path.name} is empty: it has no row below its header.")
    return Table(path.name, data)


def _is_parquet(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


def _read_csv(path: Path) -> pa.Table:
    with open(path, encoding="utf-8-sig") as file:
        header = file.readline()
    if not header.strip():
        raise InputError(f"{path.name} is empty: it has no header line.")
    counts = {mark: header.count(mark) for mark in (",", ";", "\t")}
    delimiter = max(counts, key=lambda mark: counts[mark])
    uneven: list[pyarrow.csv.InvalidRow] = []

    def refuse(row: pyarrow.csv.InvalidRow) -> str:
        uneven.append(row)
        return "skip"

    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=refuse)
    in_order = pyarrow.csv.ReadOptions(use_threads=False)  # else Arrow does not know the number of a row
    with pyarrow.csv.open_csv(path, in_order, parse) as reader:
        names = reader.schema.names
    uneven.clear()
    as_text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    table = pyarrow.csv.read_csv(path, in_order, parse, as_text)
    if uneven:
        row = uneven[0]
        raise InputError(
            f"row {row.number - 1} of {path.name} has {row.actual_columns} cells, the header has {row.expected_columns}; "
            f"quote cells that hold {delimiter!r}."
        )
    return table


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Any column of plain values as text; a whole number that pandas stored as a float loses its `.0`."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _as_text(column.cast(kind.value_type))
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        return pa.chunked_array([pa.nulls(len(column), pa.string())])
    return column.cast(pa.string())


@dataclass(frozen=True)
class TableColumns(Mapping[str, npt.NDArray[Any]]):
    """The columns of a table as arrays, each made when it is asked for, at the rows `rows`."""

    table: Table
    rows: IntArray

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self.table.names:
            raise KeyError(name)
        column = self.table.column(name)
        numbers = column.numbers()
        if numbers is not None:
            return numbers[column.codes][self.rows]
        known = strings(["" if is_missing(word) else word for word in column.words])
        return known[column.codes][self.rows]

    def __iter__(self) -> Iterator[str]:
        return iter(self.table.names)

    def __len__(self) -> int:
        return len(self.table.names)

"""Which samples of a dataset are wanted: `--limit`, `--where`, `--sample-list`.

    --where "age >= 18 and `View Position` == 'PA' and sex in ('F', 'M') and not 'Edema' in findings"

An expression compares columns with numbers and texts by == != < <= > >=, `in` and `not in` (a column in a list of values,
or a text in a column's text), joined by `and`, `or` and `not`. A column whose name has blanks is written in backticks, or
with `_` for each of its other signs. A comparison with a missing value is neither true nor false, and selects nothing,
under `not` either. The expression is parsed, never evaluated as code.
"""

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.datasets.base import Columns
from embedcache.datasets.columns import read_table
from embedcache.errors import InputError, suggest
from embedcache.store.labels import rows_of
from embedcache.store.texts import locate
from embedcache.types import IntArray, Labels, Samples, strings

_TOKENS = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|`([^`]*)`""")
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], npt.NDArray[np.bool_]]] = {
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
_LANGUAGE = "an expression has columns, numbers, texts, == != < <= > >=, in, not in, and, or, not"


def select(
    samples: Samples,
    columns: Columns,
    limit: int | None = None,
    where: str | None = None,
    sample_list: str | Path | None = None,
) -> IntArray:
    """The positions of the wanted samples, ascending: those in the list for which `where` holds, the first `limit`.

    `columns` are those of the dataset, aligned with `samples` and its natural ids.
    Raises InputError for an expression that is none, an id of the list that is unknown, and where nothing is left.
    """
    wanted = np.ones(len(samples), dtype=bool)
    if sample_list is not None:
        wanted &= _listed(samples, Path(sample_list))
    if where is not None:
        wanted &= matching(where, columns, len(samples))
    if limit is not None and limit < 1:
        raise InputError(f"--limit must be at least 1. Got {limit}.")
    index = np.flatnonzero(wanted)[:limit]
    if not len(index):
        raise InputError(f"no sample of {len(samples):,} is selected; loosen --where or --sample-list.")
    return index


def labels_of(labels: Labels, samples: Samples) -> Labels:
    """The rows of `labels` that speak of `samples` (in a patient-level task, of their patients)."""
    mine = np.where(
        labels.sample != "", locate(labels.sample, samples.id) >= 0, locate(labels.patient, samples.patient_id) >= 0
    )
    return rows_of(labels, np.flatnonzero(mine))


def matching(where: str, columns: Columns, n: int) -> npt.NDArray[np.bool_]:
    """Shape (n,): for which rows the expression holds. Raises InputError if it is none."""
    quoted: list[str] = []

    def mark(token: re.Match[str]) -> str:
        if token[1] is not None:
            return token[1]
        quoted.append(token[2])
        return f"__column_{len(quoted) - 1}__"

    try:
        # blanks around would be an indentation to the parser
        tree = ast.parse(_TOKENS.sub(mark, where).strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError) as error:
        raise InputError(f"--where {where!r} is no expression: {_LANGUAGE}.") from error
    names = {f"__column_{i}__": name for i, name in enumerate(quoted)}
    return _Reader(where, columns, names, n).truth(tree.body).yes


@dataclass(frozen=True)
class _Truth:
    """Per row, whether an expression is true, and whether it is false; a missing value makes it neither."""

    yes: npt.NDArray[np.bool_]
    no: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Reader:
    where: str
    columns: Columns
    quoted: Mapping[str, str]
    n: int

    def truth(self, node: ast.expr) -> _Truth:
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                parts = [self.truth(value) for value in values]
                return _Truth(np.all([p.yes for p in parts], axis=0), np.any([p.no for p in parts], axis=0))
            case ast.BoolOp(op=ast.Or(), values=values):
                parts = [self.truth(value) for value in values]
                return _Truth(np.any([p.yes for p in parts], axis=0), np.all([p.no for p in parts], axis=0))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self.truth(operand)
                return _Truth(inner.no, inner.yes)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                sides = [left, *comparators]
                parts = [self._compare(sides[i], op, sides[i + 1]) for i, op in enumerate(ops)]
                return _Truth(np.all([p.yes for p in parts], axis=0), np.any([p.no for p in parts], axis=0))
        raise self._error(node, "is no comparison")

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> _Truth:
        if isinstance(op, ast.In | ast.NotIn):
            truth = self._within(left, right)
            return truth if isinstance(op, ast.In) else _Truth(truth.no, truth.yes)
        if type(op) not in _COMPARISONS:
            raise self._error(left, "is compared by a word that is not known here")
        a, b = self._value(left), self._value(right)
        if not (isinstance(a, np.ndarray) or isinstance(b, np.ndarray)):
            raise self._error(left, "is compared, but no column is")
        if _is_text(a) != _is_text(b):
            number, text = (right, left) if _is_text(a) else (left, right)
            raise self._error(number, f"is a number, and {ast.unparse(text)} a text; quote texts, and only texts")
        known = np.broadcast_to(_known(a) & _known(b), self.n)
        result = np.broadcast_to(_COMPARISONS[type(op)](a, b), self.n)
        return _Truth(result & known, ~result & known)

    def _within(self, left: ast.expr, right: ast.expr) -> _Truth:
        if isinstance(right, ast.Tuple | ast.List | ast.Set):
            parts = [self._compare(left, ast.Eq(), value) for value in right.elts]
            if not parts:
                raise self._error(right, "is empty")
            return _Truth(np.any([p.yes for p in parts], axis=0), np.all([p.no for p in parts], axis=0))
        text, column = self._value(left), self._value(right)
        if not isinstance(text, str) or not isinstance(column, np.ndarray) or not _is_text(column):
            raise self._error(right, "must be a list of values, or a column of texts after a text")
        found = np.strings.find(column, text) >= 0
        return _Truth(found & _known(column), ~found & _known(column))

    def _value(self, node: ast.expr) -> Any:
        """A column's array, a number or a text."""
        match node:
            case ast.Name(id=name):
                return self._column(self.quoted.get(name, name))
            case ast.Constant(value=bool() | None):
                raise self._error(node, "is no value here; compare with 0, 1 or a text")
            case ast.Constant(value=int() | float() | str() as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -value
        raise self._error(node, f"is not allowed: {_LANGUAGE}")

    def _column(self, name: str) -> npt.NDArray[Any]:
        if name in self.columns:
            return self.columns[name]
        alike = [column for column in self.columns if re.sub(r"\W", "_", column) == name]
        if len(alike) > 1:
            raise InputError(f"--where: {name!r} may be {' or '.join(map(repr, alike))}; write it in backticks.")
        if not alike:
            raise InputError(f"--where: {suggest('column', name, self.columns)}")
        return self.columns[alike[0]]

    def _error(self, node: ast.expr, what: str) -> InputError:
        text = ast.unparse(node)
        for mark, name in self.quoted.items():
            text, what = text.replace(mark, f"`{name}`"), what.replace(mark, f"`{name}`")
        return InputError(f"--where {self.where!r}: {text} {what}.")


def _is_text(value: Any) -> bool:
    return value.dtype.kind == "T" if isinstance(value, np.ndarray) else isinstance(value, str)


def _known(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return np.True_
    return value != "" if _is_text(value) else ~np.isnan(value)


def _listed(samples: Samples, path: Path) -> npt.NDArray[np.bool_]:
    """Which samples the file names: one id per line, or a CSV with a column `sample`."""
    if not path.is_file():
        raise InputError(f"there is no sample list {path.name}; give a file with one id per line.")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is no text file; a sample list has one id per line.") from error
    head = [name.strip().strip('"') for name in re.split("[,;\t]", lines[0])] if lines else []
    listed = strings([line for line in lines if line])
    ids = read_table(path).column("sample").text() if "sample" in head else listed
    if not len(ids):
        raise InputError(f"{path.name} is empty; a sample list has one id per line.")
    found = locate(ids, samples.id)
    unknown = np.flatnonzero(found < 0)
    if len(unknown):
        raise InputError(
            f"{len(unknown)} of the {len(ids)} ids in {path.name} are no sample of the dataset, the first is id "
            f"{int(unknown[0]) + 1} of the list; take them out."
        )
    wanted = np.zeros(len(samples), dtype=bool)
    wanted[found] = True
    return wanted

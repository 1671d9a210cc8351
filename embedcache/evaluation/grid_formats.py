"""A grid's table as CSV, LaTeX or JSON."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from embedcache.errors import suggest
from embedcache.evaluation.grid_table import MARK, GridColumn, GridFigure, GridTable
from embedcache.store.files import replace_file

_ESCAPES: Mapping[str, str] = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}


def write_table(table: GridTable, path: str | Path) -> Path:
    """Write the table; the suffix of `path` names the format: `.csv`, `.tex`, `.json`. Raises UnknownNameError for another."""
    path = Path(path)
    replace_file(path, table_format(path)(table).encode())
    return path


def table_format(path: Path) -> Callable[[GridTable], str]:
    """What makes the text of a file of this name."""
    if path.suffix not in _FORMATS:
        raise suggest("format of a table", path.suffix or path.name, _FORMATS)
    return _FORMATS[path.suffix]


def to_json(table: GridTable) -> str:
    """Its columns, rows and notes, by the names of their fields."""
    return json.dumps(asdict(table), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(table: GridTable) -> str:
    """A line per row; of each column the value, its interval, and 1 for one of the best, 0 for another, nothing untested."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [column.title for column in table.columns]
    writer.writerow(
        [*table.headings(), *(f"{name}{part}" for name in names for part in ("", " low", " high", " best"))]
    )
    for title, row in zip(table.titles(), table.rows, strict=True):
        cells: list[str] = []
        for column, figure in zip(table.columns, row.figures, strict=True):
            numbers = (figure.value, figure.low, figure.high) if figure is not None else (None, None, None)
            cells += ["" if number is None else repr(number) for number in numbers]
            tested = column.compared and not row.group and figure is not None
            cells.append(str(int(figure.best)) if tested and figure is not None else "")
        writer.writerow([*title, *cells])
    return text.getvalue()


def to_latex(table: GridTable) -> str:
    """A `tabular` with booktabs' rules; bold stands for the best of a column."""
    left = len(table.headings())
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{'l' * left}{'c' * len(table.columns)}}}",
        r"\toprule",
    ]
    for k, heading in enumerate((_dataset, _task, _metric)):
        texts = [heading(column) for column in table.columns]
        names = table.headings() if k == 2 else ("",) * left
        # a heading is one only where what stands above it is
        keys = [tuple(above(column) for above in (_dataset, _task, _metric)[: k + 1]) for column in table.columns]
        spans = [len(list(run)) for _, run in groupby(keys)] if k < 2 else [1] * len(texts)
        cells, at = [], 0
        for span in spans:
            text = latex_escape(texts[at])
            cells.append(rf"\multicolumn{{{span}}}{{c}}{{{text}}}" if span > 1 else text)
            at += span
        lines.append(" & ".join([*map(latex_escape, names), *cells]) + r" \\")
    lines.append(r"\midrule")
    for title, row in zip(table.titles(), table.rows, strict=True):
        lines.append(" & ".join([*map(latex_escape, title), *map(_latex_figure, row.figures)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", f"% in brackets: 95% intervals clustered by patient; bold: {MARK}"]
    lines += [f"% {note}" for note in table.notes]
    return "\n".join(lines) + "\n"


def latex_escape(text: str) -> str:
    """The text with every character that LaTeX takes for a command written out."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def _dataset(column: GridColumn) -> str:
    return column.dataset


def _task(column: GridColumn) -> str:
    return column.task


def _metric(column: GridColumn) -> str:
    return column.figure


def _latex_figure(figure: GridFigure | None) -> str:
    if figure is None or figure.value is None:
        return "--"
    value = rf"\textbf{{{figure.value:.3f}}}" if figure.best else f"{figure.value:.3f}"
    if figure.low is None or figure.high is None:
        return value
    between = " to " if figure.low < 0 else "--"
    return f"{value} ({figure.low:.3f}{between}{figure.high:.3f})"


_FORMATS: Mapping[str, Callable[[GridTable], str]] = {".csv": to_csv, ".tex": to_latex, ".json": to_json}

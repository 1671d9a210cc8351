"""What the terminal shows: one JSON document or a table on stdout, progress and errors on stderr."""

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]
PLAIN_LINE_SECONDS = 30.0
"""Without a terminal, progress is one plain line in this time."""


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether `--json` was given, found before the arguments are parsed: a wrong argument is told as JSON too."""
    return "--json" in arguments


def fail(message: str, kind: str, code: int, as_json: bool) -> NoReturn:
    """One line on stderr, then the exit code."""
    line = " ".join(message.split())
    print(
        json.dumps({"error": line, "type": kind, "exit_code": code}) if as_json else f"error: {line}", file=sys.stderr
    )
    sys.exit(code)


def fail_unexpectedly(error: Exception, as_json: bool) -> NoReturn:
    """One line for a bug of ours; its traceback is for EMBEDCACHE_DEBUG=1, since it may hold paths."""
    if os.environ.get("EMBEDCACHE_DEBUG"):
        raise error
    message = (
        f"unexpected {type(error).__name__}: a bug of embedcache; EMBEDCACHE_DEBUG=1 shows the traceback to report"
    )
    fail(message, type(error).__name__, 70, as_json)


def plain(value: Any) -> Any:
    """Dataclasses, paths and mappings as JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple | set):
        return [plain(v) for v in value]
    return value.item() if hasattr(value, "item") else value


def print_json(value: Any) -> None:
    """One document on stdout."""
    print(json.dumps(plain(value), allow_nan=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """A table on stdout; numbers to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    cells = [[str(c) for c in row] for row in rows]
    for i, name in enumerate(columns):
        numeric = all(row[i][:1].isdigit() or row[i] in ("", "-") for row in cells)
        table.add_column(name, justify="right" if numeric and cells else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def tell(line: str) -> None:
    """A notice for the user, on stderr."""
    print(line, file=sys.stderr, flush=True)


def silent(_: str) -> None:
    """Under --json, notices are in the document."""


def size(count: float) -> str:
    """Bytes for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


class ProgressLine:
    """Progress of a long run: a rich bar on a terminal, else a plain line each 30 s; nothing under --json."""

    def __init__(self, what: str, quiet: bool) -> None:
        self.what = what
        self.quiet = quiet
        self.started = self.last = time.monotonic()
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, done: int, total: int, note: str) -> None:
        """`note` is said beside the numbers, for example the stage that binds."""
        if self.quiet:
            return
        if sys.stderr.isatty():
            self._bar(total).update(self.task, completed=done, note=note)
            return
        now = time.monotonic()
        if now - self.last >= PLAIN_LINE_SECONDS:
            self.last = now
            rate = done / (now - self.started)
            left = (total - done) / rate if rate else float("inf")
            tell(f"{self.what}: {done} of {total}, {rate:.1f} a second, {left / 60:.1f} minutes left, {note}")

    def _bar(self, total: int) -> Any:
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn(self.what),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task(self.what, total=total, note="", rate="")
            self.bar.start()
        elapsed = time.monotonic() - self.started
        done = self.bar.tasks[0].completed
        self.bar.update(self.task, rate=f"{done / elapsed:.1f}/s" if elapsed else "")
        return self.bar

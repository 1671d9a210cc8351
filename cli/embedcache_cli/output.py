"""What the terminal shows: one JSON document, or text for people, on stdout; progress and errors on stderr."""

import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]
PLAIN_LINE_SECONDS = 30.0
"""Without a terminal, progress is one plain line in this time."""

REMEDIES = {
    errno.ENOSPC: "no space is left on the disk; what was committed stays, and the same command resumes once there is room",
    errno.EDQUOT: "the disk quota is used up; what was committed stays, and the same command resumes once there is room",
    errno.EACCES: "a file or folder may not be read or written by this user; look at the permissions of what was named",
    errno.EROFS: "the file system is read-only; name a folder that can be written",
    errno.ENOTDIR: "a file stands where a folder is needed; name another place, or move it away",
    errno.EEXIST: "a file stands where a folder is needed; name another place, or move it away",
    errno.EISDIR: "a folder stands where a file is needed; name another place",
    errno.ENOENT: "a file or folder is not there; make the folder first, or look for a slip in what was named",
}
"""What to do about an error of the system. It is told without its path, which may be that of a source image."""


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


def fail_of_system(error: OSError, as_json: bool) -> NoReturn:
    """One line for a full disk, a folder that may not be written and the like."""
    said = REMEDIES.get(error.errno or 0) or error.strerror or type(error).__name__
    fail(said, type(error).__name__, 2, as_json)


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
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple | set):
        return [plain(v) for v in value]
    return value.item() if hasattr(value, "item") else value


def print_json(value: Any) -> None:
    """One document on stdout."""
    print(json.dumps(plain(value), allow_nan=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; numbers to the right, columns without any content left out. A terminal folds cells at blanks."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    cells = [[str(c) for c in row] for row in rows]
    shown = [i for i in range(len(columns)) if not cells or any(row[i] for row in cells)]
    for i in shown:
        numeric = bool(cells) and all(row[i].replace(",", "").isdigit() or row[i] in ("", "-") for row in cells)
        table.add_column(columns[i], justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*(row[i] for i in shown))
    # a pipe has no width: there, lines are as long as they are
    console = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False, markup=False, emoji=False)
    with console.capture() as text:
        console.print(table)
    print("\n".join(line.rstrip() for line in text.get().splitlines()))


def print_records(records: Iterable[tuple[str, Mapping[str, object]]]) -> None:
    """Per record its title and, indented, a line for each thing that is said of it."""
    for title, lines in records:
        print(title)
        width = max((len(name) for name, value in lines.items() if str(value)), default=0)
        for name, value in lines.items():
            if str(value):
                print(f"  {name:{width}}  {value}")


def tell(line: str) -> None:
    """A notice for the user, on stderr."""
    print(line, file=sys.stderr, flush=True)


def whose_ids(store: str, scheme: str) -> str:
    """How the pseudonyms that a store's messages name are told apart, "" where its ids are no pseudonyms."""
    if scheme != "pseudonym":
        return ""
    dataset = Path(store).parent.parent
    return f"`embedcache ids show {dataset} ID` says, on the machine that extracted, which file an id stands for"


def tell_stage(stage: str) -> None:
    """What goes on now, on one line of a terminal that the next stage overwrites; "" clears it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{stage}", end="", file=sys.stderr, flush=True)


def silent(_: str) -> None:
    """Under --json, notices are in the document."""


def counted(count: int, noun: str) -> str:
    """`1 store`, `2 stores`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def size(count: float) -> str:
    """Bytes for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


class ProgressLine:
    """Progress of a long run: a rich bar on a terminal, else a plain line each 30 s; nothing under --json."""

    def __init__(
        self, what: str, quiet: bool, amount: Callable[[float], str] = lambda n: f"{n:,.3g}" if n < 10 else f"{n:,.0f}"
    ) -> None:
        self.what = what
        self.quiet = quiet
        self.amount = amount
        """How a number of what is counted is written."""
        self.started = self.last = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, done: int, total: int, note: str = "") -> None:
        """`note` is said after the numbers, for example the stage that binds."""
        if self.quiet:
            return
        now = time.monotonic()
        rate = done / (now - self.started) if now > self.started else 0.0
        left = duration((total - done) / rate) + " left" if rate else ""
        said = [f"{self.amount(done)} of {self.amount(total)}", f"{self.amount(rate)} a second", left, note]
        line = ", ".join(text for text in said if text)
        if sys.stderr.isatty():
            self._draw(done, total, line)
        elif now - self.last >= PLAIN_LINE_SECONDS:
            self.last = now
            tell(f"{self.what}: {line}")

    def _draw(self, done: int, total: int, line: str) -> None:
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self.bar = Progress(
                TextColumn(self.what),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[line]}", markup=False),
                console=Console(stderr=True),
            )
            self.bar.add_task(self.what, total=total, line="")
            self.bar.start()
        self.bar.update(self.bar.tasks[0].id, completed=done, line=line)

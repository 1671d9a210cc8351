"""The private index of a dataset's folder in a cache: which file is behind an id, and what its content was.

It lies in the user's data directory, never in the cache: a Parquet file, and beside it a journal to which a running
extraction appends a line before each commit. A lost line costs one reading of the file, never a wrong answer.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedcache.datasets.private import FILE_MODE, data_dir, private_folder
from embedcache.errors import ImageError, StoreError
from embedcache.images import SourceState, stat_source
from embedcache.store.files import locked, replace_file
from embedcache.store.objects import sync_folder
from embedcache.store.parquet import read_parquet
from embedcache.store.texts import locate, whole_numbers
from embedcache.types import IntArray, Samples, StringArray, strings

_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "path": pa.string(),
        "size": pa.int64(),
        "mtime_ns": pa.int64(),
        "digest": pa.string(),
        "slices": pa.int32(),
    },
    metadata={b"embedcache": b'{"format": "embedcache-index", "version": 1}'},
)

_JOURNAL = ".jsonl"

COLUMNS = ("path", "size", "mtime_ns", "digest", "slices")
"""What is known beside the id."""


@dataclass(frozen=True)
class IndexRow:
    """What is known of one sample's source."""

    id: str
    """The store's id."""
    path: str
    size: int
    """Bytes."""
    mtime_ns: int
    digest: str
    """SHA-256 of its content, "" while it was not read yet."""
    slices: int


class PrivateIndex:
    """The index of one dataset folder, as of when it was opened; `put` and `save` change it.

    What Parquet holds stays in columns, so that 10^6 rows open in a second; what came after lies above it by id.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stored, self._newer = _read(path)
        self._changed: dict[str, IndexRow] = {}
        self._noted: deque[str] = deque()
        """Lines for the journal, not written yet."""
        self._writing = Lock()

    @classmethod
    def open(cls, dataset_folder: Path) -> "PrivateIndex":
        """The index of a dataset's folder in a cache, empty if there is none yet. Writes nothing.

        Raises StoreError if the index is damaged.
        """
        name = hashlib.sha256(str(dataset_folder.resolve()).encode()).hexdigest()[:16]
        return cls(data_dir() / "index" / f"{name}.parquet")

    def __len__(self) -> int:
        return len(self._stored) + sum(i not in self._stored.place for i in self._newer)

    def get(self, sample_id: str) -> IndexRow | None:
        """What is known of one sample."""
        return self._newer.get(sample_id) or self._stored.get(sample_id)

    def rows(self) -> Iterator[IndexRow]:
        """All that it knows, in the order of the ids."""
        for name in sorted({*self._stored.place, *self._newer}):
            row = self.get(name)
            assert row is not None
            yield row

    def lookup(self, ids: StringArray, names: Sequence[str] = COLUMNS) -> dict[str, npt.NDArray[Any]]:
        """What is known of many, by column, each of shape (n,): `found` (bool) and `names`; where `found` is False, texts
        are "" and numbers -1.
        """
        place = locate(ids, self._stored.columns["id"])
        found = place >= 0
        columns: dict[str, npt.NDArray[Any]] = {"found": found}
        for name in names:
            values = self._stored.columns[name]
            columns[name] = np.full(len(ids), "" if values.dtype.kind == "T" else -1, dtype=values.dtype)
            columns[name][found] = values[place[found]]
        if self._newer:
            newer = list(self._newer.values())
            above = locate(ids, strings([row.id for row in newer]))
            for i in np.flatnonzero(above >= 0).tolist():
                row = newer[above[i]]
                found[i] = True
                for name in names:
                    columns[name][i] = getattr(row, name)
        return columns

    def put(self, rows: Iterable[IndexRow]) -> None:
        """Note rows, to be written by `save`; a row replaces the one of its id."""
        for row in rows:
            if self.get(row.id) != row:
                self._newer[row.id] = self._changed[row.id] = row

    def save(self) -> None:
        """Write what was put, merged with what other processes wrote meanwhile; nothing if there is nothing to write."""
        with self._writing:
            self._write_noted()
        journal = _journal(self._path)
        if not self._changed and not (journal.exists() and journal.stat().st_size):
            return
        with locked(self._lock(), FILE_MODE):
            stored, noted = _read(self._path)
            stored = stored.merged(noted | self._changed)
            replace_file(self._path, stored.encode(), FILE_MODE)
            # cut short, not removed: another process may be about to append to this very file
            if journal.exists():
                os.truncate(journal, 0)
        self._stored, self._newer, self._changed = stored, {}, {}

    def remove(self) -> None:
        """Forget all of it, on disk too: its cache is gone, and nobody else uses it."""
        for path in (self._path, _journal(self._path), self._lock()):
            path.unlink(missing_ok=True)

    def note_digest(self, sample_id: str, size: int, mtime_ns: int, digest: str) -> None:
        """Note what a source was when its pixels were read; for a sample that was put and saved.

        It survives a kill and a power loss once `settle` was called.
        """
        name = json.dumps(sample_id)  # of all of the line only this can need an escape
        self._noted.append(f'{{"id": {name}, "size": {size}, "mtime_ns": {mtime_ns}, "digest": "{digest}"}}')
        old = self.get(sample_id)
        if old is not None:
            self._newer[sample_id] = IndexRow(old.id, old.path, size, mtime_ns, digest, old.slices)

    def settle(self) -> None:
        """Make what was noted since the last call durable: a shard is committed only after the digests of its sources.

        Any thread may call it while another notes.
        """
        with self._writing:  # who comes second finds all on disk
            if not self._write_noted():
                return
            fd = os.open(_journal(self._path), os.O_RDWR | os.O_CREAT, FILE_MODE)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            sync_folder(self._path.parent)

    def _write_noted(self) -> bool:
        """Append to the journal what was noted, all at once: a lock and a file opened for each note take longer than a GPU
        takes for the image. Returns whether there was anything.
        """
        lines = [self._noted.popleft() for _ in range(len(self._noted))]
        if lines:
            self.append(_JOURNAL, "\n".join(lines))
        return bool(lines)

    def beside(self, suffix: str) -> Path:
        """The file beside the index that ends so. It need not exist."""
        return self._path.with_suffix(suffix)

    def append(self, suffix: str, line: str) -> None:
        """Append a line (or several) to the file beside the index that ends with `suffix`, whole, whoever else does so."""
        with locked(self._lock(), FILE_MODE):
            fd = os.open(self.beside(suffix), os.O_RDWR | os.O_APPEND | os.O_CREAT, FILE_MODE)
            try:
                end = os.fstat(fd).st_size
                # a killed process may have left half a line: it must not swallow this one
                torn = end > 0 and os.pread(fd, 1, end - 1) != b"\n"
                left = (("\n" if torn else "") + line + "\n").encode()
                while left:  # a write may be short, on a full disk for one
                    left = left[os.write(fd, left) :]
            finally:
                os.close(fd)

    def suspects(self, samples: Samples) -> IntArray:
        """Positions of the samples whose source has another size or time than was noted, or is no longer there.

        Only what the index knows can be suspected. A suspicion is decided by the content's digest.
        """
        known = self.lookup(samples.id, ("size", "mtime_ns"))
        place = np.flatnonzero(known["found"])
        columns = (place, samples.path[place], known["size"][place], known["mtime_ns"][place])
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return np.array([i for i, path, size, time in rows if _state(path) != (size, time)], dtype=np.int64)

    def _lock(self) -> Path:
        private_folder(data_dir())
        return private_folder(self._path.parent) / f"{self._path.stem}.lock"


@dataclass(frozen=True)
class _Stored:
    """What the Parquet file holds, by column, sorted by id."""

    columns: dict[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["id"])

    @cached_property
    def place(self) -> dict[str, int]:
        return {sample_id: i for i, sample_id in enumerate(self.columns["id"].tolist())}

    def get(self, sample_id: str) -> IndexRow | None:
        i = self.place.get(sample_id)
        if i is None:
            return None
        name, path, size, mtime_ns, digest, slices = (self.columns[column][i] for column in ("id", *COLUMNS))
        return IndexRow(str(name), str(path), int(size), int(mtime_ns), str(digest), int(slices))

    def merged(self, rows: Mapping[str, IndexRow]) -> "_Stored":
        """With `rows` in the place of those of the same ids."""
        kept = locate(self.columns["id"], strings(list(rows))) < 0
        columns = {
            name: np.concatenate([values[kept], np.array([getattr(row, name) for row in rows.values()], values.dtype)])
            for name, values in self.columns.items()
        }
        order = np.argsort(columns["id"], kind="stable")
        return _Stored({name: values[order] for name, values in columns.items()})

    def encode(self) -> bytes:
        """The Parquet file."""
        table = pa.table({name: values.tolist() for name, values in self.columns.items()}, schema=_SCHEMA)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return bytes(sink.getvalue().to_pybytes())


def _read(path: Path) -> tuple[_Stored, dict[str, IndexRow]]:
    """What is on disk: the Parquet file's columns, and those of its rows that the journal changes, as they are now."""
    # the journal first: if a save moves its lines into the Parquet file meanwhile, they are seen twice, not never
    journal = _journal(path)
    lines = journal.read_text(encoding="utf-8", errors="replace").splitlines() if journal.exists() else []
    stored = _read_columns(path)
    rows: dict[str, IndexRow] = {}
    for line in lines:
        try:
            noted = json.loads(line)
            old = stored.get(noted["id"])
            state = {name: noted[name] for name in ("size", "mtime_ns", "digest")}
        except (ValueError, KeyError, TypeError):  # half a line of a killed process
            continue
        if old is not None:
            rows[old.id] = replace(old, **state)
    return stored, rows


def _read_columns(path: Path) -> _Stored:
    try:
        # whole, and parsed after: pyarrow opens a path twice, and a save may replace the file in between
        table = read_parquet(path.read_bytes()) if path.exists() else _SCHEMA.empty_table()
        columns = {
            name: strings(table[name].to_pylist())
            if kind == pa.string()
            else whole_numbers(table[name].combine_chunks())
            for name, kind in zip(_SCHEMA.names, _SCHEMA.types, strict=True)
        }
    except (pa.ArrowException, OSError, KeyError) as error:
        raise StoreError(
            f"the private index {path.name} is damaged; delete it, and the next extraction reads its sources anew."
        ) from error
    return _Stored(columns)


def _journal(path: Path) -> Path:
    return path.with_suffix(_JOURNAL)


def _state(path: str) -> SourceState | None:
    try:
        return stat_source(path)
    except ImageError:
        return None

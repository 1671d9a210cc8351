"""The label table of a dataset: `labels.parquet` and `labels.sha256` beside the backbones' folders.

One long row per (task, sample or patient, slice, class); FORMAT.md, section 9. The folder of a dataset copied to another
machine can be probed there, because everything a probe asks of the dataset is in these two files.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedcache.coded import CodedTexts
from embedcache.errors import InputError, NewerFormatError, StoreError
from embedcache.store.files import locked, replace_file
from embedcache.store.parquet import read_parquet
from embedcache.store.texts import (
    factorise,
    from_arrow,
    from_nullable,
    joint_codes,
    locate,
    to_arrow,
    to_numbers,
    whole_numbers,
)
from embedcache.types import Labels, StringArray, Task, Texts, strings

LABELS = "labels.parquet"
DIGEST = "labels.sha256"
LOCK = ".labels.lock"

FORMAT = "embedcache-labels"
VERSION = 1
METADATA_KEY = b"embedcache"
ROW_GROUP = 1 << 20

_TEXT = pa.dictionary(pa.int32(), pa.string())
_COLUMNS = {
    "task": _TEXT,
    "level": _TEXT,
    "sample": _TEXT,
    "slice": pa.int32(),
    "class": _TEXT,
    "value": pa.float64(),
    "split": _TEXT,
    "patient": _TEXT,
}


def write_labels(folder: Path, labels: Labels, anew: bool = False) -> str:
    """Merge `labels` into the table in `folder`, and return the table's SHA-256 (hex).

    New rows of a task and sample (of a patient, in a patient-level task) replace the old ones; a task that is defined
    anew replaces all of its rows; a sample's split and patient are the newest. Equal content has equal bytes, whatever
    the order of the rows given, and nothing is written when the content is what is there.
    anew: whatever is there is replaced, unread. Raises InputError if two rows label the same thing, StoreError if the table
    that is there is damaged.
    """
    unchanged = "" if anew else _unchanged(folder, labels)
    if unchanged:
        return unchanged
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK):
        old = read_labels(folder) if (folder / LABELS).exists() and not anew else None
        data = encode_labels(labels if old is None else merge_labels(old, labels))
        digest = _digest(data)
        # Two renames are not one. Between them the digest file names both tables, and a reader takes either.
        replaced = [_digest((folder / LABELS).read_bytes())] if old is not None else []
        replace_file(folder / DIGEST, _digest_lines([digest, *replaced]))
        replace_file(folder / LABELS, data)
        replace_file(folder / DIGEST, _digest_lines([digest]))
    return digest


def read_labels(path: Path) -> Labels:
    """The label table at `path`: a dataset's folder, or the file itself.

    Raises StoreError if there is none, if it is damaged, or if it is not the one that `labels.sha256` beside it names.
    """
    file = path / LABELS if path.is_dir() else path
    return decode_labels(_checked_bytes(file), f"{file.name} of {file.parent.name}")


def is_label_table(file: Path) -> bool:
    """Whether `file` is a label table of ours (of any version), and not some other table."""
    try:
        return METADATA_KEY in (pq.read_schema(file).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def _checked_bytes(file: Path) -> bytes:
    """The file's bytes, held against the digest beside it; a writer may replace both while they are read."""
    beside = file.parent / DIGEST if file.name == LABELS else None
    while True:
        before = _named_digests(beside)
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            raise StoreError(
                f"there is no {file.name} in {file.parent.name}; `embedcache labels sync` writes it, or name one with --labels."
            ) from None
        after = _named_digests(beside)
        if not after or _digest(data) in before + after:
            return data
        if before == after:
            raise StoreError(
                f"{file.name} of {file.parent.name} is not the one that {DIGEST} names: it was changed or damaged; {REMEDY}."
            )


REMEDY = (
    "copy both files again from whoever gave you the cache; only where its images are, and what they were extracted with, does "
    "`embedcache labels sync` make them anew, once both are deleted"
)
"""For a damaged label table, which whoever received a cache can not make again: for them a deleted one is lost."""


def damage_of_labels(folder: Path) -> dict[str, str]:
    """What is wrong with the label table in `folder`: file name → reason; {} where all holds, or there is none."""
    files = {}
    for name in (LABELS, DIGEST):
        try:
            files[name] = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
    if not files:
        return {}
    if LABELS not in files:
        return {LABELS: f"is missing, though {DIGEST} names it"}
    if DIGEST not in files:
        return {DIGEST: f"is missing, so nothing vouches for {LABELS}"}
    digest = _digest(files[LABELS])
    if files[DIGEST] == _digest_lines([digest]):
        return {}
    named = [line[:64].decode("ascii", "replace") for line in files[DIGEST].splitlines()]
    if digest not in named:
        return {LABELS: f"is not what {DIGEST} names, or that is damaged"}
    # while both are replaced, and after a writer was killed there, the digest file names two tables
    whole = len(named) == 2 and files[DIGEST] == _digest_lines(named) and all(map(_is_digest, named))
    return {} if whole else {DIGEST: f"is damaged, though it names the {LABELS} that is there"}


def rewrite_digest(folder: Path) -> None:
    """Put the digest file anew, of the table that is there."""
    with locked(folder / LOCK):
        replace_file(folder / DIGEST, _digest_lines([_digest((folder / LABELS).read_bytes())]))


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def merge_labels(old: Labels, new: Labels) -> Labels:
    """What is known after `new` came in: see `write_labels`."""
    tasks = {t.name: t for t in old.tasks} | {t.name: t for t in new.tasks}
    n_tasks, old_task, new_task = joint_codes(old.task, new.task)
    _, old_subject, new_subject = joint_codes(_subject(old), _subject(new))
    stale = np.isin(old_subject * n_tasks + old_task, new_subject * n_tasks + new_task)
    for task in old.tasks:
        if tasks[task.name] != task:
            stale |= old.task == task.name
    kept = rows_of(old, np.flatnonzero(~stale))
    # rows of a patient-level task have no sample, and follow their patient's split
    of_sample = kept.sample != ""
    patient = np.where(of_sample, _renewed(kept.patient, kept.sample, new.patient, new.sample), kept.patient)
    split = np.where(
        of_sample,
        _renewed(kept.split, kept.sample, new.split, new.sample),
        _renewed(kept.split, kept.patient, new.split, new.patient),
    )
    both = Labels(
        tasks=tuple(tasks[name] for name in sorted(tasks)),
        task=np.concatenate([kept.task, new.task]),
        sample=np.concatenate([kept.sample, new.sample]),
        patient=np.concatenate([patient, new.patient]),
        slice=np.concatenate([kept.slice, new.slice]),
        klass=np.concatenate([kept.klass, new.klass]),
        value=np.concatenate([kept.value, new.value]),
        split=np.concatenate([split, new.split]),
    )
    # the row that stands for a sample without any label goes when a label comes
    unlabelled = np.flatnonzero(both.task == "")
    labelled, _ = factorise(both.sample[both.task != ""])
    gone = unlabelled[locate(both.sample[unlabelled], labelled) >= 0]
    return rows_of(both, np.delete(np.arange(len(both.task)), gone))


def encode_labels(labels: Labels) -> bytes:
    """The Parquet file of `labels`: rows sorted by task, sample, patient, slice and class, equal for equal content.

    Raises InputError if two rows label the same thing.
    """
    tasks = tuple(sorted(labels.tasks, key=lambda t: t.name))
    levels = {t.name: t.level for t in tasks} | {"": "sample"}
    text = {
        "task": factorise(labels.task),
        "sample": factorise(labels.sample),
        "class": factorise(labels.klass),
        "split": factorise(labels.split),
        "patient": factorise(labels.patient),
    }
    order = _order(labels, text["task"][1], text["sample"][1], text["class"][1])
    words, codes = text["task"]
    # factorised again: of a dictionary that names a word twice, Arrow writes memory that nothing was written to
    level_words, level_of_task = factorise(strings([levels[name] for name in words.tolist()]))
    text["level"] = level_words, level_of_task[codes]
    columns: dict[str, pa.Array] = {}
    for name in list(text):
        words, codes = text.pop(name)  # let go one by one: at 10^7 rows each takes 80 MB
        rows = to_numbers(codes[order], pa.int32())
        columns[name] = pa.DictionaryArray.from_arrays(rows, to_arrow(words).cast(pa.string()))
    slices, values = labels.slice[order], labels.value[order]
    columns["slice"] = to_numbers(slices, pa.int32(), slices < 0)
    columns["value"] = to_numbers(values, pa.float64(), np.isnan(values))
    described = {"format": FORMAT, "version": VERSION, "tasks": [t.document() for t in tasks]}
    if negatives := {t.name: t.negative for t in tasks if t.negative is not None}:
        described["negatives"] = negatives
    metadata = {METADATA_KEY: json.dumps(described, sort_keys=True, ensure_ascii=False).encode()}
    table = pa.table(columns, schema=pa.schema(list(_COLUMNS.items()), metadata=metadata))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=ROW_GROUP, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def decode_labels(data: bytes, name: str = LABELS) -> Labels:
    """The labels in the bytes of a label table. `name` is what messages call it. Raises StoreError if it is none."""
    try:
        table = read_parquet(data)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{name} is damaged: it can not be read as Parquet ({type(error).__name__}).") from error
    tasks = _tasks((table.schema.metadata or {}).get(METADATA_KEY), name)
    for column, expected in _COLUMNS.items():
        found = table.schema.field(column).type if column in table.column_names else None
        if found != expected:
            raise StoreError(f"{name} is damaged: column {column!r} must be {expected}. Got {found}.")
    slices = from_nullable(table["slice"], -1).astype(np.int32)
    values = from_nullable(table["value"], np.nan).astype(np.float64)
    text = {
        column: _from_arrow(table[column]) for column, kind in _COLUMNS.items() if kind == _TEXT and column != "level"
    }
    unknown = set(text["task"].used().words.tolist()) - {t.name for t in tasks} - {""}
    if unknown:
        raise StoreError(f"{name} is damaged: it has rows of task {min(unknown)!r}, which it does not define.")
    return Labels(
        tasks, text["task"], text["sample"], text["patient"], slices, text["class"], values, text["split"]
    )  # fmt: skip


def _tasks(metadata: bytes | None, name: str) -> tuple[Task, ...]:
    if metadata is None:
        raise StoreError(f"{name} is no label table of embedcache: its schema has no metadata `embedcache`.")
    try:
        described: dict[str, Any] = json.loads(metadata)
        if described["format"] != FORMAT:
            raise StoreError(f"{name} is no label table of embedcache: its format is {described['format']!r}.")
        if described["version"] > VERSION:
            raise NewerFormatError(
                f"{name} has format version {described['version']}, this embedcache reads up to {VERSION}; install a newer one."
            )
        negatives = dict(described.get("negatives", {}))
        if not all(isinstance(value, str) for value in negatives.values()):
            raise TypeError("a name is a text")
        return tuple(
            Task(
                **{**t, "classes": tuple(t["classes"]), "missing": tuple(t["missing"])},
                negative=negatives.get(t["name"]),
            )
            for t in described["tasks"]
        )
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{name} is damaged: its task definitions can not be read.") from error


def _unchanged(folder: Path, labels: Labels) -> str:
    """The digest of the table that is there, if merging `labels` would change nothing (the digest file too), else ""."""
    if not (folder / LABELS).exists():
        return ""
    data = _checked_bytes(folder / LABELS)
    if _named_digests(folder / DIGEST) != [_digest(data)]:
        return ""
    if encode_labels(labels) != data:
        # A part of what is there, or the same written by another version of Parquet: compare what is said, not bytes.
        old = decode_labels(data, f"{LABELS} of {folder.name}")
        if encode_labels(merge_labels(old, labels)) != encode_labels(old):
            return ""
    return _digest(data)


def _order(
    labels: Labels, task: npt.NDArray[np.int64], sample: npt.NDArray[np.int64], klass: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The canonical order, given the codes of three columns. Raises InputError if two rows label the same thing."""
    of_patient = labels.sample == ""
    patient = factorise(np.where(of_patient, labels.patient, ""))[1] if of_patient.any() else np.zeros_like(task)
    # one number a row, in which the first key weighs most: sorting that takes a fifth of the time of sorting by five
    row = np.zeros(len(task), dtype=np.int64)
    for key in (task, sample, patient, labels.slice + np.int64(1), klass):
        size = int(key.max(initial=0)) + 1
        if int(row.max(initial=0)) >= 2**62 // size:
            row = np.unique(row, return_inverse=True)[1]  # no more than there are rows
        row = row * size + key
    order: npt.NDArray[np.int64] = np.argsort(row, kind="stable")
    twice = np.flatnonzero(np.diff(row[order]) == 0)
    if len(twice):
        i = order[twice[0]]
        raise InputError(
            f"task {str(labels.task[i])!r} has two rows for class {str(labels.klass[i])!r} of sample "
            f"{str(labels.sample[i])!r}; a sample has one label per task, slice and class."
        )
    return order


def rows_of(labels: Labels, index: npt.NDArray[np.int64]) -> Labels:
    """The rows of `labels` at `index`, with all of its tasks."""
    return Labels(
        labels.tasks, labels.task[index], labels.sample[index], labels.patient[index], labels.slice[index],
        labels.klass[index], labels.value[index], labels.split[index],
    )  # fmt: skip


def _subject(labels: Labels) -> StringArray:
    """Whose label each row is: the sample's, or the patient's (marked, for it may be called as a sample is)."""
    return np.where(labels.sample == "", np.strings.add("\0", labels.patient), labels.sample)


def _renewed(values: Texts, of: Texts, newest: Texts, whose: Texts) -> StringArray:
    """`values`, which belong to the keys `of`, as `newest` has them for the same keys in `whose`."""
    n, mine, theirs = joint_codes(of, whose)
    last = np.full(n, -1, dtype=np.int64)
    last[theirs] = np.arange(len(theirs))
    place = last[mine]
    renewed = values.copy()
    renewed[place >= 0] = newest[place[place >= 0]]
    return renewed


def _from_arrow(column: pa.ChunkedArray) -> CodedTexts:
    whole = column.unify_dictionaries().combine_chunks()
    chunks = whole.chunks if isinstance(whole, pa.ChunkedArray) else [whole]
    words = from_arrow(chunks[0].dictionary) if chunks else strings([])
    codes = [whole_numbers(chunk.indices) for chunk in chunks]
    return CodedTexts(words, codes[0] if len(codes) == 1 else np.concatenate([np.zeros(0, dtype=np.int64), *codes]))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest_lines(digests: list[str]) -> bytes:
    """In the format of `sha256sum`."""
    return "".join(f"{digest}  {LABELS}\n" for digest in digests).encode()


def _named_digests(path: Path | None) -> list[str]:
    """The digests that the file names; [] if there is no such file."""
    if path is None:
        return []
    try:
        lines = path.read_text("ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    digests = [line.split()[0] for line in lines if line.endswith(f"  {LABELS}")]
    if not digests:
        raise StoreError(f"{DIGEST} of {path.parent.name} is damaged: it names no {LABELS}; delete it to go without.")
    return digests

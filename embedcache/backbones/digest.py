"""The digest of a model's weights: what the files hold, whatever their path. Gigabytes are read once.

`.embedcache-digest.json` beside the weights remembers each file's SHA-256 with its size and modification time; a file
whose size and time are unchanged is not read again. Where the folder can not be written (a shared read-only copy) the
note lies in the user's cache directory, under the hash of the folder's path.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import platformdirs

NOTE = ".embedcache-digest.json"
BLOCK = 1 << 20


def weights_digest(folder: Path, files: Iterable[str], config: str) -> str:
    """SHA-256 over the sorted (file name, SHA-256 of its bytes) of the weight `files` and of `config`, in hex."""
    digests = file_digests(folder, {*files, config})
    lines = "".join(f"{name}\0{digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_digests(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of each of `files`, in hex: remembered, where its size and time are unchanged."""
    names = sorted(set(files))
    notes = (folder / NOTE, _user_note(folder))
    known = {name: entry for note in reversed(notes) for name, entry in _read(note).items()}
    now = {name: _entry(folder / name, known.get(name)) for name in names}
    if any(known.get(name) != entry for name, entry in now.items()):
        _write(notes, {**known, **now})
    return {name: entry["sha256"] for name, entry in now.items()}


def read_digest(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hex, read now."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _entry(file: Path, known: Any) -> dict[str, Any]:
    """Size, time and SHA-256 of `file`; the last from `known` if that speaks of the same size and time."""
    stat = file.stat()  # before reading: a file that changes meanwhile will not match its note
    seen = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    if isinstance(known, dict) and isinstance(known.get("sha256"), str) and seen.items() <= known.items():
        return {**seen, "sha256": known["sha256"]}
    return {**seen, "sha256": read_digest(file)}


def _user_note(folder: Path) -> Path:
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
    return Path(platformdirs.user_cache_dir("embedcache")) / "weights" / f"{key}.json"


def _read(note: Path) -> dict[str, Any]:
    """What a note says; nothing, if it is absent or damaged: it is only a memory, the files are the truth."""
    try:
        entries = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _write(notes: Iterable[Path], entries: dict[str, Any]) -> None:
    """To the first of `notes` that can be written; to none, if none can: then the next run reads the files again."""
    for note in notes:
        partial = note.with_name(f"{note.name}.{os.getpid()}")
        try:
            note.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(entries, indent=1, sort_keys=True), encoding="utf-8")
            os.replace(partial, note)
            return
        except OSError:
            partial.unlink(missing_ok=True)

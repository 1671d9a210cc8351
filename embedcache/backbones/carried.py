"""Weights that were pulled on a machine with a network and carried to one without: folders that say what they hold.

`DIR/<organisation>--<name>/` has the files of one hub name, and `embedcache-weights.json` with the name, the commit, and
each file's size and SHA-256. A backbone that is found there has the source and the revision that it has on the hub, so its
store is the same one.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcache.backbones.digest import file_digests, read_digest
from embedcache.backbones.hub import hub_name
from embedcache.errors import InputError

MANIFEST = "embedcache-weights.json"
FORMAT = 1
ENVIRONMENT = "EMBEDCACHE_WEIGHTS"

_folder: ContextVar[str | None] = ContextVar("carried_weights", default=None)


@dataclass(frozen=True)
class WeightFile:
    """One file of a model."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What one folder of carried weights holds."""

    name: str
    """The hub name."""
    commit: str
    files: tuple[WeightFile, ...]


@dataclass(frozen=True)
class CheckedWeights:
    """One carried model, its bytes held against its manifest."""

    name: str
    folder: str
    """Its base name."""
    commit: str
    files: int
    bytes: int
    problems: tuple[str, ...]
    """One line for each file that is absent or not what was pulled."""


@contextlib.contextmanager
def weights_in(folder: str | None) -> Iterator[None]:
    """Within it hub names are looked for in `folder` first; None leaves things as they are.

    A setting and no argument, since families that are named `family:name` look for their files themselves.
    """
    before = _folder.set(folder or _folder.get())
    try:
        yield
    finally:
        _folder.reset(before)


def weights_folder() -> Path | None:
    """Where hub names are looked for first. Raises InputError for a folder that is not there."""
    given = _folder.get() or os.environ.get(ENVIRONMENT)
    if not given:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {given} of weights; make it with `embedcache weights pull NAME --to DIR`."
        )
    return folder


def folder_name(name: str) -> str:
    """What a hub name's folder is called."""
    return hub_name(name).replace("/", "--")


def carried_weights(name: str, revision: str | None) -> tuple[Path, str] | None:
    """The folder of hub name `name` among the carried weights and its commit, checked; None if it is not there.

    Each file's digest is compared with the manifest's; the digests are remembered, so gigabytes are read once. Raises
    InputError for files that are not what was pulled, and for another revision.
    """
    place = weights_folder()
    if place is None or not (folder := place / folder_name(name)).is_dir():
        return None
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(
            f"{folder.name} among the carried weights has no {MANIFEST}: make it with `embedcache weights pull`, or give "
            "the folder itself as the backbone."
        )
    if manifest.name != hub_name(name):
        raise InputError(f"{folder.name} among the carried weights holds {manifest.name}, not {hub_name(name)}.")
    if revision not in (None, manifest.commit):
        raise InputError(
            f"the carried weights hold {manifest.name} at commit {manifest.commit}, not at revision {revision!r}; leave "
            "--revision out, or carry that one."
        )
    absent = [file.name for file in manifest.files if not (folder / file.name).is_file()]
    now = {} if absent else file_digests(folder, [file.name for file in manifest.files])
    wrong = absent or [file.name for file in manifest.files if now[file.name] != file.sha256]
    if wrong:
        raise InputError(
            f"the carried weights of {manifest.name} are not what was pulled ({', '.join(wrong)}); carry them again, and "
            "see `embedcache weights check`."
        )
    return folder, manifest.commit


def check_weights(folder: str | Path) -> tuple[CheckedWeights, ...]:
    """Read every byte of the carried weights in `folder` and hold it against their manifests.

    Raises InputError where there is no folder, or nothing that was pulled in it.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise InputError(f"there is no folder {folder}; name the one that `embedcache weights pull` filled.")
    found = [
        (sub, manifest)
        for sub in sorted(place.iterdir())
        if sub.is_dir() and (manifest := read_manifest(sub)) is not None
    ]
    if not found:
        raise InputError(f"{folder} holds no weights with a {MANIFEST}; fill it with `embedcache weights pull`.")
    return tuple(
        CheckedWeights(
            name=manifest.name,
            folder=sub.name,
            commit=manifest.commit,
            files=len(manifest.files),
            bytes=sum(file.size for file in manifest.files),
            problems=tuple(f"{file.name} {wrong}" for file in manifest.files if (wrong := what_is_wrong(sub, file))),
        )
        for sub, manifest in found
    )


def what_is_wrong(folder: Path, file: WeightFile) -> str:
    """How a file differs from what its manifest says, read from its bytes; "" where it does not."""
    try:
        size = (folder / file.name).stat().st_size
    except FileNotFoundError:
        return "is absent"
    if size != file.size:
        return f"has {size} bytes, not {file.size}"
    return "" if read_digest(folder / file.name) == file.sha256 else "has other bytes than were pulled"


def read_manifest(folder: Path) -> Manifest | None:
    """What a folder says of itself; None where it says nothing. Raises InputError for a damaged or later manifest."""
    try:
        document = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise InputError(f"{MANIFEST} of {folder.name} is no JSON; pull or carry that folder again.") from None
    if isinstance(document, dict) and document.get("format", FORMAT) != FORMAT:
        raise InputError(f"{MANIFEST} of {folder.name} is of format {document['format']}; update embedcache.")
    try:
        files = document["files"]
        return Manifest(
            name=str(document["name"]),
            commit=str(document["commit"]),
            files=tuple(
                WeightFile(_plain(name), int(f["size"]), str(f["sha256"])) for name, f in sorted(files.items())
            ),
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        raise InputError(
            f"{MANIFEST} of {folder.name} lacks what it must say; pull or carry that folder again."
        ) from None


def _plain(name: str) -> str:
    """A file name that can not lead out of its folder."""
    if name != os.path.basename(name) or name in ("", ".", ".."):
        raise ValueError(name)
    return name


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put what a folder holds beside it, whole or not at all."""
    files: Mapping[str, Any] = {file.name: {"size": file.size, "sha256": file.sha256} for file in manifest.files}
    document = {"format": FORMAT, "name": manifest.name, "commit": manifest.commit, "files": files}
    partial = folder / f"{MANIFEST}.{os.getpid()}"
    partial.write_text(json.dumps(document, indent=1), encoding="utf-8")
    os.replace(partial, folder / MANIFEST)

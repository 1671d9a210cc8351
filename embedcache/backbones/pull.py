"""`weights pull`: a model's configuration and weights from the hub into a folder that can be carried to another machine.

A file that was cut off is resumed where it ended. Each is held against the digest that the hub states for it, and the
manifest is written last: a folder with one is whole.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from embedcache.backbones.carried import (
    Manifest,
    WeightFile,
    folder_name,
    read_manifest,
    what_is_wrong,
    write_manifest,
)
from embedcache.backbones.digest import NOTE, read_digest
from embedcache.backbones.hub import hub_name, need_hub, one_line
from embedcache.backbones.weights import (
    CONFIG,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    PROCESSOR,
    WEIGHTS,
    index_shards,
)
from embedcache.errors import InputError

PARTIAL = ".part"


@dataclass(frozen=True)
class OnHub:
    """One file as the hub describes it."""

    size: int
    sha256: str
    """Of a large file; "" for a small one."""
    blob: str
    """Git's own digest of a small file."""


@dataclass(frozen=True)
class PulledWeights:
    """One model in the folder after a pull."""

    name: str
    folder: str
    commit: str
    files: tuple[WeightFile, ...]
    fetched: tuple[str, ...]
    """Files that were fetched now; () where all was there and verified."""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)


def pull_weights(
    names: Sequence[str], to: str | Path, *, revision: str | None = None, tell: Callable[[str], None] = lambda _: None
) -> tuple[PulledWeights, ...]:
    """Fetch the files of each hub name into `to`, or verify those that are there; the hub is then not asked.

    revision: branch, tag or commit, the default branch if none is given. Raises InputError for a name that is not there or
    gated, a hub that can not be reached, a folder that holds another commit, and a file that arrives damaged.
    """
    place = Path(to).expanduser()
    if place.exists() and not place.is_dir():
        raise InputError(f"{to} is a file; name a folder with --to.")
    return tuple(_pull(name, place / folder_name(name), revision, tell) for name in names)


def _pull(name: str, folder: Path, revision: str | None, tell: Callable[[str], None]) -> PulledWeights:
    need_hub(name)
    repository = hub_name(name)
    there = read_manifest(folder)
    if there is not None and revision in (None, there.commit):
        wrong = [file for file in there.files if what_is_wrong(folder, file)]
        if not wrong:
            return PulledWeights(repository, folder.name, there.commit, there.files, ())
        revision = there.commit
        for file in wrong:
            tell(f"{repository}: {file.name} {what_is_wrong(folder, file)}, and is fetched again")
            (folder / file.name).unlink(missing_ok=True)
    commit, listed = _listing(repository, revision)
    if there is not None and there.commit != commit:
        raise InputError(
            f"{folder.name} holds {repository} at commit {there.commit}, and {revision} is {commit}; remove that folder, "
            "or pull into another one."
        )
    fetched = [file for file in _configs(listed) if _fetch(repository, commit, file, listed[file], folder, tell)]
    first, *shards = _weights(repository, commit, listed, folder, fetched, tell)
    fetched += [n for n in (first, *shards) if _fetch(repository, commit, n, listed[n], folder, tell)]
    names = (*_configs(listed), first, *shards)
    files = tuple(WeightFile(n, (folder / n).stat().st_size, read_digest(folder / n)) for n in sorted(names))
    write_manifest(folder, Manifest(repository, commit, files))
    # what was remembered of digests here would be believed where a copy keeps the dates but not the bytes
    (folder / NOTE).unlink(missing_ok=True)
    return PulledWeights(repository, folder.name, commit, files, tuple(dict.fromkeys(fetched)))


def _listing(repository: str, revision: str | None) -> tuple[str, dict[str, OnHub]]:
    """The commit of a revision, and the files at the top of the repository."""
    from huggingface_hub import HfApi

    offline = (
        f"pulling {repository} needs the hub, which HF_HUB_OFFLINE forbids or which is not reachable; unset it, or pull on "
        "a machine with a network."
    )
    with one_line(repository, revision, offline):
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    listed = {
        file.rfilename: OnHub(file.size or 0, file.lfs.sha256 if file.lfs else "", file.blob_id or "")
        for file in info.siblings or ()
        if "/" not in file.rfilename
    }
    return str(info.sha), listed


def _configs(listed: Mapping[str, OnHub]) -> tuple[str, ...]:
    """The configurations that count where the weights are loaded."""
    return tuple(name for name in (OPEN_CLIP_CONFIG if _is_open_clips(listed) else CONFIG, PROCESSOR) if name in listed)


def _is_open_clips(listed: Mapping[str, OnHub]) -> bool:
    return CONFIG not in listed and OPEN_CLIP_CONFIG in listed


def _weights(
    repository: str,
    commit: str,
    listed: Mapping[str, OnHub],
    folder: Path,
    fetched: list[str],
    tell: Callable[[str], None],
) -> tuple[str, ...]:
    """The weight files in the order in which loading looks for them, safetensors first; after an index its shards."""
    order = OPEN_CLIP_WEIGHTS if _is_open_clips(listed) else WEIGHTS
    first = next((name for name in order if name in listed), None)
    if first is None or not _configs(listed):
        raise InputError(f"{repository} holds no {CONFIG} with {WEIGHTS[0]} or {WEIGHTS[2]}; it is no backbone.")
    if not first.endswith(".index.json"):
        return (first,)
    if _fetch(repository, commit, first, listed[first], folder, tell):
        fetched.append(first)
    shards = index_shards(folder / first, repository)
    absent = [shard for shard in shards if shard not in listed]
    if absent:
        raise InputError(f"{repository}: {first} lists files that are not there: {', '.join(absent)}.")
    return (first, *shards)


def _fetch(repository: str, commit: str, file: str, on_hub: OnHub, folder: Path, tell: Callable[[str], None]) -> bool:
    """Bring one file here, unless it is here already and whole. Returns whether anything was fetched."""
    target, partial = folder / file, folder / (file + PARTIAL)
    if target.exists() and _is(target, on_hub):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    begun = partial.stat().st_size if partial.exists() else 0
    if begun > on_hub.size:
        partial.unlink()
        begun = 0
    tell(f"{repository}: {file}, {on_hub.size:,} bytes" + (f", resumed at {begun:,}" if begun else ""))
    _download(repository, commit, file, on_hub.size, partial)
    if not _is(partial, on_hub):
        partial.unlink()
        raise InputError(f"{repository}: {file} arrived damaged and was removed; run the same command again.")
    os.replace(partial, target)
    return True


def _download(repository: str, commit: str, file: str, size: int, partial: Path) -> None:
    """The rest of a file, appended to what is there of it. huggingface_hub's own downloads begin anew in each process."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get

    # public names that the lazy module does not list for mypy
    from huggingface_hub.utils import build_hf_headers, disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()
    unreachable = f"{repository}: the hub is not reachable any more; run the same command again, and it resumes."
    with one_line(repository, None, unreachable), partial.open("ab") as stream:
        url = hf_hub_url(repository, file, revision=commit)
        headers = build_hf_headers()
        location = get_hf_file_metadata(url, headers=headers).location
        if urlparse(location).netloc != urlparse(url).netloc:
            headers.pop("authorization", None)  # the signed address of a storage host must not get the user's token
        http_get(location, stream, resume_size=stream.tell(), headers=headers, expected_size=size)


def _is(file: Path, on_hub: OnHub) -> bool:
    """Whether a file's bytes are those that the hub describes."""
    if file.stat().st_size != on_hub.size:
        return False
    if on_hub.sha256:
        return read_digest(file) == on_hub.sha256
    content = file.read_bytes()
    # git's name of a blob; a hub that states neither digest leaves only the size to compare
    return not on_hub.blob or hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == on_hub.blob

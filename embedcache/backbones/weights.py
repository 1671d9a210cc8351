"""A backbone's files on this machine: found by name, named by what they hold. No torch and no transformers.

A name is a local folder, or a hub name: carried weights (`carried.py`) have it, or `huggingface_hub` resolves it to its
snapshot on disk (its cache, its mirrors, its tokens and its `HF_HUB_OFFLINE`). Nothing of a checkpoint is ever executed:
only configurations and weights are fetched.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcache.backbones.carried import carried_weights
from embedcache.backbones.digest import weights_digest
from embedcache.backbones.hub import UNREACHABLE, hub_name, need_hub, one_line
from embedcache.backbones.known import did_you_mean
from embedcache.errors import InputError

CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""In the order in which transformers takes them; an index lists its shards."""
BUNDLE_WEIGHTS = ("model.pt", "models/model.pt")
"""What MONAI's models may have in place of them: a bundle, with a `config.json` put beside it."""
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Of a checkpoint that only open_clip's own files describe: BiomedCLIP is one."""


@dataclass(frozen=True)
class Weights:
    """The files of one model, and what they are called in a recipe."""

    name: str
    """As the user gave it."""
    folder: Path
    source: str
    """The hub name, or the base name of the local folder."""
    revision: str
    """The commit of a hub snapshot, "" for a local folder."""
    digest: str
    """SHA-256 over the weight files and `config.json`; the folder's path has no part in it."""
    config: Mapping[str, Any]
    """`config.json`, or `open_clip_config.json` where that is the only one."""
    processor: Mapping[str, Any]
    """`preprocessor_config.json`, empty where there is none."""


def find_weights(name: str, revision: str | None = None) -> Weights:
    """The files of `name`, a folder or a hub name; `revision` (branch, tag or commit) goes with a hub name only.

    Raises InputError with one line where they are not there, not reachable or not complete.
    """
    local = Path(name).expanduser()
    if local.is_dir():
        if revision is not None:
            raise InputError(f"{name} is a local folder, which has no revision {revision!r}; leave --revision out.")
        folder, source, commit = local, Path(os.path.abspath(local)).name, ""
    else:
        carried = carried_weights(name, revision)
        folder = carried[0] if carried else _snapshot(name, revision)
        source, commit = hub_name(name), carried[1] if carried else folder.name
    file = config_file(folder)
    config = _mapping(folder / file, name)
    if config is None:
        raise InputError(f"{name} holds no {CONFIG}; a backbone is a Hugging Face folder: {CONFIG} and {WEIGHTS[0]}.")
    if (folder / "adapter_config.json").exists():
        raise InputError(
            f"{name} holds an adapter (adapter_config.json), which would change the model unrecorded; give the folder "
            "of the base model."
        )
    files = weight_files(folder, name, BUNDLE_WEIGHTS if str(config.get("model_type")).startswith("monai_") else ())
    return Weights(
        name=name,
        folder=folder,
        source=source,
        revision=commit,
        digest=weights_digest(folder, files, file),
        config=config,
        processor=_mapping(folder / PROCESSOR, name) or {},
    )


def config_file(folder: Path) -> str:
    """The name of the configuration that counts in `folder`."""
    is_open_clips = not (folder / CONFIG).exists() and (folder / OPEN_CLIP_CONFIG).exists()
    return OPEN_CLIP_CONFIG if is_open_clips else CONFIG


def weight_files(folder: Path, name: str, more: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The names of the files that will be loaded from `folder`, an index first, then its shards.

    more: what a family takes in place of the usual ones.
    """
    config = config_file(folder)
    known = OPEN_CLIP_WEIGHTS if config == OPEN_CLIP_CONFIG else (*WEIGHTS, *more)
    first = next((file for file in known if (folder / file).exists()), None)
    if first is None:
        raise InputError(
            f"{name} holds no weights; expected {known[0]} (or {next(f for f in known if f.endswith('.bin'))}) beside {config}."
        )
    if not first.endswith(".index.json"):
        return (first,)
    shards = index_shards(folder / first, name)
    absent = [shard for shard in shards if not (folder / shard).exists()]
    if absent or not shards:
        raise InputError(f"{name}: {first} lists {len(shards)} files of weights, absent: {', '.join(absent) or 'all'}.")
    return (first, *shards)


def index_shards(index: Path, name: str) -> list[str]:
    """The files that an index of weights lists. Raises InputError for one that would lead out of its folder."""
    shards = sorted({str(shard) for shard in (_mapping(index, name) or {}).get("weight_map", {}).values()})
    astray = [shard for shard in shards if shard != os.path.basename(shard)]
    if astray:
        raise InputError(
            f"{name}: {index.name} lists {len(astray)} files outside its folder; such weights are refused."
        )
    return shards


def _mapping(file: Path, name: str) -> dict[str, Any] | None:
    """A JSON object as a mapping, None where the file is absent."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as e:
        raise InputError(f"{name}: {file.name} is no JSON ({e}); fetch it again.") from None
    if not isinstance(value, dict):
        raise InputError(f"{name}: {file.name} must hold a JSON object. Got a {type(value).__name__}.")
    return value


def _snapshot(name: str, revision: str | None) -> Path:
    """The folder of a hub name's snapshot, fetched if it may and must be; its base name is the commit."""
    need_hub(name)
    from huggingface_hub import snapshot_download  # only a hub name needs this package

    def fetch(*patterns: str) -> Path:
        wanted = [CONFIG, PROCESSOR, OPEN_CLIP_CONFIG, *patterns]
        return Path(snapshot_download(hub_name(name), revision=revision, allow_patterns=wanted))

    wanted = f"{name!r}" + (f" at revision {revision!r}" if revision else "")
    unreachable = (
        f"backbone {wanted} {UNREACHABLE}: put {CONFIG}, {PROCESSOR} and {WEIGHTS[0]} into a folder and give its path, or "
        f"carry what `embedcache weights pull` fetches elsewhere and give its folder as --weights{did_you_mean(name) or '.'}"
    )
    with one_line(name, revision, unreachable):
        folder = fetch("model*.safetensors", WEIGHTS[1])
        if not any((folder / file).exists() for file in WEIGHTS[:2]):
            folder = fetch("pytorch_model*.bin", WEIGHTS[3])
        if config_file(folder) == OPEN_CLIP_CONFIG:
            folder = fetch(OPEN_CLIP_WEIGHTS[0])
            if not (folder / OPEN_CLIP_WEIGHTS[0]).exists():
                folder = fetch(OPEN_CLIP_WEIGHTS[1])
        return folder

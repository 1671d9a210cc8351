"""Whether a backbone can load on this machine, found by loading it, and if not the one thing to do.

It is loaded in a process of its own: a broken pair of torch and torchvision, or too little memory, must not take the asking
process down. `python -m embedcache.backbones.loading` is that process.
"""

import json
import subprocess
import sys
from dataclasses import dataclass

from embedcache.backbones import describe_backbone, load_backbone
from embedcache.backbones.carried import WeightFile, weights_in
from embedcache.backbones.digest import file_digests
from embedcache.backbones.hub import UNREACHABLE, hub_name, page
from embedcache.backbones.known import find_known
from embedcache.backbones.weights import BUNDLE_WEIGHTS, PROCESSOR, config_file, find_weights, weight_files
from embedcache.errors import EmbedcacheError, MissingPackageError, UnknownNameError
from embedcache.store.processes import child_environment
from embedcache.types import BackboneInfo


@dataclass(frozen=True)
class Loading:
    """What became of one backbone."""

    name: str
    loads: bool
    problem: str = ""
    """What is wrong and the one thing to do, in a line; "" where it loads."""
    parameters: int | None = None
    """Of the model that runs; None where it did not load, or has none."""
    commit: str = ""
    files: tuple[WeightFile, ...] = ()
    """What it loads, where that is here; () for one without files."""


def try_loading(name: str, *, revision: str | None = None, weights: str | None = None) -> Loading:
    """Describe a backbone and load it on the CPU."""
    try:
        with weights_in(weights):
            info = describe_backbone(name, revision=revision)
            files = files_of(info, revision)
    except EmbedcacheError as error:
        return Loading(name, False, what_to_do(name, error))
    asked = json.dumps({"name": name, "revision": revision, "weights": weights})
    done = subprocess.run(
        [sys.executable, "-m", "embedcache.backbones.loading"],
        input=asked,
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(),
    )
    commit = info.model.revision
    if done.returncode < 0:
        size = sum(file.size for file in files) / 2**30
        problem = (
            f"the process that loaded it was killed, most likely by a lack of memory: its weights are {size:.1f} GiB"
        )
        return Loading(name, False, problem, commit=commit, files=files)
    lines = done.stdout.splitlines()
    answer = json.loads(lines[-1]) if lines and done.returncode == 0 else {}
    if "parameters" in answer:
        return Loading(name, True, "", answer["parameters"], commit, files)
    last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
    return Loading(name, False, answer.get("error", f"its libraries do not run: {last}"), commit=commit, files=files)


def what_to_do(name: str, error: EmbedcacheError) -> str:
    """The one thing to do about a backbone that is not here, or is not supported."""
    known = find_known(name)
    if isinstance(error, MissingPackageError | UnknownNameError) or not is_absent_here(name, error):
        return str(error)
    first = f"accept its licence at {page(name)}, `hf auth login`, then " if known is not None and known.gated else ""
    return (
        f"{'gated and ' if first else ''}not here, and the hub is offline or not reachable: on a machine with a network, "
        f"{first}`embedcache weights pull {name} --to DIR`; carry DIR here and give --weights DIR"
    )


def is_absent_here(name: str, error: EmbedcacheError) -> bool:
    """Whether an error means that a hub name's files are not on this machine and the hub could not be asked."""
    return "/" in hub_name(name) and UNREACHABLE in str(error)


def files_of(info: BackboneInfo, revision: str | None = None) -> tuple[WeightFile, ...]:
    """The files that a described backbone loads, with sizes and digests; () for one without files."""
    if not info.folder:
        return ()
    folder = find_weights(info.name, revision).folder
    bundle = BUNDLE_WEIGHTS if info.family.startswith("monai_") else ()
    names = [config_file(folder), *weight_files(folder, info.name, bundle)]
    names += [PROCESSOR] if (folder / PROCESSOR).exists() else []
    digests = file_digests(folder, names)
    return tuple(WeightFile(n, (folder / n).stat().st_size, digests[n]) for n in sorted(digests))


def main() -> None:
    """Load what standard input names, and say how many parameters it has, or why not, as one line of JSON."""
    asked = json.loads(sys.stdin.read())
    try:
        info = describe_backbone(asked["name"], revision=asked["revision"], weights=asked["weights"])
        model = getattr(load_backbone(info), "model", None)
    except EmbedcacheError as error:
        print(json.dumps({"error": str(error)}))
        return
    print(json.dumps({"parameters": None if model is None else sum(p.numel() for p in model.parameters())}))


if __name__ == "__main__":
    main()

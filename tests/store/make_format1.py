"""Makes `format1.zip`, a cache of format version 1. It was run once; the archive is reopened by the tests for ever.

`python -m tests.store.make_format1` writes it anew, which only a change of the format before its first release may need.
"""

import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from embedcache.extraction.rows import longer_plan
from embedcache.store.gc import collect_garbage
from embedcache.store.labels import write_labels
from embedcache.store.quantise import int8_arrays, quantise
from embedcache.store.writer import (
    StoreFiles,
    add_pass,
    commit_shard,
    create_store,
    extend_store,
    finalise,
    load,
    new_root,
    pending_shards,
    write_shard,
)
from embedcache.testing.stores import make_pass_of, make_plan, make_recipe, token_values
from embedcache.types import (
    ArraySpec,
    Commit,
    DatasetInfo,
    Labels,
    Pass,
    Quarantined,
    Samples,
    Task,
    strings,
)

ARCHIVE = Path(__file__).with_name("format1.zip")
STORE = "made/tiny/format1.zarr"
QUARANTINED = 6
VECTORS = (ArraySpec(1, "cls_token", "float16", (4,)), ArraySpec(2, "cls_token", "float16", (4,)))
PATCHES = (ArraySpec(2, "patch_tokens", "float32", (2, 3, 4)), ArraySpec(2, "patch_mean", "float32", (4,)))
CODES = int8_arrays(1, (2, 3, 4))


def values(spec: ArraySpec, rows: int) -> np.ndarray:
    """What the archive holds in an array: numbers that name their row and place."""
    if spec.kind in ("patch_tokens_int8", "patch_scale"):
        floats = token_values(ArraySpec(1, "patch_tokens", "float32", (2, 3, 4)), rows)
        return quantise(floats, np)[spec.kind == "patch_scale"]
    return token_values(spec, rows)


def fill(files: StoreFiles, p: Pass, superseded_rows: range) -> None:
    """Write, commit and finalise what is pending."""
    plan = load(files)[1].plan
    for shard in pending_shards(files.objects, plan, p):
        rows = {}
        for spec in p.arrays:
            block = values(spec, plan.rows)[shard.start : shard.stop].copy()
            for row in range(shard.start, shard.stop):
                if plan.slice_index[row] < 0 or row == QUARANTINED or row in superseded_rows:
                    block[row - shard.start] = 0
            rows[spec.path] = block
        bad = tuple(Quarantined(r, "decode", "made so") for r in range(shard.start, shard.stop) if r == QUARANTINED)
        digests = write_shard(files.objects, p, shard, rows)
        versions = {"embedcache": "0.1.0", "torch": "2.13.0"}
        commit = Commit(
            shard.index, (shard.start, shard.stop), bad, 4, "cpu", versions, digests, "host:1", "then", "now"
        )
        commit_shard(files.objects, p, commit)
    finalise(files, p.id)


def make(cache: Path) -> None:
    """Six samples, one of them a volume with a bad slice; one is superseded, its first shards dropped, and one is new."""
    files = StoreFiles(cache / STORE)
    plan = make_plan([4, 1, 3, 1, 1, 2], ["a", "a", "b", "c", "d", "d"], quantum=4)
    info = DatasetInfo("made", "1", "CC0", "none", "", public_ids=True)
    create_store(files, new_root(make_recipe(), info, {"licence": "CC0"}, "public", "", plan, "0" * 64), plan)
    for arrays in (VECTORS, PATCHES):
        p = make_pass_of(arrays, 4, 2)
        add_pass(files, load(files)[0], p)
        fill(files, p, range(0))
    root, index = load(files)
    new = Samples(strings(["s0", "s6"]), strings(["a", "e"]), strings(["", ""]), strings(["", ""]), np.arange(2), "it")
    superseded = np.array([True, False, False, False, False, False, False, False])
    extend_store(files, root, index, longer_plan(plan, new, np.array([1, 2])), superseded)
    for p in root.passes.values():
        fill(files, p, range(0))
    collect_garbage(files.path)
    p = make_pass_of(CODES, 4, 4)
    add_pass(files, load(files)[0], p)
    fill(files, p, range(4))
    labels = Labels(
        (Task("finding", "binary", ("finding",)),),
        strings(["finding"] * 7),
        strings([f"s{i}" for i in range(7)]),
        strings(["a", "a", "b", "c", "d", "d", "e"]),
        np.full(7, -1, dtype=np.int32),
        strings(["finding"] * 7),
        np.array([0, 1, 0, 1, 0, 1, np.nan]),
        strings(["train", "train", "train", "validation", "test", "test", "test"]),
    )
    write_labels(cache / "made", labels)


def main() -> None:
    """Write the archive."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        make(cache)
        shutil.rmtree((cache / STORE).with_suffix(".leases"))
        with zipfile.ZipFile(ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(cache.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(cache).as_posix())


if __name__ == "__main__":
    main()

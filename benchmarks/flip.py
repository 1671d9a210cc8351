"""One flipped bit at a time, anywhere in a dataset's folder: is it found, and is all as it was after `repair`?

`python benchmarks/flip.py --n 300`. The store comes from real extractions: PNG, DICOM and NIfTI under pseudonyms, one file
that can not be read, a second pass with int8 patch tokens, then four more samples and one whose source changed. `repair` gets
the table, the key and the backbone, and runs each time; what it leaves must equal a copy that was never touched, but for
the times and hosts of commits that were made again.
"""

import argparse
import random
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import finish, sandbox

import embedcache
from embedcache import DatasetOptions, EmbedcacheError, ExtractConfig
from embedcache.extraction.job import refill
from embedcache.extraction.like import config_like
from embedcache.store.labels import DIGEST, LABELS
from embedcache.store.locks import exclusive
from embedcache.store.verify import verify_labels, verify_store
from embedcache.store.writer import StoreFiles, load, reopen
from embedcache.testing.files import write_mixture, write_png
from embedcache.testing.kill import only_store
from embedcache.testing.stores import differences
from embedcache.testing.trained_vit import make_random_vit

RASTERS, DICOMS, VOLUMES, SLICES, LATER = 30, 8, 3, 3, 4
SHARE = {
    "tokens": 0.30,
    "index strings": 0.12,
    "index numbers": 0.12,
    "commits": 0.12,
    "documents": 0.10,
    "manifest": 0.06,
    "root": 0.05,
    "logs": 0.05,
    "labels": 0.05,
    "labels digest": 0.03,
}
"""How often each type of object is hit: by bytes it would be tokens alone."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=300, help="flips")
    parser.add_argument("--seed", type=int, default=0, help="of objects and bits")
    parser.add_argument("--quick", action="store_true", help="40 flips")
    asked = parser.parse_args()
    flips = 40 if asked.quick else asked.n

    with sandbox() as folder:
        config = make_caches(folder)
        store = only_store(config)
        dataset = store.parents[1]
        calm = folder / "calm"
        shutil.copytree(dataset, calm)
        calm_store = calm / store.relative_to(dataset)
        assert verify_store(store).intact
        source = ExtractConfig(
            dataset="table", root=config.root, backbones=config.backbones, options=config.options, workers=1
        )
        rng = random.Random(asked.seed)
        objects = by_type(dataset, store)
        tried: Counter[str] = Counter()
        found: Counter[str] = Counter()
        held: Counter[str] = Counter()
        faults: list[str] = []
        computed = 0
        started = time.perf_counter()
        for _ in range(flips):
            kind = rng.choices(list(SHARE), list(SHARE.values()))[0]
            path = rng.choice(objects[kind])
            name = path.relative_to(dataset).as_posix()
            where = flip(path, rng)
            tried[kind] += 1
            seen = is_found(store, dataset)
            found[kind] += seen
            report = embedcache.repair(store, source)
            computed += len(report.remade)
            wrong = [f"{left.object} is left: {left.reason}" for left in report.left]
            wrong += [f"{name} differs" for name in differences(calm_store, store)]
            wrong += [f"{n} differs" for n in (LABELS, DIGEST) if (dataset / n).read_bytes() != (calm / n).read_bytes()]
            if seen and not wrong and report.exit_code == 0:
                held[kind] += 1
                continue
            faults.append(f"{name} {where}: {'not found' if not seen else '; '.join(wrong[:3])}")
            shutil.rmtree(dataset)
            shutil.copytree(calm, dataset)
        took = time.perf_counter() - started

    tries, finds, holds = sum(tried.values()), sum(found.values()), sum(held.values())
    print(
        f"{tries} bits flipped in {sum(map(len, objects.values()))} objects: {finds} found, {holds} found and repaired"
    )
    print(f"{computed} shards were computed again; {took:.0f} s")
    for kind in SHARE:
        print(f"  {kind:14} {tried[kind]:4} tried, {found[kind]:4} found, {held[kind]:4} repaired")
    finish(
        "flip",
        tried=tries,
        found=finds,
        held=holds,
        ratio=holds / tries,
        by_type={k: {"tried": tried[k], "found": found[k], "held": held[k]} for k in SHARE},
        shards_computed=computed,
        faults=faults,
        seconds=round(took, 1),
        seed=asked.seed,
        checks={"all_found": finds == tries, "all_repaired": holds == tries, "as_many_as_asked": tries == flips},
    )


def make_caches(folder: Path) -> ExtractConfig:
    """Extract, add a pass, add samples and supersede one. Returns the configuration of the first extraction."""
    rng = np.random.default_rng(0)
    table, lines = write_cases(folder, rng)
    make_random_vit(folder / "tiny", seed=1, hidden_size=32, layers=2, heads=2, image_size=56)
    config = ExtractConfig(
        dataset="table",
        root=str(table),
        backbones=(str(folder / "tiny"),),
        cache=str(folder / "cache"),
        tokens="cls,mean,patch",
        size=28,
        rows_per_shard=4,
        batch_size=2,
        threads=1,
        workers=1,
        options=DatasetOptions(id_column="case", patient_column="patient"),
        device="cpu",
    )
    other_layer = replace(config, layers="1", tokens="cls,patch", dtype="int8")
    embedcache.extract(config)
    embedcache.extract(other_layer)
    for i in range(LATER):
        write_png(table.parent / f"later{i}.png", rng.integers(0, 256, (60, 50)).astype(np.uint8))
    table.write_text("\n".join([*lines, *(f"later{i}.png,later{i},q{i},train,{i % 2}" for i in range(LATER))]) + "\n")
    write_png(table.parent / "raster03.png", rng.integers(0, 256, (61, 50)).astype(np.uint8))
    embedcache.extract(config)
    embedcache.extract(other_layer)
    settle(config)
    return config


def settle(config: ExtractConfig) -> None:
    """Make the shard of the superseded sample again, once: its source is gone, so its rows are zeros from then on.

    That is what a repair of that shard gives, since nothing can bring its old rows back; any other shard comes back as it was.
    """
    files = StoreFiles(only_store(config))
    with exclusive(files.leases, "the store"):
        root, index = load(files)
        (sample,) = np.flatnonzero(index.superseded).tolist()
        row = int(index.plan.slice_start[sample])
        reopen(files, root, {name: [row // p.rows_per_shard] for name, p in root.passes.items()})
    again = config_like(files.path, "table", config.root, config.options, backbones=config.backbones, workers=1)
    refill(replace(again, like=None), files.path)


def write_cases(folder: Path, rng: np.random.Generator) -> tuple[Path, Sequence[str]]:
    """A table of small radiographs (PNG, DICOM) and volumes (NIfTI), and one file that is no image."""
    root = folder / "images"
    root.mkdir()
    names = write_mixture(root, rng, RASTERS, DICOMS, VOLUMES, SLICES)
    names.append("broken.png")
    (root / names[-1]).write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    parts = ("train", "train", "validation", "test")
    lines = ["path,case,patient,split,bright"]
    lines += [f"{name},case{i:03},p{i // 2:03},{parts[i // 2 % 4]},{i % 3 % 2}" for i, name in enumerate(names)]
    table = root / "cases.csv"
    table.write_text("\n".join(lines) + "\n")
    return table, lines


def by_type(dataset: Path, store: Path) -> dict[str, list[Path]]:
    """Every file of the dataset's folder that is not a lock, by what it is."""
    found: dict[str, list[Path]] = {kind: [] for kind in SHARE}
    found["labels"].append(dataset / LABELS)
    found["labels digest"].append(dataset / DIGEST)
    for path in sorted(p for p in store.rglob("*") if p.is_file()):
        found[kind_of(path.relative_to(store).as_posix())].append(path)
    assert all(found.values())
    return found


def kind_of(name: str) -> str:
    """The type of an object of a store."""
    top = name.split("/")[0]
    if name == "zarr.json":
        return "root"
    if name.endswith("/zarr.json"):
        return "documents"
    if top in ("sample_id", "patient_id"):
        return "index strings"
    if top == "manifest":
        return "manifest"
    if top.startswith("layer_"):
        return "tokens"
    return "logs" if top.startswith("commit_log_") else "commits" if top.startswith("commits_") else "index numbers"


def flip(path: Path, rng: random.Random) -> str:
    """Turn one bit of one byte of a file over. Returns where."""
    data = bytearray(path.read_bytes())
    at, bit = rng.randrange(len(data)), rng.randrange(8)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return f"byte {at} of {len(data)}, bit {bit}"


def is_found(store: Path, dataset: Path) -> bool:
    """Whether `verify` names damage, or the store is refused."""
    try:
        return bool(verify_store(store).damage or verify_labels(dataset))
    except EmbedcacheError:
        return True


if __name__ == "__main__":
    main()

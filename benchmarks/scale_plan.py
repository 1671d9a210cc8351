"""Planning at scale: a table of a million volumes, three backbones, 10^7 slices, before any image is read.

A million pseudonymous samples of ten slices each, of 250,000 patients, with a binary and a multi-label task. No image of
that number exists here: the table's rows share a thousand small files, which are there, and the private index already
knows how many slices each sample has. All else is real: the table is read, ids become pseudonyms, every file is looked
at, labels and three stores are written and synced.

Measured, each in a process of its own: planning, as `extract` does it before it loads a backbone (wall-clock time and peak
memory); opening a store, its index and the status of its rows; a resume's scan of what is pending, with half of
the commits there (real commits, of shards that were never written).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, sandbox

LIMIT_SECONDS, LIMIT_GIB, LIMIT_OPEN, LIMIT_SCAN = 60.0, 2.0, 2.0, 30.0
BACKBONES = ("pixels:8", "pixels:16", "pixels:32")
SLICES_EACH = 10
SAMPLES_OF_A_PATIENT = 4
FILES = 1_000
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rows-per-shard", type=int, default=128, help="as patch tokens of 2 MiB a slice have")
    parser.add_argument("--csv", action="store_true", help="a CSV table in place of a Parquet file")
    parser.add_argument("--quick", action="store_true", help="100,000 rows")
    parser.add_argument("--stage", choices=sorted(STAGES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.quick:
        asked.rows = 100_000
    if asked.stage:
        print(json.dumps(STAGES[asked.stage](asked)))
        return

    print(
        f"{asked.rows:,} slices of {asked.rows // SLICES_EACH:,} samples, {len(BACKBONES)} backbones; no image is read"
    )
    with sandbox() as folder:
        asked.folder = folder
        stage("table", asked)
        planned = stage("planning", asked)
        print(f"planned in {planned['seconds']:.1f} s with {planned['peak_gib']:.2f} GiB: {said(planned['parts'])}")
        print(f"{planned['files']} files in three stores, {planned['shards']:,} shards each")
        opened = stage("opening", asked)
        print(f"opened in {opened['seconds']:.2f} s ({opened['peak_gib']:.2f} GiB)")
        committed = stage("commits", asked)
        scanned = stage("scan", asked)
        print(f"{committed['commits']:,} commits there; scanned in {scanned['seconds']:.2f} s")
    finish(
        "scale_plan",
        ours=planned["seconds"],
        baseline=LIMIT_SECONDS,
        baseline_name="the limit that was set",
        ratio=LIMIT_SECONDS / planned["seconds"],
        unit="seconds",
        rows=asked.rows,
        samples=asked.rows // SLICES_EACH,
        stores=len(BACKBONES),
        peak_gib=planned["peak_gib"],
        parts=planned["parts"],
        files=planned["files"],
        shards=planned["shards"],
        commits=committed["commits"],
        open_s=opened["seconds"],
        scan_s=scanned["seconds"],
        checks={
            "planning_under_60_s": planned["seconds"] < LIMIT_SECONDS,
            "under_2_gib": planned["peak_gib"] < LIMIT_GIB,
            "opens_under_2_s": opened["seconds"] < LIMIT_OPEN,
            "scan_under_30_s": scanned["seconds"] < LIMIT_SCAN,
            "plan_correct": planned["correct"] and opened["correct"],
            "pending_correct": scanned["correct"],
        },
    )


def stage(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Run one stage in a process of its own; what it found, with its peak memory.

    By `wait4`, which knows this child alone. This process stays small: a child's peak begins with its parent's.
    """
    command = [sys.executable, __file__, "--stage", name, "--folder", str(asked.folder), "--rows", str(asked.rows)]
    command += ["--rows-per-shard", str(asked.rows_per_shard), *(["--csv"] if asked.csv else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        out = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"stage {name} failed")
    scale = 1 if sys.platform == "darwin" else 1024
    return {**json.loads(out.splitlines()[-1]), "peak_gib": used.ru_maxrss * scale / 2**30}


def said(parts: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts.items())


# --- the stages -----------------------------------------------------------------------------------


def make_table(asked: argparse.Namespace) -> dict[str, Any]:
    """The table, the files that it names, and a private index that knows their slices."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    from embedcache.datasets.identifiers import load_key
    from embedcache.datasets.index import IndexRow, PrivateIndex
    from embedcache.types import strings

    n = asked.rows // SLICES_EACH
    images = asked.folder / "images"
    images.mkdir()
    for k in range(FILES):
        (images / f"{k:04}.nii").write_bytes(b"\0" * (k + 1))
    rng = np.random.default_rng(SEED)
    ids = [f"{i:032x}" for i in rng.permutation(n).tolist()]
    table = pa.table(
        {
            "path": [f"images/{i % FILES:04}.nii" for i in range(n)],
            "id": ids,
            "patient": [f"{i // SAMPLES_OF_A_PATIENT:032x}" for i in range(n)],
            "split": np.array(["train", "train", "test", ""])[np.arange(n) // SAMPLES_OF_A_PATIENT % 4],
            "effusion": rng.integers(0, 2, n).astype(str),
            "findings": np.array(["Mass|Nodule", "Mass", "No Finding", "Edema"])[rng.integers(0, 4, n)],
        }
    )
    if asked.csv:
        pyarrow.csv.write_csv(table, table_of(asked))
    else:
        pq.write_table(table, table_of(asked))
    key = load_key()
    renamed = key.pseudonyms("sample", "cases", strings(ids)).tolist()
    states = [(str(images / f"{k:04}.nii"), (images / f"{k:04}.nii").stat()) for k in range(FILES)]
    index = PrivateIndex.open(asked.folder / "cache" / "cases")
    index.put(
        IndexRow(renamed[i], path, state.st_size, state.st_mtime_ns, "", SLICES_EACH)
        for i in range(n)
        for path, state in [states[i % FILES]]
    )
    index.save()
    return {}


def planning(asked: argparse.Namespace) -> dict[str, Any]:
    """All that `extract` does before it loads a backbone."""
    started = time.perf_counter()
    from embedcache.extraction.opening import open_stores
    from embedcache.extraction.plan import check_room
    from embedcache.extraction.prepare import RowPlanner, prepare
    from embedcache.store.labels import write_labels

    parts = {"import": time.perf_counter() - started}

    def timed(name: str, work: Any) -> Any:
        begun = time.perf_counter()
        result = work()
        parts[name] = time.perf_counter() - begun
        return result

    config = config_of(asked)
    prepared = timed("prepare", lambda: prepare(config, print_nothing))
    timed("room", lambda: check_room(prepared, RowPlanner(prepared, print_nothing)))
    timed("labels", lambda: write_labels(prepared.folder, prepared.labels))
    with ExitStack() as workers:
        opened = timed("stores", lambda: open_stores(prepared, print_nothing, workers))
    seconds = time.perf_counter() - started
    plan = opened[0].index.plan
    return {
        "seconds": seconds,
        "parts": parts,
        "files": sum(len(files) for store in stores_of(asked) for _, _, files in os.walk(store)),
        "shards": plan.rows // asked.rows_per_shard,
        "correct": len(opened) == len(BACKBONES)
        and int((plan.slice_index >= 0).sum()) == asked.rows
        and all(store.root.plan_digest == opened[0].root.plan_digest for store in opened),
    }


def opening(asked: argparse.Namespace) -> dict[str, Any]:
    """A store of another machine is opened: its root, its index (checked), the status of its rows."""
    from embedcache.store.reader import FeatureCache  # importing is no part of it

    started = time.perf_counter()
    cache = FeatureCache.open(stores_of(asked)[0], allow_partial=True)
    status = cache.index.row_status
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "correct": int((status == 0).sum()) == asked.rows}


def commits(asked: argparse.Namespace) -> dict[str, Any]:
    """Half of the commits of each store, at random; of shards that were never written, so put without the writer."""
    from embedcache.store import layout
    from embedcache.store.commits import encode_commit
    from embedcache.store.writer import StoreFiles, load
    from embedcache.types import Commit

    count = 0
    for path in stores_of(asked):
        root, index = load(StoreFiles(path))
        (p,) = root.passes.values()
        shards = list(index.plan.shards(p.rows_per_shard))
        folder = path / layout.commits_path(p.id) / "c"
        folder.mkdir()
        objects = {spec.path: "0" * 64 for spec in p.arrays}
        for shard in chosen(len(shards)):
            rows = (shards[shard].start, shards[shard].stop)
            commit = Commit(shards[shard].index, rows, (), p.batch_size, "cpu", {}, objects, "made:1", "then", "now")
            (folder / str(commit.shard)).write_bytes(encode_commit(commit))
            count += 1
    return {"commits": count}


def scan(asked: argparse.Namespace) -> dict[str, Any]:
    """What a resume of the three stores finds pending."""
    from embedcache.store.writer import StoreFiles, load, pending_shards

    started = time.perf_counter()
    pending = []
    for path in stores_of(asked):
        files = StoreFiles(path)
        root, index = load(files)
        (p,) = root.passes.values()
        pending.append([shard.index for shard in pending_shards(files.objects, index.plan, p)])
    seconds = time.perf_counter() - started
    shards = -(-asked.rows // asked.rows_per_shard)
    expected = sorted(set(range(shards)) - set(chosen(shards)))
    return {"seconds": seconds, "correct": all(found == expected for found in pending)}


STAGES = {"table": make_table, "planning": planning, "opening": opening, "commits": commits, "scan": scan}


def config_of(asked: argparse.Namespace) -> Any:
    from embedcache import DatasetOptions, ExtractConfig

    return ExtractConfig(
        dataset="table",
        root=str(table_of(asked)),
        backbones=BACKBONES,
        cache=str(asked.folder / "cache"),
        tokens="cls",
        device="cpu",
        rows_per_shard=asked.rows_per_shard,
        options=DatasetOptions(tasks=("effusion=binary", "findings=multilabel"), positive=("effusion=1",), sep="|"),
    )


def table_of(asked: argparse.Namespace) -> Path:
    folder: Path = asked.folder
    return folder / ("cases.csv" if asked.csv else "cases.parquet")


def stores_of(asked: argparse.Namespace) -> list[Path]:
    return sorted((asked.folder / "cache" / "cases").glob("*/*.zarr"))


def chosen(shards: int) -> list[int]:
    """The shards that are committed."""
    return np.flatnonzero(np.random.default_rng(SEED).random(shards) < 0.5).tolist()


def print_nothing(_: str) -> None:
    """Notices are not measured."""


if __name__ == "__main__":
    main()

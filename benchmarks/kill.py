"""SIGKILL at random moments, then resume: has the store the tokens and the index of an undisturbed one, byte for byte?

`python benchmarks/kill.py --n 200`; with `--workers 2` two extractions share the store, and either is killed. The engine is
`embedcache.testing.kill`, which the test suite runs with 20 kills.
"""

import argparse
import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, sandbox

from embedcache import DatasetOptions, ExtractConfig
from embedcache.extraction.job import extract
from embedcache.testing.files import write_mixture
from embedcache.testing.kill import import_for_forks, kill_and_resume, only_store
from embedcache.testing.trained_vit import make_random_vit

RASTERS, DICOMS, VOLUMES, SLICES = 64, 20, 4, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200, help="kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--workers", type=int, default=1, help="extractions that share the store")
    parser.add_argument("--quick", action="store_true", help="20 kills")
    asked = parser.parse_args()
    kills = 20 if asked.quick else asked.n

    with sandbox() as folder:
        config = ExtractConfig(
            dataset="table",
            root=str(write_cases(folder)),
            backbones=(str(folder / "tiny"),),
            cache=str(folder / "cache"),
            tokens="cls,mean,patch",
            size=28,
            rows_per_shard=2,
            batch_size=2,
            threads=1,
            workers=1,
            options=DatasetOptions(id_column="case"),
            device="cpu",
        )
        calm = ExtractConfig(**{**vars(config), "cache": str(folder / "calm")})
        import_for_forks()
        in_child(make_tiny, folder / "tiny")
        in_child(extract, calm)
        started = time.perf_counter()
        report = kill_and_resume(config, only_store(calm), kills, random.Random(asked.seed), asked.workers)
        took = time.perf_counter() - started

    print(f"{report.kills} kills, {report.halfway} of them between the first and the last commit of a run")
    print(f"{report.held} were followed by a store with the tokens and the index of the undisturbed one; {took:.0f} s")
    finish(
        "kill",
        tried=report.kills,
        held=report.held,
        ratio=report.held / report.kills,
        halfway=report.halfway,
        faults=report.faults,
        seconds=round(took, 1),
        seed=asked.seed,
        workers=asked.workers,
        checks={
            "all_bit_identical": report.held == report.kills,
            "as_many_as_asked": report.kills == kills,
            "half_landed_halfway": report.halfway >= report.kills / 2,
        },
    )


def write_cases(folder: Path) -> Path:
    """A table of small radiographs (PNG, DICOM) and volumes (NIfTI): 96 slices of 88 samples."""
    rng = np.random.default_rng(0)
    root = folder / "images"
    root.mkdir()
    names = write_mixture(root, rng, RASTERS, DICOMS, VOLUMES, SLICES)
    table = root / "cases.csv"
    table.write_text("path,case\n" + "".join(f"{name},case{i:03}\n" for i, name in enumerate(names)))
    return table


def make_tiny(folder: Path) -> None:
    """A random backbone, 32 wide with 2 layers."""
    make_random_vit(folder, seed=1, hidden_size=32, layers=2, heads=2, image_size=56)


def in_child(job: Callable[[Any], object], argument: object) -> None:
    """Run in a fork, so that this process never computes with torch."""
    child = multiprocessing.get_context("fork").Process(target=job, args=(argument,))
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit(child.exitcode)


if __name__ == "__main__":
    main()

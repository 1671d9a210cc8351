"""A search for leaks at the size of NIH's ChestX-ray14: 112,120 vectors of 30,805 patients, with labels and parts.

No image exists at this size, so the vectors are made: 384 numbers with a spectrum that falls as 1/k, alike within a patient, and
a thousand planted copies (a little noise added) in the other part. With `--pixels` they are a store of 32x32 pixels, whose mirror
images are searched as well. What a look at one candidate's pixels takes is measured apart, on radiographs of 1024x1024:
`look_minutes` is that times the candidates of these vectors, on one core.

ours: minutes of processor time of `find_leaks` without a look at pixels; baseline: the ten minutes that were asked.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import SHARED_DATA, finish, sandbox

ROWS, PATIENTS, WIDTH, COPIES = 112_120, 30_805, 384, 1_000
FINDINGS = 14
LIMIT_MINUTES, LIMIT_GIB = 10.0, 2.0
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--pixels", action="store_true", help="a store of 32x32 pixels")
    parser.add_argument("--quick", action="store_true", help="8,000 rows")
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.quick:
        asked.rows = 8_000
    if asked.search:
        print(json.dumps(search(asked.search)))
        return
    with sandbox() as folder:
        copies = make(folder / "cache" / "made", asked.rows, 1024 if asked.pixels else WIDTH)
        found = in_a_process(folder / "cache")
        a_look = seconds_of_a_look(folder)
    pairs = {tuple(sorted(pair)) for pair in found["pairs"]}
    share = float(np.mean([pair in pairs for pair in copies]))
    print(
        f"{asked.rows:,} rows: {found['minutes']:.2f} min of processor time, {found['wall_minutes']:.2f} by the clock, "
        f"{found['peak_gib']:.2f} GiB, {share:.1%} of the copies, {found['candidates']:,} candidates in two parts"
    )
    finish(
        "scale_leaks",
        {
            "under_10_minutes": found["minutes"] < LIMIT_MINUTES,
            "under_2_gib": found["peak_gib"] < LIMIT_GIB,
            "at_least_95%_found": share >= 0.95,
        },
        ours=round(found["minutes"], 3),
        baseline=LIMIT_MINUTES,
        baseline_name="the limit that was set",
        ratio=round(LIMIT_MINUTES / found["minutes"], 2),
        unit="minutes of processor time",
        rows=asked.rows,
        width=1024 if asked.pixels else WIDTH,
        wall_minutes=round(found["wall_minutes"], 3),
        peak_gib=round(found["peak_gib"], 3),
        found=share,
        reported=len(pairs),
        candidates=found["candidates"],
        look_seconds=None if a_look is None else round(a_look, 4),
        look_minutes=None if a_look is None else round(found["candidates"] * a_look / 60, 1),
    )


def in_a_process(cache: Path) -> dict[str, Any]:
    """The search in a process of its own."""
    command = [sys.executable, __file__, "--search", str(cache)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def search(cache: Path) -> dict[str, Any]:
    """What is timed, imports and opening included."""
    started, processor = time.perf_counter(), time.process_time()
    import embedcache
    from embedcache.evaluation import leaks

    candidates = 0
    decide = leaks.decide

    def counted(*given: Any) -> Any:
        nonlocal candidates
        candidates = int(given[3].sum())
        return decide(*given)

    leaks.decide = counted
    (report,) = embedcache.find_leaks(cache)
    return {
        "minutes": (time.process_time() - processor) / 60,
        "wall_minutes": (time.perf_counter() - started) / 60,
        # the made store has no images to look at: its copies are told by their vectors alone
        "pairs": [(pair.first, pair.second) for pair in (*report.pairs, *report.candidates)],
        "candidates": candidates,
        # of this process alone: `getrusage` would count what its parent had when it was forked
        "peak_gib": int(re.findall(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[0]) / 2**20,
    }


def make(folder: Path, rows: int, width: int) -> list[tuple[str, ...]]:
    """A finished store of `rows` vectors with its labels; returns the planted pairs."""
    from embedcache import Labels, Task
    from embedcache.store.labels import write_labels
    from embedcache.testing.stores import make_plan, make_store
    from embedcache.types import ArraySpec, strings

    random = np.random.default_rng(SEED)
    patient = np.sort(random.integers(0, max(2, rows * PATIENTS // ROWS), rows))
    vectors, copies = made(random, patient, min(COPIES, rows // 20), width)
    of_patient = random.random(patient.max() + 1) < 0.25
    part = np.where(of_patient[patient], "test", "train")
    patients = [f"p{p}" for p in patient.tolist()]
    for original, copy in copies:  # copies have patients of their own, in the other part
        patients[copy], part[copy] = f"copy{copy}", "train" if part[original] == "test" else "test"
    plan = make_plan([1] * rows, patients)
    padded = np.zeros((plan.rows, width), dtype=np.float16)
    padded[:rows] = vectors
    make_store(
        folder / "backbone" / "0123456789ab.zarr",
        plan,
        (ArraySpec(1, "cls_token", "float16", (width,)),),
        recipe=pixels_recipe() if width != WIDTH else None,
        values=lambda spec, _: padded,
    )
    task = Task("finding", "multilabel", tuple(f"f{k}" for k in range(FINDINGS)))
    sample = np.repeat(plan.sample_id, FINDINGS)
    write_labels(
        folder,
        Labels(
            (task,),
            strings(["finding"] * len(sample)),
            sample,
            np.repeat(plan.patient_id, FINDINGS),
            np.full(len(sample), -1, dtype=np.int32),
            strings(list(task.classes) * rows),
            random.integers(0, 2, len(sample)).astype(np.float64),
            strings(np.repeat(part, FINDINGS).tolist()),
        ),
    )
    ids = plan.sample_id.tolist()
    return [tuple(sorted((ids[a], ids[b]))) for a, b in copies]


def pixels_recipe() -> Any:
    """A recipe of the family whose vectors can be mirrored."""
    from dataclasses import replace

    from embedcache.testing.stores import make_recipe

    recipe = make_recipe("pixels:32")
    return replace(recipe, image=replace(recipe.image, size=(32, 32)), model=replace(recipe.model, family="pixels"))


def made(
    random: np.random.Generator, patient: np.ndarray, copies: int, width: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """(rows, width) float16, and the (original, copy) among them."""
    spectrum = 1 / np.sqrt(np.arange(1, width + 1))
    own = random.standard_normal((patient.max() + 1, width), dtype=np.float32)
    vectors = random.standard_normal((len(patient), width), dtype=np.float32)
    vectors = ((vectors + 0.8 * own[patient]) * spectrum).astype(np.float32) + np.float32(1)
    chosen = random.choice(len(patient), 2 * copies, replace=False).reshape(copies, 2)
    noise = random.standard_normal((copies, width), dtype=np.float32) * spectrum
    vectors[chosen[:, 1]] = vectors[chosen[:, 0]] + 0.1 * noise
    return vectors.astype(np.float16), [(int(a), int(b)) for a, b in chosen]


def seconds_of_a_look(folder: Path) -> float | None:
    """Processor time to decide one candidate by its pixels, neither image known: None where no radiograph is here."""
    from embedcache.evaluation.same_pixels import Pictures

    paths = [str(path) for path in sorted((SHARED_DATA / "nih_chestxray14").rglob("*.png"))]
    if len(paths) < 2:
        return None
    pictures = Pictures(paths.__getitem__, lambda _: 1)
    pairs = list(zip(range(0, len(paths) - 1, 2), range(1, len(paths), 2), strict=True))
    pictures.same(*pairs[0])  # imports
    pictures = Pictures(paths.__getitem__, lambda _: 1)
    started = time.process_time()
    for pair in pairs:
        pictures.same(*pair)
    return (time.process_time() - started) / len(pairs)


if __name__ == "__main__":
    main()

"""A probe asked again of a finished store: how much of its time is neither reading features nor solving.

A store at the size of NIH's ChestX-ray14 (112,120 CLS tokens of 1,024 float16 numbers, 30,805 patients, 14 findings, the official
25,596 test images' share, names as theirs), made once, its vectors with a falling spectrum and some signal. `embedcache probe
logistic --features cls --force` runs on it in a process of its own, with results switched off by `--force`.

ours: wall time of the job after the imports; baseline: a plain read of the same bytes, every bare solve (the path of 45 C on
the training part, the refit, each from nothing, the faster of two), in the same process and threads. ratio = baseline / ours,
the median of the rounds: at least .77. The job's own refit starts from the chosen model, and so takes less than the bare one.
`same_objective`: both refits' objectives, summed over the findings, agree to 1e-5, and their scores to a hundredth of their
spread. Start-up, from the command to the first line of the job, is given apart. `--quick`: 20,000 rows of 512.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import COMMAND, ROOT, finish

ROWS, WIDTH, PATIENTS, FINDINGS = 112_120, 1_024, 30_805, 14
QUICK_ROWS, QUICK_WIDTH = 20_000, 512
AT_LEAST = 0.77
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 rows of 512")
    parser.add_argument("--rounds", type=int, help="3, or 1 if --quick")
    parser.add_argument("--work", default=str(ROOT / ".benchmark-cache" / "probe_rerun"))
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    rows, width = (QUICK_ROWS, QUICK_WIDTH) if options.quick else (ROWS, WIDTH)
    store = Path(options.work) / f"{rows}x{width}" / "cache" / "made" / "backbone" / "0123456789ab.zarr"
    os.environ["EMBEDCACHE_HOME"] = str(Path(options.work) / "home")
    if not (store / "zarr.json").exists():
        print(f"making a store of {rows:,} x {width}", flush=True)
        make(store, rows, width)
    rounds = []
    for _ in range(options.rounds or (1 if options.quick else 3)):
        done = subprocess.run(
            [sys.executable, __file__, "--measure", str(store)], stdout=subprocess.PIPE, text=True, check=True
        )
        rounds.append(json.loads(done.stdout.splitlines()[-1]))
        print(
            {name: round(value, 2) if isinstance(value, float) else value for name, value in rounds[-1].items()},
            flush=True,
        )
    best = sorted(rounds, key=lambda r: r["bare"] / r["wall"])[len(rounds) // 2]
    started = time.perf_counter()
    subprocess.run([str(COMMAND), "probe", "logistic", "--help"], stdout=subprocess.DEVNULL, check=True)
    ratio = best["bare"] / best["wall"]
    finish(
        "probe_rerun",
        {"at_least_.77": ratio >= AT_LEAST, "same_objective": best["same"]},
        ours=round(best["wall"], 3),
        baseline=round(best["bare"], 3),
        baseline_name="read of the same bytes + bare solves of selection and refit",
        ratio=round(ratio, 3),
        unit="seconds",
        rows=rows,
        width=width,
        startup_seconds=round(best["imports"], 3),
        help_seconds=round(time.perf_counter() - started, 3),
        **{f"{name}_seconds": round(best[name], 3) for name in ("read", "selection", "refit")},
        stages=best["stages"],
    )


def measure(store: Path) -> dict[str, Any]:
    """In a process of its own: the job, then its bare parts, with the job's own rows and parts."""
    started = time.perf_counter()
    import embedcache
    from embedcache.evaluation import probe as job
    from embedcache.evaluation.question import ask
    from embedcache.evaluation.splits import part_rows
    from embedcache.probes import logistic_path  # noqa: F401 what the job imports when it is first needed is start-up too
    from embedcache.probes.standardizer import Standardizer

    config = embedcache.ProbeConfig("logistic", store, features="cls", force=True, results=store.parents[2] / "results")
    imports = time.perf_counter() - started

    started = time.perf_counter()
    result = job.run_probe(config)
    wall = time.perf_counter() - started

    question = ask(config)
    started = time.perf_counter()
    for path in sorted((store / "layer_1" / "cls_token" / "c").rglob("*")):
        if path.is_file():
            path.read_bytes()
    read = time.perf_counter() - started
    X, y, _ = features = question.cache.features("cls", task=question.task.name)
    parts = part_rows(question.split, features.sample_id)
    train, both = parts == "train", parts != "test"
    solved = {}
    for name, rows, values in (
        ("selection", train, question.probe.grid(int(train.sum()))),
        ("refit", both, (result.chosen["C"],)),
    ):
        own, labels = Standardizer.fit(X[rows]).apply(X[rows]), y[rows]
        taken = []
        for _ in range(2):
            started = time.perf_counter()
            fitted = question.probe.fit_path(own, labels, "multilabel", values, FINDINGS)
            taken.append(time.perf_counter() - started)
        solved[name] = min(taken)  # what disturbed a bare solve must not make the job look better
    scores = fitted.scores(Standardizer.fit(X[both]).apply(X[parts == "test"]))[0]
    written = embedcache.evaluation.predictions.read_predictions(result).of("test").score
    objectives = [kept["objective"][0] for kept in (result.selection["refit"]["solver"], fitted.diagnostics.path)]
    same = abs(objectives[0] / objectives[1] - 1) < 1e-5 and np.abs(scores - written).max() < 0.01 * scores.std()
    return {
        "imports": imports,
        "wall": wall,
        "read": read,
        **solved,
        "bare": read + sum(solved.values()),
        "same": bool(same),
        "stages": dict(result.timings),
    }


def make(store: Path, rows: int, width: int) -> None:
    """The finished store with its labels."""
    from embedcache import Labels, Task
    from embedcache.store.labels import write_labels
    from embedcache.testing.stores import make_plan, make_store
    from embedcache.types import ArraySpec, strings

    random = np.random.default_rng(SEED)
    patient = np.sort(random.integers(0, rows * PATIENTS // ROWS, rows))
    share = random.uniform(0.002, 0.18, FINDINGS)
    spectrum = (1 / np.sqrt(np.arange(1, width + 1))).astype(np.float32)
    vectors = random.standard_normal((rows, width), dtype=np.float32)
    vectors += 0.8 * random.standard_normal((patient.max() + 1, width), dtype=np.float32)[patient]
    direction = random.standard_normal((width, FINDINGS), dtype=np.float32) / np.sqrt(width)
    signal = vectors @ direction + random.standard_normal((rows, FINDINGS), dtype=np.float32)
    least = np.array([np.quantile(signal[:, k], 1 - share[k]) for k in range(FINDINGS)])
    y = (signal > least).astype(np.float64)
    tested = random.random(patient.max() + 1) < 25_596 / ROWS
    part = np.where(tested[patient], "test", "train")

    plan = make_plan([1] * rows, [str(p + 1) for p in patient.tolist()])
    # named as NIH names them, patient and number: so samples lie in the order of their ids, as in any store of ours
    number = np.arange(rows) - np.searchsorted(patient, patient)
    ids = [f"{p + 1:08d}_{k:03d}.png" for p, k in zip(patient.tolist(), number.tolist(), strict=True)]
    plan = replace(plan, sample_id=strings(ids))
    padded = np.zeros((plan.rows, width), dtype=np.float16)
    padded[:rows] = vectors * spectrum + np.float32(1)
    make_store(store, plan, (ArraySpec(1, "cls_token", "float16", (width,)),), values=lambda spec, _: padded)
    task = Task("findings", "multilabel", tuple(f"finding {k + 1}" for k in range(FINDINGS)))
    sample = np.repeat(plan.sample_id, FINDINGS)
    write_labels(
        store.parents[1],
        Labels(
            (task,),
            strings([task.name] * len(sample)),
            sample,
            np.repeat(plan.patient_id, FINDINGS),
            np.full(len(sample), -1, dtype=np.int32),
            strings(list(task.classes) * rows),
            y.ravel(),
            strings(np.repeat(part, FINDINGS).tolist()),
        ),
    )


if __name__ == "__main__":
    main()

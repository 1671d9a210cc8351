"""A finished store with made-up features that carry its labels, written by the real writer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedcache.store.fingerprint import pass_document, pass_id
from embedcache.store.index import open_root
from embedcache.store.labels import write_labels
from embedcache.store.writer import StoreFiles, add_pass, commit_shard, create_store, finalise, new_root, write_shard
from embedcache.types import (
    ArraySpec,
    Commit,
    DatasetInfo,
    ImageRecipe,
    Labels,
    ModelRecipe,
    Pass,
    Plan,
    Quarantined,
    Recipe,
    Task,
    TokenKind,
    Window,
    strings,
)

FINDINGS = Task("findings", "multilabel", ("Effusion", "Mass", "Nodule"))
WIDTH = 6


@dataclass(frozen=True)
class LabelledStore:
    """What lies where, and what was put into it."""

    store: Path
    samples: list[str]
    patients: list[str]
    y: npt.NDArray[np.float64]
    """(samples, classes) as written: 0, 1, NaN; for multiclass one-hot."""
    task: Task
    splits: list[str]

    def relabel(self, y: npt.NDArray[np.float64]) -> None:
        """Replace the labels beside the store."""
        self.label(self.store.parents[1], self.task, y)

    def label(self, folder: Path, task: Task, y: npt.NDArray[np.float64]) -> None:
        """Write labels of `task` for these samples into `folder`."""
        write_labels(folder, long_labels(task, self.samples, self.patients, y, self.splits))


def long_labels(
    task: Task, samples: list[str], patients: list[str], y: npt.NDArray[np.float64], splits: list[str]
) -> Labels:
    """Labels of one task, a row per sample and class: y (samples, classes), one-hot for multiclass."""
    rows = [
        (s, p, c, y[i, j], splits[i])
        for i, (s, p) in enumerate(zip(samples, patients, strict=True))
        for j, c in enumerate(task.classes or ("",))
        if task.kind != "multiclass" or y[i, j] == 1
    ]
    sample, patient, klass, value, split = (list(column) for column in zip(*rows, strict=True))
    n = len(rows)
    return Labels(
        (task,),
        strings([task.name] * n),
        strings(sample),
        strings(patient),
        np.full(n, -1, dtype=np.int32),
        strings(klass),
        np.array(value, dtype=np.float64),
        strings(split),
    )


def make_labelled_store(
    folder: Path,
    task: Task = FINDINGS,
    n: int = 160,
    given: Callable[[int], str] = lambda patient: "",
    slices: int = 1,
    quarantined: tuple[int, ...] = (),
    signal: float = 2.0,
    seed: int = 0,
    layers: tuple[int, ...] = (2,),
) -> LabelledStore:
    """`n` samples, two of each patient, whose first features carry the classes; the CLS token more than the mean.

    layers: the numbers of the stored layers, which carry as much each, under noise of their own.
    """
    random = np.random.default_rng(seed)
    samples = [f"s{i:04d}" for i in range(n)]
    patients = [f"p{i // 2:04d}" for i in range(n)]
    c = len(task.classes) or 1
    y = (random.random((n, c)) < 0.4).astype(float)
    if task.kind == "multiclass":
        y = np.eye(c)[random.integers(0, c, n)]
    if task.kind == "numeric":
        y = random.normal(size=(n, c))
    rows = 1 << int(np.ceil(np.log2(n * slices)))
    owned = n * slices
    plan = Plan(
        strings(samples),
        strings(patients),
        np.arange(n, dtype=np.int64) * slices,
        np.full(n, slices, dtype=np.int64),
        np.concatenate([np.tile(np.arange(slices), n), np.full(rows - owned, -1)]).astype(np.int32),
        rows,
    )
    recipe = Recipe(
        ImageRecipe(Window("auto"), (28, 28), (0.5,), (0.5,)), ModelRecipe("test", "made-up", "main", "0" * 64)
    )
    kinds: tuple[tuple[TokenKind, float], ...] = (("cls_token", signal), ("patch_mean", signal / 4))
    arrays = tuple(ArraySpec(layer, kind, "float32", (WIDTH,)) for layer in layers for kind, _ in kinds)
    new = Pass(pass_id(pass_document(arrays, rows, 8, 1, "cpu")), arrays, rows, 8, 1, "cpu")

    path = folder / "made" / "made-up" / "0123456789ab.zarr"
    path.parent.mkdir(parents=True, exist_ok=True)
    files = StoreFiles(path)
    create_store(files, new_root(recipe, DatasetInfo("made"), {}, "kept", "", plan, "0" * 64), plan)
    add_pass(files, open_root(files.objects), new)
    values = {}
    for spec, (_, strength) in zip(arrays, kinds * len(layers), strict=True):
        tokens = random.normal(size=(rows, WIDTH)).astype(np.float32)
        tokens[:owned, :c] += strength * np.repeat(y, slices, axis=0).astype(np.float32)
        tokens[owned:] = 0
        tokens[list(quarantined)] = 0
        values[spec.path] = tokens
    shard = next(plan.shards(rows))
    digests = write_shard(files.objects, new, shard, values)
    bad = tuple(Quarantined(row, "decode", "truncated") for row in quarantined)
    commit_shard(files.objects, new, Commit(0, (0, rows), bad, 8, "cpu", {}, digests, "host", "", ""))
    finalise(files, new.id)

    made = LabelledStore(path, samples, patients, y, task, [given(i // 2) for i in range(n)])
    made.relabel(y)
    return made

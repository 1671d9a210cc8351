"""A finished store with made-up features that carry its labels, written by the real writer."""

from collections.abc import Callable, Mapping
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
    dataset: str = "made",
    backbone: str = "made-up",
    prefix: str = "",
) -> LabelledStore:
    """`n` samples, two of each patient, whose first features carry the classes; the CLS token more than the mean.

    layers: the numbers of the stored layers, which carry as much each, under noise of their own. `prefix` stands before the
    ids of samples and patients, to tell those of two datasets apart.
    """
    random = np.random.default_rng(seed)
    c = len(task.classes) or 1
    y = (random.random((n, c)) < 0.4).astype(float)
    if task.kind == "multiclass":
        y = np.eye(c)[random.integers(0, c, n)]
    if task.kind == "numeric":
        y = random.normal(size=(n, c))
    rows = 1 << int(np.ceil(np.log2(n * slices)))
    kinds: tuple[tuple[TokenKind, float], ...] = (("cls_token", signal), ("patch_mean", signal / 4))
    tokens = {}
    for layer in layers:
        for kind, strength in kinds:
            values = random.normal(size=(rows, WIDTH)).astype(np.float32)[: n * slices]
            values[:, :c] += strength * np.repeat(y, slices, axis=0).astype(np.float32)
            values[list(quarantined)] = 0
            tokens[layer, kind] = values
    made = LabelledStore(
        folder / dataset / backbone / "0123456789ab.zarr",
        [f"{prefix}s{i:04d}" for i in range(n)],
        [f"{prefix}p{i // 2:04d}" for i in range(n)],
        y,
        task,
        [given(i // 2) for i in range(n)],
    )
    write_labelled_store(made, tokens, slices, quarantined)
    return made


def write_labelled_store(
    made: LabelledStore,
    tokens: Mapping[tuple[int, TokenKind], npt.NDArray[np.float32]],
    slices: int = 1,
    quarantined: tuple[int, ...] = (),
    size: int = 28,
) -> None:
    """Write the store and the labels that `made` describes.

    tokens: by layer and kind, (samples * slices, WIDTH) in the order of `made`, or (samples * slices, y, x, width) of patches.
    `size` of the input is a part of the recipe.
    """
    n = len(made.samples)
    owned = n * slices
    rows = 1 << int(np.ceil(np.log2(owned)))
    plan = Plan(
        strings(made.samples),
        strings(made.patients),
        np.arange(n, dtype=np.int64) * slices,
        np.full(n, slices, dtype=np.int64),
        np.concatenate([np.tile(np.arange(slices), n), np.full(rows - owned, -1)]).astype(np.int32),
        rows,
    )
    backbone, dataset = made.store.parent.name, made.store.parents[1].name
    recipe = Recipe(
        ImageRecipe(Window("auto"), (size, size), (0.5,), (0.5,)), ModelRecipe("test", backbone, "main", "0" * 64)
    )
    arrays = tuple(ArraySpec(layer, kind, "float32", a.shape[1:]) for (layer, kind), a in tokens.items())
    new = Pass(pass_id(pass_document(arrays, rows, 8, 1, "cpu")), arrays, rows, 8, 1, "cpu")

    made.store.parent.mkdir(parents=True, exist_ok=True)
    files = StoreFiles(made.store)
    create_store(files, new_root(recipe, DatasetInfo(dataset), {}, "kept", "", plan, "0" * 64), plan)
    add_pass(files, open_root(files.objects), new)
    values = {}
    for spec in arrays:
        values[spec.path] = np.zeros((rows, *spec.shape), dtype=np.float32)
        values[spec.path][:owned] = tokens[spec.layer, spec.kind]
    shard = next(plan.shards(rows))
    digests = write_shard(files.objects, new, shard, values)
    bad = tuple(Quarantined(row, "decode", "truncated") for row in quarantined)
    commit_shard(files.objects, new, Commit(0, (0, rows), bad, 8, "cpu", {}, digests, "host", "", ""))
    finalise(files, new.id)
    made.relabel(made.y)

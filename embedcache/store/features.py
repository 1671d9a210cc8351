"""From token arrays and labels to `X, y, groups`: choose vectors, drop bad rows, pool slices, join a task."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, suggest
from embedcache.half import widen, widened
from embedcache.store.chunks import run_jobs, thread_count
from embedcache.store.pooling import Pooling, pool_slices
from embedcache.store.texts import factorise, locate, rows_of
from embedcache.store.units import PoolBy, Units, agreed, pooling_task, units_by
from embedcache.types import PARTS, IntArray, Labels, Plan, StringArray, Task, Texts, fixed_width, strings

if TYPE_CHECKING:
    from embedcache.store.ahead import ReadAhead
    from embedcache.store.reader import FeatureCache
    from embedcache.store.tokens import PatchTokens, TokenArray

Vectors = npt.NDArray[Any]

VECTORS = {
    "cls": ("cls_token",),
    "mean": ("patch_mean",),
    "cls+mean": ("cls_token", "patch_mean"),
    "pooled": ("pooled",),
}


@dataclass(frozen=True)
class FeatureColumns:
    """Where one stored array lies in a row's vector: columns [start, stop)."""

    layer: int
    kind: str
    """`cls_token`, `patch_mean`, `pooled`."""
    start: int
    stop: int


@dataclass(frozen=True)
class Features:
    """Features with their labels, a row per sample or per slice; unpacks as `X, y, groups`, and `len` is that of groups."""

    X: Vectors
    """(n, d): float32, or under `as_stored` float16 where nothing had to be computed."""
    y: npt.NDArray[np.float64]
    """(n,) or, for a multilabel task, (n, labels); NaN where missing; a class number for multiclass; (n, 0) without a task."""
    groups: StringArray
    """(n,): the patient of each row, as fixed-width numpy strings, which scikit-learn's group splitters take."""
    sample_id: StringArray
    """(n,)."""
    slice_index: npt.NDArray[np.int32]
    """(n,): position in the source volume, -1 where slices were pooled."""
    classes: tuple[str, ...]
    """Of the task; () without one."""
    incomplete: StringArray
    """Samples of which slices are quarantined or pending: pooled from the others, or left out under `strict_volumes`."""
    columns: tuple[FeatureColumns, ...] = ()
    """Of X, in their order: an array comes twice where both its mean and its maximum were pooled."""
    members: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """(n,): how many samples a row was pooled over; under `pool_by` it goes by the id of the first of them."""
    sizes: IntArray | None = None
    """Under `pool="bags"` (n,): X has so many rows, one after the other, for each of y, groups and the rest; else None."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.X, self.y, self.groups))

    def __len__(self) -> int:
        return len(self.groups)


def assemble(
    cache: "FeatureCache",
    kinds: str,
    layers: int | tuple[int, ...] | None,
    pool: str | None,
    task: str | None,
    split: str | Iterable[str] | None,
    labels: Labels | None,
    strict_volumes: bool = False,
    pool_by: PoolBy | None = None,
    as_stored: bool = False,
    ahead: "ReadAhead | None" = None,
) -> Features:
    """See `FeatureCache.features`."""
    pooling = _pooling(cache, pool, pool_by)
    arrays = vectors(cache, kinds, layers)
    by_column = isinstance(pool_by, str) and pool_by not in ("sample", "patient")
    wants_labels = task is not None or isinstance(split, str) or by_column
    known = labels if labels is not None or not wants_labels else cache.labels()
    wanted = known.get(task) if known is not None and task is not None else None
    _check_level(cache, wanted, pooling)

    plan = cache.index.plan
    owner = plan.owner()
    ok = cache.good_rows(array.stored_pass for array in arrays)
    for token_array in arrays:
        ok &= finished_rows(token_array)
    asked = chosen_samples(cache, split, known) & ~cache.index.superseded
    ok[ok] = asked[owner[ok]]
    rows = np.flatnonzero(ok)
    if not len(rows):
        raise InputError(
            f"no row of {cache.path.name} is left for split {split!r}; `embedcache show` counts what there is."
        )
    units = find_units(plan, pool_by, asked, known)
    # by unit and sample, slices in order, wherever the sample lies
    rows = rows[np.lexsort((rows, owner[rows], units.of_sample[owner[rows]]))]

    columns = columns_of(arrays, times=pooling.width if pooling else 1)
    unit, first, count = np.unique(units.of_sample[owner[rows]], return_index=True, return_counts=True)

    half = as_stored and all(a.dtype == np.float16 for a in arrays)
    half &= pooling is None or pooling.way == "bags" or len(unit) == len(rows)  # nothing is averaged

    def read() -> Vectors:
        slices = ahead.take(arrays) if half and ahead is not None else None
        if slices is None:
            slices = gather(arrays, rows, cache.root.rows, half)
        elif _as_they_lie(rows):
            slices = slices[: len(rows)]
        else:
            slices = slices[rows]
        return slices if pooling is None else pool_slices(slices, first, count, pooling)

    with ThreadPoolExecutor(1, thread_name_prefix="embedcache-read") as beside:
        reading = beside.submit(read)  # meanwhile: whose rows these are, and their labels
        sizes: IntArray | None = None
        kept: npt.NDArray[np.bool_] | None = None
        if pooling is None:
            sample, slice_index = owner[rows], plan.slice_index[rows]
            incomplete, members = np.empty(0, dtype=np.int64), np.ones(len(rows), dtype=np.int64)
            labelled = sample
        else:
            labelled = owner[rows[np.flatnonzero(np.diff(owner[rows], prepend=-1))]]  # each sample once, sorted by unit
            slice_index = np.full(len(unit), -1, dtype=np.int32)
            sample = units.named(plan, labelled)
            members = np.unique(units.of_sample[labelled], return_counts=True)[1]
            n_units = len(units.of_sample)
            whole = np.bincount(units.of_sample[asked], plan.slice_count[asked], minlength=n_units)[unit]
            short = count < whole
            incomplete = sample[short]
            sizes = count if pooling.way == "bags" else None
            if strict_volumes and short.any():
                labelled = labelled[np.isin(units.of_sample[labelled], unit[~short])]
                kept = ~(short if sizes is None else np.repeat(short, count))
                sample, slice_index, members = sample[~short], slice_index[~short], members[~short]
                sizes = None if sizes is None else sizes[~short]
        # fixed-width strings from here on: scikit-learn's group splitters do not take numpy's StringDType
        ids, groups = (fixed_width(_taken(column, sample)) for column in (plan.sample_id, plan.patient_id))
        classes: tuple[str, ...] = ()
        y = np.empty((len(ids), 0))
        if wanted is not None and known is not None:
            classes = wanted.classes
            of_rows = slice_index if len(labelled) == len(sample) else np.full(len(labelled), -1, dtype=np.int32)
            y = join(known, wanted, _taken(plan.sample_id, labelled), _taken(plan.patient_id, labelled), of_rows)
            if pooling is not None:
                y = agreed(y, units.of_sample[labelled], units.name, wanted)
        X = reading.result()
    X = X if kept is None else X[kept]
    return Features(X, y, groups, ids, slice_index, classes, plan.sample_id[incomplete], columns, members, sizes)


def find_units(plan: Plan, pool_by: PoolBy | None, asked: npt.NDArray[np.bool_], labels: Labels | None) -> Units:
    """What the slices of each sample of a store are pooled over; asked (samples,): those that take part.

    Raises InputError where one of these has no value of the column, UnknownNameError where the labels have no such column.
    """
    if not isinstance(pool_by, str) or pool_by in ("sample", "patient"):
        return units_by(plan, pool_by, asked)
    assert labels is not None  # assemble loads them where a column is named
    ids, patients = (fixed_width(column) for column in (plan.sample_id, plan.patient_id))
    values = join(labels, pooling_task(labels, pool_by), ids, patients, np.full(len(ids), -1, dtype=np.int32))
    return units_by(plan, pool_by, asked, values)


def _pooling(cache: "FeatureCache", pool: str | None, pool_by: PoolBy | None) -> Pooling | None:
    """How slices are pooled, None if they are not. Raises InputError for what makes no sense."""
    apart = pool_by is None or (isinstance(pool_by, str) and pool_by == "sample")
    pooling = None if pool is None else Pooling.parse(pool)
    if pooling is None and not apart:
        raise InputError("slices that are kept apart are not pooled by anything; leave pool_by (--pool-by) out.")
    if pooling is not None and pooling.ordered and not apart:
        raise InputError(
            f"the middle is that of one volume, and pool_by puts several together, so pool {pool!r} is not to be had; use "
            "mean, max, mean+max or top-K."
        )
    if cache.unit == "slice" or not apart:
        return pooling
    if pool not in ("mean", None):
        raise InputError(f"{cache.path.name} holds whole volumes, so there are no slices to pool by {pool}; use mean.")
    return Pooling("mean")  # of the one row that a sample has


def _check_level(cache: "FeatureCache", task: Task | None, pooling: Pooling | None) -> None:
    if task is None or task.level != "slice":
        return
    if pooling is not None:
        remedy = "use pool=None (--pool none)"
        if cache.unit == "volume":
            remedy = "and whole volumes are stored; use a backbone of slices"
        raise InputError(f"task {task.name!r} has a label per slice, so slices can not be pooled; {remedy}.")
    if cache.recipe.image.plane != "stored":
        raise InputError(
            f"task {task.name!r} labels slices as the files store them, and {cache.path.name} holds "
            f"{cache.recipe.image.plane} ones; extract with --plane stored."
        )


def vectors(cache: "FeatureCache", kinds: str, layers: int | tuple[int, ...] | None) -> "list[TokenArray]":
    """The arrays that `kinds` and `layers` mean, in the order in which they are concatenated."""
    if kinds not in VECTORS:
        raise suggest("vector", kinds, VECTORS)
    if kinds == "pooled":
        return [cache.tokens(0, "pooled")]
    asked = (-1,) if layers is None else (layers,) if isinstance(layers, int) else tuple(layers)
    if not asked:
        raise InputError("layers must name at least one layer. Got ().")
    numbers = sorted({cache.layer_number(n) for n in asked})
    found = []
    for kind in VECTORS[kinds]:
        # DINOv2's rule: CLS of all asked blocks, the mean patch token of the last one only
        found += [cache.tokens(n, kind) for n in (numbers if kind == "cls_token" else numbers[-1:])]
    return found


def columns_of(arrays: "list[TokenArray]", times: int) -> tuple[FeatureColumns, ...]:
    """The arrays' columns where they lie side by side, all of them `times` over."""
    found, at = [], 0
    for array in arrays * times:
        width = array.spec.shape[-1]
        found.append(FeatureColumns(array.spec.layer, array.spec.kind, at, at + width))
        at += width
    return tuple(found)


def finished_rows(tokens: "PatchTokens") -> npt.NDArray[np.bool_]:
    """Shape (rows,): rows whose shard is committed; all of them in a finished pass."""
    cache, p = tokens.cache, tokens.stored_pass
    if cache.root.complete[p.id]:
        return np.ones(cache.root.rows, dtype=np.bool_)
    done = np.zeros(cache.root.rows, dtype=np.bool_)
    for commit in cache.commits(p.id):
        done[slice(*commit.rows)] = True
        done[[bad.row for bad in commit.quarantined]] = False
    return done


def chosen_samples(
    cache: "FeatureCache", split: str | Iterable[str] | None, labels: Labels | None
) -> npt.NDArray[np.bool_]:
    """Shape (samples,): whether each sample is asked for."""
    ids = cache.index.plan.sample_id
    if split is None:
        return np.ones(len(ids), dtype=np.bool_)
    if isinstance(split, str):
        assert labels is not None  # assemble loads them for a named part
        if split not in PARTS:
            raise suggest("split", split, PARTS)
        wanted: Texts = labels.sample[labels.split == split]
        if not len(wanted):
            raise InputError(
                f"the labels of {cache.path.name} name no {split} samples; make a split with `embedcache splits make`."
            )
    else:
        wanted = strings(split) if isinstance(split, np.ndarray) else strings([str(sample) for sample in split])
    return locate(ids, wanted) >= 0


def gather(
    arrays: "list[TokenArray]",
    rows: npt.NDArray[np.int64],
    total: int,
    half: bool,
    threads: int | None = None,
    stop: Event | None = None,
) -> Vectors:
    """The given rows of the arrays, side by side: shape (len(rows), sum of widths), float16 if `half`, else float32.

    stop: once it is set, no further shard is read, and the rest holds anything.
    """
    if half and len(arrays) == 1 and _as_they_lie(rows):  # read where they stay
        read: Vectors = arrays[0].read(threads=threads, stop=stop)[: len(rows)]
        return read
    X = np.empty((len(rows), sum(a.spec.shape[-1] for a in arrays)), dtype=np.float16 if half else np.float32)
    place = np.full(total, -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    column = 0
    for array in arrays:
        width = array.spec.shape[-1]
        for start, block in array.shards(reuse=True, threads=threads):
            if stop is not None and stop.is_set():
                break
            to = place[start : start + len(block)]
            used = to >= 0
            if used.all() and (np.diff(to) == 1).all():  # as they lie: no copy of the block is needed
                _convert(block, X[to[0] : to[0] + len(block), column : column + width], thread_count(threads))
            else:
                X[to[used], column : column + width] = block[used] if half else widened(block[used])
        column += width
    return X


def _as_they_lie(rows: npt.NDArray[np.int64]) -> bool:
    """Whether these are the first rows of a store, in its order."""
    return bool((rows == np.arange(len(rows))).all())


def _taken(column: StringArray, at: npt.NDArray[np.int64]) -> StringArray:
    """The texts at these places: those at the beginning as they lie, for to take texts one by one is slow."""
    return column[: len(at)] if _as_they_lie(at) else column[at]


def _convert(block: npt.NDArray[Any], out: Vectors, threads: int) -> None:
    cuts = np.linspace(0, len(block), threads + 1, dtype=int).tolist()
    copy = np.copyto if out.dtype == block.dtype else widen
    run_jobs([partial(copy, out[a:b], block[a:b]) for a, b in pairwise(cuts)], threads)


def join(
    labels: Labels, task: Task, ids: StringArray, patients: StringArray, slice_index: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """The task's y for rows that are named by sample id, patient and slice, at the task's own level."""
    of_task = rows_of(labels.task == task.name)
    value, klass = labels.value[of_task], labels.klass[of_task]
    by_patient = task.level == "patient"
    words, asked = factorise(strings(patients if by_patient else ids))
    unit = locate((labels.patient if by_patient else labels.sample)[of_task], words)
    hit, n_units = unit >= 0, len(words)
    if task.level == "slice":
        slices = labels.slice[of_task].astype(np.int64)
        span = int(max(slices.max(initial=0), slice_index.max(initial=0))) + 2
        keys, asked = np.unique(asked * span + slice_index, return_inverse=True)
        key = unit * span + slices
        unit, n_units = np.searchsorted(keys, key), len(keys)
        hit &= (unit < n_units) & (keys[np.minimum(unit, n_units - 1)] == key)
    column = np.maximum(locate(klass, strings(list(task.classes))), 0)
    width = len(task.classes) if task.kind == "multilabel" else 1
    table = np.full((n_units, width), np.nan)
    if task.kind == "multiclass":
        true = hit & (value == 1)
        table[unit[true], 0] = column[true]
    else:
        known = rows_of(hit)
        table.ravel()[unit[known] * width + (column[known] if width > 1 else 0)] = value[known]
    y = table[asked]
    return y if task.kind == "multilabel" else y[:, 0]

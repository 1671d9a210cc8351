"""A store as a map-style dataset, for heads of one's own: numpy arrays out, a slice or whole volume each.

torch asks of a dataset no more than a length and items, so nothing here imports it: its default collation makes tensors of what
comes out. Items hold no open file, so worker processes may be forked or spawned.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, suggest
from embedcache.half import widened
from embedcache.store import layout
from embedcache.store.features import VECTORS, chosen_samples, finished_rows, join, vectors
from embedcache.store.reader import FeatureCache
from embedcache.store.tokens import PatchTokens, TokenArray
from embedcache.types import Labels, fixed_width, strings

KINDS = ("patch", *VECTORS)
Item = tuple[npt.NDArray[Any], npt.NDArray[Any], int]


class TokenDataset:
    """`dataset[i]` is `(tokens, y, i)`: use `torch.utils.data.DataLoader(dataset, batch_size=64, shuffle=True, num_workers=4)`.

    kind: `patch` gives tokens (y, x, features), of whole volumes (z, y, x, features); `cls`, `mean`, `cls+mean` and `pooled` a
    vector, as in `FeatureCache.features`. layers: one or several, side by side in the features (of vectors by DINOv2's rule);
    None is the last. task, labels: as there; only items with a label are offered, `y` being a number (float32; int64 of a
    multiclass task), of a multilabel task (labels,) with NaN where one is missing, and (0,) without a task. split: `train`,
    `validation`, `test`, or sample ids. dtype: of the tokens, None as they are stored. keep: bytes of decoded vectors that are
    kept, the most recent ones, since a shard of vectors is read as a whole; patch tokens are read one by one, and batches
    (`__getitems__`, which torch uses) in the order in which they lie.

    `sample_id`, `patient_id` and `slice_index`, of all items, say what item i is. Raises InputError, StoreError as FeatureCache.
    """

    def __init__(
        self,
        cache: FeatureCache | str | Path,
        kind: str = "patch",
        layers: int | tuple[int, ...] | None = None,
        task: str | None = None,
        split: str | Iterable[str] | None = None,
        labels: Labels | None = None,
        dtype: npt.DTypeLike | None = np.float32,
        keep: int = 256 * 2**20,
    ) -> None:
        if kind not in KINDS:
            raise suggest("kind of tokens", kind, KINDS)
        opened = cache if isinstance(cache, FeatureCache) else FeatureCache.open(cache)
        self.path = opened.path.resolve()
        self.kind, self.keep = kind, keep
        self.dtype = None if dtype is None else np.dtype(dtype)
        self._allow_partial = opened.allow_partial
        self._arrays: list[PatchTokens] | None = _arrays(opened, kind, layers)
        self._layers = layers
        self._kept: OrderedDict[tuple[int, int], npt.NDArray[Any]] = OrderedDict()
        self._choose(opened, task, split, labels)

    def _choose(
        self, cache: FeatureCache, task: str | None, split: str | Iterable[str] | None, labels: Labels | None
    ) -> None:
        """Which rows are offered, and their labels."""
        known = labels if labels is not None or (task is None and not isinstance(split, str)) else cache.labels()
        wanted = known.get(task) if known is not None and task is not None else None
        if wanted is not None and wanted.kind == "segmentation":
            raise InputError(
                f"task {wanted.name!r} is of masks, which lie with the images; join your own by sample and slice."
            )
        if wanted is not None and wanted.level == "slice" and cache.recipe.image.plane != "stored":
            raise InputError(
                f"task {wanted.name!r} labels slices as the files store them; extract with --plane stored."
            )
        plan = cache.index.plan
        owner = plan.owner()
        ok = cache.good_rows(array.stored_pass for array in self._tokens())
        for array in self._tokens():
            ok &= finished_rows(array)
        ok[ok] = (chosen_samples(cache, split, known) & ~cache.index.superseded)[owner[ok]]
        rows = np.flatnonzero(ok)
        rows = rows[np.lexsort((rows, owner[rows]))]
        ids, patients = (fixed_width(column[owner[rows]]) for column in (plan.sample_id, plan.patient_id))
        slices = plan.slice_index[rows]
        y: npt.NDArray[Any] = np.empty((len(rows), 0), dtype=np.float32)
        if wanted is not None and known is not None and len(rows):
            found = join(known, wanted, ids, patients, slices)
            there = ~np.isnan(found).reshape(len(rows), -1).all(axis=1)
            rows, ids, patients, slices = rows[there], ids[there], patients[there], slices[there]
            y = found[there].astype(np.int64 if wanted.kind == "multiclass" else np.float32)
        if not len(rows):
            raise InputError(f"no row of {cache.path.name} is left for split {split!r} and task {task!r}.")
        self.rows, self.y = rows, y
        self.sample_id, self.patient_id, self.slice_index = strings(ids), strings(patients), slices
        self.classes = wanted.classes if wanted is not None else ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an item's tokens."""
        first = self._tokens()[0].spec.shape
        return (*first[:-1], sum(array.spec.shape[-1] for array in self._tokens()))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Item:
        if not -len(self) <= i < len(self):
            raise IndexError(f"there are {len(self)} items, and none is number {i}.")
        (item,) = self.__getitems__([int(i) % len(self)])
        return item

    def __getitems__(self, index: Sequence[int]) -> list[Item]:
        """Several items at once, each row read once and in the order of the store."""
        numbers = np.asarray(index, dtype=np.int64)
        parts = [self._read(k, array, self.rows[numbers]) for k, array in enumerate(self._tokens())]
        tokens = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        if self.dtype is not None and self.dtype != tokens.dtype:
            tokens = widened(tokens).astype(self.dtype, copy=False)
        return [(tokens[at], self.y[i], i) for at, i in enumerate(numbers.tolist())]

    def _tokens(self) -> list[PatchTokens]:
        """The arrays, opened anew in a process that was spawned."""
        if self._arrays is None:
            self._arrays = _arrays(FeatureCache.open(self.path, self._allow_partial), self.kind, self._layers)
        return self._arrays

    def _read(self, number: int, array: PatchTokens, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        if not isinstance(array, TokenArray) or layout.chunk_per_row(array.spec):
            return array.rows(rows, threads=1)
        per_shard = array.stored_pass.rows_per_shard
        shard, place = np.divmod(rows, per_shard)
        out = np.empty((len(rows), *array.spec.shape), dtype=array.dtype)
        for k in np.unique(shard).tolist():
            at = shard == k
            out[at] = self._shard(number, array, k)[place[at]]
        return out

    def _shard(self, number: int, array: TokenArray, shard: int) -> npt.NDArray[Any]:
        """A shard of vectors, kept until others need the room."""
        key = number, shard
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        per_shard = array.stored_pass.rows_per_shard
        block = array.rows(np.arange(shard * per_shard, (shard + 1) * per_shard), threads=1)
        self._kept[key] = block
        while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > self.keep:
            self._kept.popitem(last=False)
        return block

    def __getstate__(self) -> dict[str, Any]:
        """For a spawned worker: where the store lies, and not what was read of it."""
        return {**self.__dict__, "_arrays": None, "_kept": OrderedDict()}


def _arrays(cache: FeatureCache, kind: str, layers: int | tuple[int, ...] | None) -> list[PatchTokens]:
    if kind != "patch":
        return list(vectors(cache, kind, layers))
    asked = (-1,) if layers is None else (layers,) if isinstance(layers, int) else tuple(layers)
    if not asked:
        raise InputError("layers must name at least one layer. Got ().")
    found = [cache.layer(n).patch_tokens for n in sorted({cache.layer_number(n) for n in asked})]
    grids = {array.spec.shape[:-1] for array in found}
    if len(grids) > 1:
        raise InputError(
            f"the layers have patches in grids of {sorted(grids)}, which can not be set side by side; ask for one."
        )
    return found

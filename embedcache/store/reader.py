"""Opening a store for reading: its samples, its token arrays, its features; each byte is checked.

`FeatureCache` is what users hold. numpy only: nothing here imports zarr, torch or a table library until asked.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedcache.errors import IncompleteStoreError, InputError, StoreError, suggest
from embedcache.store import commits as commit_codec
from embedcache.store import layout
from embedcache.store.ahead import ReadAhead
from embedcache.store.features import Features, assemble
from embedcache.store.fingerprint import canonical, sha256
from embedcache.store.index import StoredIndex, check_sizes, committed_shards, open_root, read_commit, read_index
from embedcache.store.labels import LABELS, read_labels
from embedcache.store.objects import Objects
from embedcache.store.root import Root
from embedcache.store.tokens import Layer, TokenArray, missing
from embedcache.store.units import PoolBy
from embedcache.types import ArraySpec, Commit, Labels, Pass, Recipe, StringArray, Unit

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class StoredSamples:
    """The samples of a store, by column."""

    id: StringArray
    patient_id: StringArray
    slices: npt.NDArray[np.int64]
    """Slices that each sample has."""
    ok_slices: npt.NDArray[np.int64]
    """Of these, how many can be read as features."""
    superseded: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.id)


class FeatureCache:
    """A finished store, open for reading: `FeatureCache.open(path)`."""

    def __init__(self, path: Path, objects: Objects, root: Root, allow_partial: bool) -> None:
        self.path = path
        self.objects = objects
        self.root = root
        self.allow_partial = allow_partial
        self._committed: dict[str, npt.NDArray[np.bool_]] = {}

    @classmethod
    def open(cls, path: str | Path, allow_partial: bool = False) -> "FeatureCache":
        """Open the store at `path`.

        Raises StoreError if it is none or damaged, NewerFormatError, and IncompleteStoreError if no pass is finished and
        `allow_partial` is off. A pass that is not finished is not offered, unless `allow_partial` is on.
        """
        folder = layout.store_folder(path)
        if not folder.is_dir():
            raise InputError(f"there is no store at {path}; `embedcache ls CACHE` lists the stores of a cache.")
        if not (folder / layout.ROOT_DOCUMENT).exists() and (below := sorted(folder.glob("**/*.zarr/zarr.json"))):
            raise InputError(
                f"{folder.name} is no store: it has no {layout.ROOT_DOCUMENT}; name one of the {len(below)} below it, such as "
                f"{below[0].parent.relative_to(folder)}."
            )
        objects = Objects(folder, folder.with_suffix(".leases") / "scratch")
        root = open_root(objects)
        check_sizes(objects, root)
        if not allow_partial and not any(root.complete.values()):
            raise IncompleteStoreError(
                f"{folder.name} is not finished; run the same `embedcache extract` again to resume it. "
                "From Python, FeatureCache.open(STORE, allow_partial=True) reads what is there so far."
            )
        return cls(folder, objects, root, allow_partial)

    def __repr__(self) -> str:
        r = self.root
        arrays = ", ".join(sorted(spec.path for _, spec in self._readable()))
        held = f"{r.samples} samples, {r.slices} {r.unit}s"
        return f"<FeatureCache {r.dataset.name} x {r.recipe.model.source}: {held}; {arrays}>"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the recipe."""
        return self.root.fingerprint

    @property
    def recipe(self) -> Recipe:
        """All that decided the values."""
        return self.root.recipe

    @property
    def unit(self) -> Unit:
        """What a row is: `slice`, or `volume` of an encoder of whole volumes."""
        return self.root.unit

    @property
    def plan_digest(self) -> str:
        """Digest of the rows in order."""
        return self.root.plan_digest

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The passes that may be read."""
        return tuple(p for p in self.root.passes.values() if self.allow_partial or self.root.complete[p.id])

    @property
    def layers(self) -> tuple[int, ...]:
        """Stored layers, ascending."""
        return tuple(sorted({spec.layer for _, spec in self._readable() if spec.layer}))

    @property
    def dataset_folder(self) -> Path | None:
        """`<cache>/<dataset>` if the store lies in a cache's layout (labels two levels up), else None."""
        folder = self.path.resolve().parent.parent
        return folder if (folder / LABELS).is_file() else None

    @cached_property
    def index(self) -> StoredIndex:
        """The index arrays, checked."""
        return read_index(self.objects, self.root)

    @property
    def row_status(self) -> npt.NDArray[np.uint8]:
        """Shape (slice,): 0 pending, 1 ok, 2 quarantined or superseded, 3 padding. Of a partial store: by its commits."""
        if not self.allow_partial:
            return self.index.row_status
        status = np.where(self.index.plan.slice_index >= 0, layout.PENDING, layout.PADDING).astype(np.uint8)
        for p in self.passes:
            for commit in self.commits(p.id):
                part = status[slice(*commit.rows)]
                part[part == layout.PENDING] = layout.OK
        for p in self.passes:
            for commit in self.commits(p.id):
                for bad in commit.quarantined:
                    status[bad.row] = layout.QUARANTINED
        status[self.index.plan.rows_of(self.index.superseded)] = layout.QUARANTINED
        return status

    def good_rows(self, passes: Iterable[Pass]) -> npt.NDArray[np.bool_]:
        """Shape (rows,): current rows of which none of `passes` set the source aside; another pass may have, later."""
        good: npt.NDArray[np.bool_] = self.row_status == layout.OK
        aside = (self.row_status == layout.QUARANTINED) & self.index.plan.rows_of(~self.index.superseded)
        if len(self.passes) > 1 and aside.any():
            for p in set(passes):
                for commit in self.commits(p.id):
                    aside[[bad.row for bad in commit.quarantined]] = False
            good |= aside
        return good

    def layer(self, number: int) -> Layer:
        """Layer `number` (from 1; negative counts from the last one stored)."""
        return Layer(self, self.layer_number(number))

    def layer_number(self, number: int) -> int:
        """The stored layer that `number` means. Raises InputError, listing what there is."""
        layers = self.layers
        found = layers[number] if number < 0 and -number <= len(layers) else number
        if found not in layers:
            raise InputError(f"{self.path.name} holds layers {list(layers)}, not {number}; extract it with --layers.")
        return found

    def tokens(self, layer: int, kind: str) -> TokenArray:
        """The array of one layer (0 for `pooled`) and kind."""
        for p, spec in self._readable():
            if spec.layer == layer and spec.kind == kind:
                return TokenArray(self, spec, p)
        raise suggest(f"array in {self.path.name}", f"layer_{layer}/{kind}", [s.path for _, s in self._readable()])

    def commits(self, pass_name: str) -> list[Commit]:
        """The commits of a pass in shard order: from its log, or one by one if it is not finished."""
        p = self.root.passes[pass_name]
        if self.root.complete[pass_name]:
            name = layout.chunk_name(layout.log_path(pass_name), 0)
            try:
                found = commit_codec.decode_log(self.objects.get(name), name)
            except FileNotFoundError:
                raise missing(name, self.path.name) from None
        else:
            found = [read_commit(self.objects, pass_name, k) for k in committed_shards(self.objects, pass_name)]
        found = [commit for commit in found if not p.is_dropped(commit.shard)]  # a log is not rewritten for that
        shards = [commit.shard for commit in found]
        paths = {spec.path for spec in p.arrays}
        if (
            shards != sorted(set(shards))
            or any(shard >= self.root.rows // p.rows_per_shard for shard in shards[-1:])
            or any(c.rows[1] - c.rows[0] != p.rows_per_shard or c.objects.keys() != paths for c in found)
        ):
            raise StoreError(
                f"the commits of pass {pass_name} of {self.path.name} are not its own; run `embedcache verify`."
            )
        return found

    def committed(self, pass_name: str) -> npt.NDArray[np.bool_]:
        """Shape (shards,): whether each shard of a pass is committed. Of a finished pass the log is read once only.

        Raises StoreError if good rows of a finished pass lie in a shard that is not there: they would be read as zeros.
        """
        known = self._committed.get(pass_name)
        if known is not None:
            return known
        p = self.root.passes[pass_name]
        shards = np.zeros(self.root.rows // p.rows_per_shard, dtype=np.bool_)
        commits = self.commits(pass_name)
        shards[[commit.shard for commit in commits]] = True
        if self.root.complete[pass_name]:
            good = (self.index.row_status == layout.OK).reshape(-1, p.rows_per_shard).any(axis=1)
            if (good & ~shards).any():
                raise StoreError(
                    f"pass {pass_name} of {self.path.name} is complete, and shard {int((good & ~shards).argmax())} has no "
                    "commit; run `embedcache verify`."
                )
            aside = [bad.row for commit in commits for bad in commit.quarantined]
            if (self.index.row_status[aside] == layout.OK).any():
                raise StoreError(
                    f"{self.path.name} takes rows for good that pass {pass_name} set aside; run `embedcache verify`."
                )
            self._committed[pass_name] = shards
        return shards

    def contents_digest(self, pass_name: str) -> str:
        """SHA-256 over the digests of all token arrays' shards of a pass: other bytes, or other rows committed, are another."""
        parts = [[c.shard, sorted(c.objects.items())] for c in self.commits(pass_name)]
        return sha256(canonical(parts))

    def samples(self) -> StoredSamples:
        """The samples in the store's order."""
        plan = self.index.plan
        owner = plan.owner()
        ok = owner[self.row_status == layout.OK]
        return StoredSamples(
            plan.sample_id,
            plan.patient_id,
            plan.slice_count,
            np.bincount(ok, minlength=len(plan.sample_id)).astype(np.int64),
            self.index.superseded,
        )

    def labels(self, file: str | Path | None = None) -> Labels:
        """The labels beside the store (`<cache>/<dataset>/labels.parquet`), or those of `file`."""
        if file is not None:
            return read_labels(Path(file))
        if self.dataset_folder is None:
            raise InputError(f"no {LABELS} lies beside {self.path.name}; give one with --labels FILE.")
        return read_labels(self.dataset_folder)

    def features(
        self,
        kinds: str = "cls+mean",
        layers: int | tuple[int, ...] | None = None,
        pool: str | None = "mean",
        task: str | None = None,
        split: str | Iterable[str] | None = None,
        labels: Labels | None = None,
        strict_volumes: bool = False,
        pool_by: PoolBy | None = None,
        as_stored: bool = False,
        ahead: ReadAhead | None = None,
    ) -> Features:
        """`X, y, groups = cache.features(...)`: one row per sample, or per slice under `pool=None`.

        kinds: `cls`, `mean`, `cls+mean`, `pooled`. layers: one or several; of several the CLS tokens are concatenated, and
        `mean` is the last one's only (DINOv2's rule); None is the last stored. pool: `mean`, `max`, `mean+max`, `middle`,
        `middle-N` (the mean of the N middle slices), `top-K` (of each feature the mean of its K largest values) or None; `bags`
        leaves the slices in X for a pooling of one's own, and `Features.sizes` says how many each row of y has. pool_by: pool
        over all slices of a patient (`patient`), or of those of a patient's samples that share a value of a column of the labels
        (a study, a breast), rather than of a sample; samples of one unit must have one label. Instead of a column's name, a
        value per sample of the store. task: whose labels to join; None gives no y. split: `train`, `validation` or `test` as
        the labels say, or sample ids; None is every sample. strict_volumes: leave out a pooled sample of which a slice is not
        there, rather than pool the others; either way `incomplete` names it. A store of whole volumes has one row per sample,
        and nothing to pool: `mean` and None give it as it is, and the rest is refused. Superseded, padding, pending and
        quarantined rows are never returned. as_stored: leave X in float16, half the memory, if it is stored so and no slices had
        to be averaged; `embedcache.half.widened` makes float32 of some rows at a time. ahead: where they are being read
        already.
        """
        return assemble(self, kinds, layers, pool, task, split, labels, strict_volumes, pool_by, as_stored, ahead)

    def to_xarray(self, all_rows: bool = False) -> "xarray.Dataset":
        """Token arrays, ids and row status as one lazily read xarray Dataset (needs the `xarray` extra).

        Only good rows are there; `all_rows` gives padding, pending, set aside and superseded ones too.
        """
        from embedcache.store.interchange import to_xarray

        return to_xarray(self, all_rows)

    def _readable(self) -> list[tuple[Pass, ArraySpec]]:
        return [(p, spec) for p in self.passes for spec in p.arrays]

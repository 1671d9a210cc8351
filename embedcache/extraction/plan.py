"""What an extraction would do, found without opening an image where the private index knows it, and without torch."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embedcache.backbones import describe_backbone, image_recipe
from embedcache.datasets import open_dataset
from embedcache.datasets.identifiers import Key, assign_ids, load_key
from embedcache.datasets.index import IndexRow, PrivateIndex
from embedcache.datasets.selection import labels_of, select
from embedcache.errors import ImageError, InputError, SourceChangedError, StoreError
from embedcache.extraction.config import BATCH_SIZES, ExtractConfig, asked_arrays
from embedcache.images import count_slices, open_image, parse_window, stat_source
from embedcache.images.source import SourceState
from embedcache.store import layout
from embedcache.store.fingerprint import canonical, fingerprint, pass_document, sha256
from embedcache.store.layout import Root, choose_quantum, choose_rows_per_shard, make_pass
from embedcache.store.reader import StoredIndex
from embedcache.store.writer import StoreFiles, load, pending_shards
from embedcache.types import (
    ArraySpec,
    BackboneInfo,
    DatasetInfo,
    Labels,
    Pass,
    Plan,
    Recipe,
    Samples,
    StringArray,
    strings,
)

Tell = Callable[[str], None]
"""Receives one line for the user: a notice, never an identifier."""


@dataclass(frozen=True)
class StorePlan:
    """One backbone's store: what it has, and what this extraction adds."""

    info: BackboneInfo
    recipe: Recipe
    files: StoreFiles
    root: Root | None
    """None where there is no store yet."""
    index: StoredIndex | None
    missing: tuple[ArraySpec, ...]
    """Asked arrays that no pass holds yet."""
    unfinished: tuple[Pass, ...]
    """Passes that hold asked arrays and are not complete."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.root is not None and not self.missing and not self.unfinished


@dataclass(frozen=True)
class Prepared:
    """All that an extraction needs to know before it starts."""

    config: ExtractConfig
    dataset: DatasetInfo
    notices: tuple[str, ...]
    samples: Samples
    """The chosen ones, by the store's ids and in the store's order."""
    labels: Labels
    key: Key | None
    sources: PrivateIndex
    stores: tuple[StorePlan, ...]
    selection: str
    device_kind: str
    threads: int

    @property
    def folder(self) -> Path:
        """`<cache>/<dataset>`."""
        return self.config.cache_folder / self.dataset.name

    def new_pass(self, arrays: tuple[ArraySpec, ...], quantum: int) -> Pass:
        """A pass of these arrays, batched as the configuration says."""
        config = self.config
        rows = choose_rows_per_shard(arrays, quantum)
        rows = min(config.rows_per_shard or rows, rows)
        batch_size = config.batch_size or BATCH_SIZES[self.device_kind]
        return make_pass(pass_document(arrays, rows, batch_size, self.threads, self.device_kind))


@dataclass(frozen=True)
class PassForecast:
    """What one pass will hold."""

    backbone: str
    store: str
    arrays: dict[str, int]
    """Array path → bytes on disk."""
    rows_per_shard: int
    pending_shards: int
    files: int


@dataclass(frozen=True)
class PlanReport:
    """Rows and bytes that an extraction would write."""

    dataset: str
    samples: int
    slices: int
    passes: tuple[PassForecast, ...]
    notices: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Of all passes."""
        return sum(sum(p.arrays.values()) for p in self.passes)


def prepare(config: ExtractConfig, tell: Tell) -> Prepared:
    """Read the dataset's list, describe the backbones, and compare with the stores that are there.

    Writes nothing but, where a source was re-dated, its new date into the private index. Raises InputError, StoreError,
    and SourceChangedError naming samples whose content is not what the cache was made from.
    """
    if not config.backbones:
        raise InputError("no backbone was named; give at least one with --backbone.")
    if any(place.is_file() for place in (config.cache_folder, *config.cache_folder.parents)):
        raise InputError(f"the cache {config.cache} is a file, or lies below one; name a folder with --cache.")
    opened = open_dataset(config.dataset, config.root, config.options)
    everything = opened.samples()
    chosen = select(
        everything, opened.columns(), limit=config.limit, where=config.where, sample_list=config.sample_list
    )
    if not len(chosen):
        raise InputError(f"no sample of {opened.info.name} is left by --limit, --where or --sample-list.")
    picked = everything.take(chosen)
    keep = config.ids == "keep"
    key = None if opened.info.public_ids or keep else load_key(create=True)
    samples, labels, _ = assign_ids(opened.info, picked, labels_of(opened.labels(), picked), keep, key)
    if keep and not opened.info.public_ids:
        tell("ids are kept as they are: whoever receives this cache can read them")
    window = parse_window(config.window)
    sources = PrivateIndex.open(config.cache_folder / opened.info.name)
    check_sources(samples, sources, tell)
    device_kind = choose_device(config.device).partition(":")[0]
    threads = config.threads or len(os.sched_getaffinity(0))
    stores = []
    for name in config.backbones:
        info = describe_backbone(
            name, revision=config.revision, compute_dtype=config.compute_dtype, attention=config.attention
        )
        recipe = Recipe(image_recipe(info, window, config.fit, config.input_size), info.model)
        stores.append(
            plan_store(config, opened.info, samples, info, recipe, device_kind, id_scheme(opened.info, config), key)
        )
    if len({s.files.path for s in stores}) < len(stores):
        raise InputError("one backbone is named twice; name each once.")
    return Prepared(
        config=config,
        dataset=opened.info,
        notices=tuple(opened.notices),
        samples=samples,
        labels=labels,
        key=key,
        sources=sources,
        stores=tuple(stores),
        selection=sha256(canonical([config.limit, config.where, config.sample_list])),
        device_kind=device_kind,
        threads=threads,
    )


def plan_store(
    config: ExtractConfig,
    dataset: DatasetInfo,
    samples: Samples,
    info: BackboneInfo,
    recipe: Recipe,
    device_kind: str,
    scheme: str,
    key: Key | None,
) -> StorePlan:
    """Compare what is asked of one backbone with its store."""
    name = f"{fingerprint(recipe)[:12]}.zarr"
    files = StoreFiles(config.cache_folder / dataset.name / info.store_name / name)
    asked = asked_arrays(config, info, recipe.image.size)
    if not (files.path / layout.ROOT_DOCUMENT).exists():
        return StorePlan(info, recipe, files, None, None, asked, ())
    root, index = load(files)
    if root.fingerprint != fingerprint(recipe):
        raise StoreError(f"{name} is named by another recipe than it holds; run `embedcache verify`.")
    check_identifiers(f"{info.store_name}/{name}", root, scheme, key)
    unknown = sorted(set(samples.id.tolist()) - set(index.plan.sample_id.tolist()))
    if unknown:
        raise InputError(
            f"{len(unknown)} of {len(samples)} samples are not in store {info.store_name}/{name} (the first: {unknown[0]}); "
            "a store's rows are frozen until `extend` is built: choose a subset of it, or another --cache."
        )
    held = {a.path: (p, a) for p in root.passes.values() for a in p.arrays}
    for spec in asked:
        if spec.path in held and held[spec.path][1].dtype != spec.dtype:
            raise InputError(
                f"store {info.store_name}/{name} holds {spec.path} as {held[spec.path][1].dtype}, and an array has one dtype; "
                f"ask for that, or use another --cache for {spec.dtype}."
            )
    missing = tuple(spec for spec in asked if spec.path not in held)
    used = {held[spec.path][0].id for spec in asked if spec.path in held}
    unfinished = tuple(p for p in root.passes.values() if p.id in used and not root.complete[p.id])
    for p in unfinished:
        if p.device_kind != device_kind and not config.mixed:
            raise InputError(
                f"pass {p.id} of {info.store_name}/{name} was begun on {p.device_kind} and this run is on {device_kind}; "
                f"resume it with --device {p.device_kind}, or allow both with --mixed."
            )
    return StorePlan(info, recipe, files, root, index, missing, unfinished)


def id_scheme(dataset: DatasetInfo, config: ExtractConfig) -> str:
    """Whose ids the samples have, as FORMAT.md names it."""
    return "public" if dataset.public_ids else "kept" if config.ids == "keep" else "pseudonym"


def check_identifiers(name: str, root: Root, scheme: str, key: Key | None) -> None:
    """Raise InputError if the store's ids are of another scheme, or were made under another key."""
    if root.id_scheme != scheme:
        switch = {"kept": "--ids keep", "pseudonym": "--ids pseudonym"}.get(root.id_scheme, "its own dataset name")
        raise InputError(
            f"store {name} has {root.id_scheme} ids and this run has {scheme} ones; use {switch}, or another --cache."
        )
    if key is not None and root.key_id != key.id:
        raise InputError(
            f"the pseudonyms of store {name} were made under key {root.key_id}, and the key here is {key.id}; "
            "bring that key with `embedcache ids key import`, or use another --cache."
        )


def new_plan(samples: Samples, sources: PrivateIndex, tell: Tell) -> tuple[Plan, list[IndexRow]]:
    """The rows of a new store, in the samples' order, and what the index did not know of their sources yet."""
    counts, learned = slice_counts(samples, sources)
    if any(row.slices == 0 for row in learned):
        tell("some sources can not be opened; they get one row each and will be set aside")
    counts = np.maximum(counts, 1)
    start = np.cumsum(counts) - counts
    total = int(counts.sum())
    quantum = choose_quantum(total)
    slice_index = np.full(-(-total // quantum) * quantum, -1, dtype=np.int32)
    slice_index[:total] = np.arange(total) - np.repeat(start, counts)
    return Plan(samples.id, samples.patient_id, start, counts, slice_index, quantum), learned


def slice_counts(
    samples: Samples, sources: PrivateIndex
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], list[IndexRow]]:
    """Slices of each sample (0 where it can not be opened): from the private index, else from the files' headers."""
    counts = np.zeros(len(samples), dtype=np.int64)
    learned = []
    for i in range(len(samples)):
        sample = samples[i]
        known = sources.get(sample.id)
        if known is not None and known.slices > 0:
            counts[i] = known.slices
            continue
        try:
            state = stat_source(sample.path)
            counts[i] = count_slices(sample.path)
        except ImageError:
            state = SourceState(0, 0)
        learned.append(IndexRow(sample.id, sample.path, state.size, state.mtime_ns, "", int(counts[i])))
    return counts, learned


def check_sources(samples: Samples, sources: PrivateIndex, tell: Tell) -> None:
    """Raise SourceChangedError if a source's content is not what the index recorded; a new date alone changes nothing."""
    changed, redated = [], []
    for i in sources.suspects(samples):
        sample = samples[int(i)]
        known = sources.get(sample.id)
        assert known is not None
        if not known.digest:
            continue  # nothing of it was committed yet, so there is nothing to contradict
        try:
            image = open_image(sample.path)
        except ImageError:
            changed.append(f"{sample.id} ({sample.where}: it can no longer be opened)")
            continue
        if image.digest == known.digest:
            redated.append(replace(known, path=sample.path, size=image.state.size, mtime_ns=image.state.mtime_ns))
        else:
            changed.append(f"{sample.id} ({sample.where})")
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise SourceChangedError(
            f"the content of {len(changed)} sources changed since they were extracted: {', '.join(changed[:3])}{more}. "
            "Nothing was written; restore them, or extract into another --cache."
        )
    if redated:
        tell(f"{len(redated)} sources have a new date and the same content")
        sources.put(redated)
        sources.save()


def choose_device(device: str) -> str:
    """`auto` is `cuda` where an NVIDIA driver shows a device, found without importing torch; else as asked."""
    if device == "auto":
        return "cuda" if any(Path("/proc/driver/nvidia/gpus").glob("*")) else "cpu"
    return device


def forecast(prepared: Prepared, tell: Tell) -> PlanReport:
    """Rows and bytes of what is missing."""
    plan: Plan | None = None
    passes = []
    for store in prepared.stores:
        if store.index is None and plan is None:
            plan, _ = new_plan(prepared.samples, prepared.sources, tell)
        of_store = store.index.plan if store.index is not None else plan
        assert of_store is not None
        added = [prepared.new_pass(store.missing, of_store.quantum)] if store.missing else []
        for p in [*store.unfinished, *added]:
            shards = (
                pending_shards(store.files.objects, of_store, p)
                if store.root
                else list(of_store.shards(p.rows_per_shard))
            )
            sizes = {a.path: len(shards) * p.rows_per_shard * a.row_bytes for a in p.arrays}
            where = str(store.files.path.relative_to(prepared.config.cache_folder))
            files = len(shards) * (len(p.arrays) + 1)
            passes.append(PassForecast(store.info.name, where, sizes, p.rows_per_shard, len(shards), files))
    slices = int(plan.slice_count.sum()) if plan else sum(s.root.slices for s in prepared.stores[:1] if s.root)
    return PlanReport(prepared.dataset.name, len(prepared.samples), slices, tuple(passes), prepared.notices)


def paths_of(plan: Plan, samples: Samples, sources: PrivateIndex) -> StringArray:
    """The source of each sample of a store's plan: of the chosen samples as the dataset says, of others as last seen."""
    given = dict(zip(samples.id.tolist(), samples.path.tolist(), strict=True))
    found = []
    for sample in plan.sample_id.tolist():
        if sample not in given:
            known = sources.get(sample)
            given[sample] = known.path if known else ""
        found.append(given[sample])
    return strings(found)

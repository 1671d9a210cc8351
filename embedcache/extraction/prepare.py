"""What an extraction would do, found without opening an image where the private index knows it, and without torch."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from embedcache.backbones import describe_backbone, image_recipe
from embedcache.backbones.paper import what_paper_changes, window_in
from embedcache.datasets import open_dataset
from embedcache.datasets.identifiers import Key, assign_ids, load_key
from embedcache.datasets.index import IndexRow, PrivateIndex
from embedcache.datasets.selection import labels_of, select
from embedcache.errors import InputError, StoreError
from embedcache.extraction.config import BATCH_SIZES, CPU_ROWS_PER_SHARD, ExtractConfig, asked_arrays, tokens_missing
from embedcache.extraction.rows import first_plan, longer_plan
from embedcache.extraction.sources import Tell, changed_sources, slice_counts
from embedcache.images import parse_window
from embedcache.store import layout
from embedcache.store.fingerprint import canonical, fingerprint, pass_document, sha256
from embedcache.store.index import StoredIndex
from embedcache.store.layout import choose_rows_per_shard
from embedcache.store.passes import make_pass
from embedcache.store.root import Root
from embedcache.store.texts import locate
from embedcache.store.writer import StoreFiles, load
from embedcache.types import (
    ArraySpec,
    BackboneInfo,
    DatasetInfo,
    IntArray,
    Labels,
    Pass,
    Plan,
    Recipe,
    Samples,
    StringArray,
    Unit,
    strings,
)

KEPT_IDS = "ids are kept as they are: whoever receives this cache can read them"


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
    """Passes to be filled: those that hold asked arrays and are not complete, and every one that was complete until rows
    were added to the store, or will be when `new` are."""
    new: IntArray
    """Positions among the chosen samples of those that the store has no current rows of."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.root is not None and not self.missing and not self.unfinished and not len(self.new)

    @property
    def name(self) -> str:
        """How messages name it."""
        return f"store {self.info.store_name}/{self.files.path.name}"

    @property
    def view(self) -> int:
        """Which view of the slices it holds."""
        return self.recipe.image.view


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
    changed: Mapping[str, IndexRow]
    """Sample id → what its source is now, where its content is not what was extracted."""
    stores: tuple[StorePlan, ...]
    selection: str
    device_kind: str
    threads: int
    refilling: bool = False
    """Only what was complete and is not any more is filled, as after a repair; the stores neither grow nor get arrays."""

    @property
    def folder(self) -> Path:
        """`<cache>/<dataset>`."""
        return self.config.cache_folder / self.dataset.name

    def new_pass(self, arrays: tuple[ArraySpec, ...], quantum: int, unit: Unit) -> Pass:
        """A pass of these arrays, batched as the configuration says."""
        config = self.config
        largest = choose_rows_per_shard(arrays, quantum)
        usual = CPU_ROWS_PER_SHARD[unit] if self.device_kind == "cpu" else largest
        rows = min(config.rows_per_shard or usual, largest)
        batch_size = config.batch_size or BATCH_SIZES[unit][self.device_kind]
        return make_pass(pass_document(arrays, rows, batch_size, self.threads, self.device_kind))


def prepare(config: ExtractConfig, tell: Tell) -> Prepared:
    """Read the dataset's list, describe the backbones, and compare with the stores that are there.

    Writes nothing but, where a source was re-dated, its new date into the private index. Raises InputError, StoreError.
    """
    if not config.backbones:
        raise InputError("no backbone was named; give at least one with --backbone.")
    if any(place.is_file() for place in (config.cache_folder, *config.cache_folder.parents)):
        raise InputError(f"the cache {config.cache} is a file, or lies below one; name a folder with --cache.")
    dataset, notices, samples, labels, key = choose(config, tell)
    window_name = window_in(config.preset, config.dataset, config.window)
    window = parse_window(window_name)
    sources = PrivateIndex.open(config.cache_folder / dataset.name)
    prepared = Prepared(
        config=config,
        dataset=dataset,
        notices=notices,
        samples=samples,
        labels=labels,
        key=key,
        sources=sources,
        changed=changed_sources(samples, sources, config, tell),
        stores=(),
        selection=sha256(canonical([config.limit, config.where, config.sample_list])),
        device_kind=choose_device(config.device).partition(":")[0],
        threads=config.threads or len(os.sched_getaffinity(0)),
    )
    if config.tf32 and prepared.device_kind == "cpu" and not config.mixed:
        raise InputError(
            "TF32 is a format of CUDA devices, and this run is on the cpu; leave --tf32 out, or allow it with --mixed."
        )
    stores = []
    for name in config.backbones:
        info = describe_backbone(
            name,
            revision=config.revision,
            weights=config.weights,
            compute_dtype=config.compute_dtype,
            attention=config.attention,
            tf32=config.tf32,
            compiled=config.compiled,
            preset=config.preset,
        )
        if absent := tokens_missing(config, info):
            tell(absent)
        if config.preset == "paper":
            for line in what_paper_changes(info, window_name, config.window):
                tell(line)
        for view in config.view_numbers:
            image = image_recipe(
                info,
                window,
                config.fit,
                config.input_size,
                config.plane,
                config.time,
                view,
                config.augmentation,
                config.volume_options,
            )
            if image.volume is not None:  # an encoder of volumes must know whether it sees all of one, or slides
                info = replace(info, size=image.size, volume=image.volume)
            stores.append(compare(prepared, info, Recipe(image, info.model)))
    if len({s.files.path for s in stores}) < len(stores):
        raise InputError("one backbone is named twice; name each once.")
    tell_unknown(samples, sources, stores, tell)
    return replace(prepared, stores=tuple(stores))


def tell_unknown(samples: Samples, sources: PrivateIndex, stores: list["StorePlan"], tell: Tell) -> None:
    """Say that of some stored samples this machine never saw the files: whether those changed since, nobody can know."""
    unknown = samples.id[~sources.lookup(samples.id, ())["found"]]
    for store in stores:
        if store.index is None or store.root is None or not any(store.root.complete.values()):
            continue
        done = store.index.plan.sample_id[~store.index.superseded]
        if count := int((locate(unknown, done) >= 0).sum()):
            tell(
                f"{store.name}: {count} samples were extracted elsewhere, or before the cache was moved; a change of their "
                "files since then can not be seen here"
            )


def choose(config: ExtractConfig, tell: Tell) -> tuple[DatasetInfo, tuple[str, ...], Samples, Labels, Key | None]:
    """The dataset, its notices, the chosen samples and their labels, under the ids that a store may hold, and their key."""
    info, notices, picked, natural = read_dataset(config)
    keep = config.ids == "keep"
    key = None if info.public_ids or keep else load_key(create=True)
    samples, labels, _ = assign_ids(info, picked, natural, keep, key)
    if keep and not info.public_ids:
        tell(KEPT_IDS)
    return info, notices, samples, labels, key


def read_dataset(config: ExtractConfig) -> tuple[DatasetInfo, tuple[str, ...], Samples, Labels]:
    """The dataset, its notices, the chosen samples and their labels, by natural ids; the whole of its table is let go here."""
    opened = open_dataset(config.dataset, config.root, config.options)
    everything = opened.samples()
    chosen = select(
        everything, opened.columns(), limit=config.limit, where=config.where, sample_list=config.sample_list
    )
    notices = tuple(opened.notices)
    if len(chosen) == len(everything):
        return opened.info, notices, everything, opened.labels()
    picked = everything.take(chosen)
    return opened.info, notices, picked, labels_of(opened.labels(), picked)


def compare(prepared: Prepared, info: BackboneInfo, recipe: Recipe) -> StorePlan:
    """Compare what is asked of one backbone with its store, as it is now."""
    config = prepared.config
    files = StoreFiles(prepared.folder / info.store_name / f"{fingerprint(recipe)[:12]}.zarr")
    asked = asked_arrays(config, info, recipe.image.shape)
    name = f"{info.store_name}/{files.path.name}"
    if not (files.path / layout.ROOT_DOCUMENT).exists():
        return StorePlan(info, recipe, files, None, None, asked, (), np.arange(len(prepared.samples)))
    root, index = load(files)
    if root.fingerprint != fingerprint(recipe):
        raise StoreError(f"{name} is named by another recipe than it holds; run `embedcache verify`.")
    if root.dataset.name != prepared.dataset.name:
        raise InputError(
            f"store {name} holds dataset {root.dataset.name!r}: its folder was copied or renamed; use that --name, or "
            "another --cache."
        )
    check_identifiers(name, root, id_scheme(prepared.dataset, config), prepared.key)
    if prepared.refilling:
        reopened = tuple(root.passes[name] for name in sorted(root.reopened))
        return StorePlan(info, recipe, files, root, index, (), reopened, np.zeros(0, dtype=np.int64))
    current = locate(prepared.samples.id, index.plan.sample_id[~index.superseded]) >= 0
    if prepared.changed:
        current &= ~np.isin(prepared.samples.id, strings(list(prepared.changed)))
    new = np.flatnonzero(~current)
    held = {a.path: (p, a) for p in root.passes.values() for a in p.arrays}
    for spec in asked:
        if spec.path in held and held[spec.path][1].dtype != spec.dtype:
            raise InputError(
                f"store {name} holds {spec.path} as {held[spec.path][1].dtype}, and an array has one dtype; "
                f"ask for that, or use another --cache for {spec.dtype}."
            )
    missing = tuple(spec for spec in asked if spec.path not in held)
    used = {held[spec.path][0].id for spec in asked if spec.path in held}
    # rows that are added reopen every pass: else those that nobody asks for could not be read any more
    unfinished = tuple(
        p
        for p in root.passes.values()
        if len(new) or (not root.complete[p.id] and (p.id in used or p.id in root.reopened))
    )
    for p in unfinished:
        check_device(prepared, f"store {name}", p)
    return StorePlan(info, recipe, files, root, index, missing, unfinished, new)


def check_device(prepared: Prepared, name: str, p: Pass) -> None:
    """Raise InputError if a pass was begun on another kind of device, unless both are allowed."""
    if p.device_kind != prepared.device_kind and not prepared.config.mixed:
        raise InputError(
            f"pass {p.id} of {name} was begun on {p.device_kind} and this run is on {prepared.device_kind}; "
            f"go on with --device {p.device_kind}, or allow both with --mixed."
        )


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


@dataclass
class RowPlanner:
    """The plans that stores will have. Stores that lack the same samples share one, and with it the decoding."""

    prepared: Prepared
    tell: Tell
    made: dict[tuple[str, bytes, Unit], Plan] = field(default_factory=dict)
    learned: list[IndexRow] = field(default_factory=list)
    """What the private index does not know yet of the sources."""

    def plan(self, store: StorePlan) -> Plan:
        """The plan of a store with its new rows. Opens the headers of new samples that the private index does not know."""
        if store.index is not None and not len(store.new):
            return store.index.plan
        unit = store.recipe.image.unit
        key = (store.root.plan_digest if store.root else "", store.new.tobytes(), unit)
        if key not in self.made:
            new = self.prepared.samples.take(store.new)
            counts, learned = slice_counts(new, self.prepared.sources, self.prepared.changed, self.prepared.config)
            if unreadable := int((counts == 0).sum()):
                what = "source can not be opened; it gets one row"
                many = "sources can not be opened; they get one row each"
                self.tell(f"{unreadable} {what if unreadable == 1 else many} and will be set aside")
            self.learned += learned
            if unit == "volume":  # all slices are one row
                counts = np.ones_like(counts)
            self.made[key] = (
                first_plan(new, counts) if store.index is None else longer_plan(store.index.plan, new, counts)
            )
        return self.made[key]


def choose_device(device: str) -> str:
    """`auto` is `cuda` where an NVIDIA driver shows a device, found without importing torch; else as asked."""
    if device == "auto":
        return "cuda" if any(Path("/proc/driver/nvidia/gpus").glob("*")) else "cpu"
    return device


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

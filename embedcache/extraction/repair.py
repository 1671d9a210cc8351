"""`embedcache.repair`: put a damaged store back, from the rest of it, from the dataset, and by computing its tokens again."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from embedcache.backbones import asked_attention, describe_backbone, image_recipe, recorded_name
from embedcache.backbones.paper import preset_of
from embedcache.backbones.volume_recipe import options_of
from embedcache.datasets import open_dataset
from embedcache.datasets.identifiers import assign_ids, load_key
from embedcache.datasets.index import PrivateIndex
from embedcache.errors import ImageError, InputError, StoreError
from embedcache.extraction.config import ExtractConfig
from embedcache.extraction.job import refill
from embedcache.extraction.like import config_like
from embedcache.extraction.prepare import check_identifiers, choose_device, id_scheme
from embedcache.extraction.progress import Listener
from embedcache.extraction.sync import sync_labels
from embedcache.extraction.versions import family_versions, minor, software_versions
from embedcache.images import open_image
from embedcache.images.options import parse_plane
from embedcache.store import layout
from embedcache.store.examine import examine, known_root
from embedcache.store.fingerprint import recipe_document
from embedcache.store.index import read_commit
from embedcache.store.labels import DIGEST, LABELS, damage_of_labels, rewrite_digest
from embedcache.store.leases import refuse_workers
from embedcache.store.locks import exclusive
from embedcache.store.lost_rows import LOST
from embedcache.store.rebuild import KnownIds
from embedcache.store.repair import put_back
from embedcache.store.root import Root
from embedcache.store.survey import Findings, Left, Mended
from embedcache.store.verify import Damage, verify_labels, verify_store
from embedcache.store.writer import StoreFiles, log_name, reopen
from embedcache.types import Pass, Recipe, Samples, Unit

SOURCES = "the sources and the backbone: give --dataset, --root and --backbone"


@dataclass(frozen=True)
class RemadeShard:
    """A shard whose tokens were computed again."""

    pass_id: str
    shard: int
    rows: tuple[int, int]
    reason: str
    identical: bool | None = None
    """Whether its objects have the SHA-256s that its commit named; None where that is not known."""


@dataclass(frozen=True)
class RepairReport:
    """What became of a damaged store."""

    store: str
    mended: tuple[Mended, ...]
    remade: tuple[RemadeShard, ...]
    left: tuple[Left, ...]
    """What stays damaged, and what it would need."""
    damage: tuple[Damage, ...]
    """What `verify` finds afterwards."""
    dry_run: bool

    @property
    def exit_code(self) -> int:
        """0 where the store and its labels are intact afterwards, or would be."""
        return 1 if self.left or self.damage else 0


def repair_store(
    path: str | Path, config: ExtractConfig | None = None, listener: Listener | None = None, dry_run: bool = False
) -> RepairReport:
    """Mend the store at `path` and the label table beside it.

    What follows from the rest of the store needs nothing else. `config` says where the sources are: its dataset, root and
    options give ids and labels, its one backbone the tokens; `mixed`, `workers` and `decode_timeout` count, all else is as
    the store records it. A shard is only given up where each of its current samples can be read as it was.
    dry_run: nothing is written. Raises StoreError if this is no store, StoreBusyError, and InputError, before anything is
    changed, where `config` means another dataset, another key or another recipe.
    """
    listener = listener or Listener()
    files = StoreFiles(layout.store_folder(path))
    if not files.path.is_dir():
        raise InputError(f"there is no store at {path}; `embedcache ls CACHE` lists the stores of a cache.")
    source = None if config is None else open_source(files, config)
    with _changing(files, dry_run) as guarded:
        found = examine(guarded, source.ids if source else None)
        remade, left = choose_shards(files, found, source)
        if not dry_run:
            put_back(guarded, found)
            if remade and found.root is not None:
                reopen(guarded, found.root, _by_pass(remade))
    mended, unlabelled = mend_labels(files, source, listener, dry_run)
    if dry_run:
        return RepairReport(
            str(path), (*found.mended, *mended), remade, (*without_logs(found, remade), *left, *unlabelled), (), True
        )
    if source is not None and source.config.backbones and found.root is not None and (remade or found.root.reopened):
        refill(source.like(files.path), files.path, listener)
        remade = tuple(replace(shard, identical=_identical(files, shard, found)) for shard in remade)
    damage = (*verify_store(files.path).damage, *(verify_labels(_dataset_folder(files))))
    return RepairReport(
        str(path), (*found.mended, *mended), remade, (*without_logs(found, remade), *left, *unlabelled), damage, False
    )


@contextlib.contextmanager
def _changing(files: StoreFiles, dry_run: bool) -> Iterator[StoreFiles]:
    """The store under its lock, with nobody at work on it; or as it is, where nothing will be written."""
    if dry_run:
        yield files
        return
    with exclusive(files.leases, files.path.name) as lock:
        refuse_workers(files.leases, files.path.name)
        yield replace(files, fence=lock.check)


# --- the sources ----------------------------------------------------------------------------------


@dataclass
class Source:
    """The dataset of a store, on this machine."""

    config: ExtractConfig
    samples: Samples
    """By the store's ids."""
    index: PrivateIndex
    unit: Unit
    """Of the store: of a whole volume it does not matter how many slices there are."""
    seen: dict[str, str] = field(default_factory=dict)
    """Sample → why it can not be read as it was, "" where it can."""

    @property
    def ids(self) -> KnownIds:
        """Of all samples and their patients."""
        return KnownIds(self.samples.id, self.samples.patient_id)

    @cached_property
    def paths(self) -> dict[str, str]:
        """Sample → its file or folder."""
        return dict(zip(self.samples.id.tolist(), self.samples.path.tolist(), strict=True))

    def like(self, store: Path) -> ExtractConfig:
        """The extraction that the store records, of these sources."""
        c = self.config
        return config_like(
            store, c.dataset, c.root, c.options, backbones=c.backbones, mixed=c.mixed, workers=c.workers,
            decode_timeout=c.decode_timeout, weights=c.weights, like=None,
        )  # fmt: skip

    def trouble(self, sample: str, slices: int) -> str:
        """Why a sample can not be read as it was extracted, "" where it can. Its file is read whole, once."""
        if sample not in self.seen:
            self.seen[sample] = self._trouble(sample, slices)
        return self.seen[sample]

    def _trouble(self, sample: str, slices: int) -> str:
        known = self.index.get(sample)
        path = self.paths.get(sample) or (known.path if known else "")
        if not path:
            return "is not in the dataset"
        try:
            image = open_image(path, self.config.image_options)
        except ImageError:
            return "can not be opened"
        if known is not None and known.digest and known.digest != image.digest:
            return "has another content now"
        return "" if self.unit == "volume" or image.n_slices == slices else "has another number of slices now"


def open_source(files: StoreFiles, config: ExtractConfig) -> Source:
    """The dataset that `config` names, held against what the store says of its own. Raises InputError where they differ."""
    root = known_root(files.objects)
    name = f"store {files.path.parent.name}/{files.path.name}"
    options = config.options
    if root.id_scheme != "public" and options.name is None:
        options = replace(options, name=root.dataset.name)
    image, model = root.recipe.image, root.recipe.model
    # one without weights is nowhere to be looked for, so nobody has to name it
    backbones = config.backbones or (() if model.weights_digest else (recorded_name(model),))
    config = replace(
        config,
        backbones=backbones,
        options=options,
        ids="keep" if root.id_scheme == "kept" else "pseudonym",
        cache=str(_cache(files)),
        plane=parse_plane(image.plane) if image.volume is None else "stored",
        time=image.time,
    )
    opened = open_dataset(config.dataset, config.root, options)
    if opened.info.name != root.dataset.name:
        raise InputError(f"{name} is of dataset {root.dataset.name}, and this is {opened.info.name}.")
    key = None if opened.info.public_ids or config.ids == "keep" else load_key(create=False)
    check_identifiers(name, root, id_scheme(opened.info, config), key)
    samples, _, _ = assign_ids(opened.info, opened.samples(), opened.labels(), config.ids == "keep", key)
    if config.backbones:
        check_recipe(name, root, config.backbones[0], config.weights)
    return Source(config, samples, PrivateIndex.open(_dataset_folder(files)), root.unit)


def check_recipe(name: str, root: Root, backbone: str, weights: str | None = None) -> None:
    """Raise InputError, naming the fields that differ, unless `backbone` makes the tokens that the store holds."""
    image, model = root.recipe.image, root.recipe.model
    info = describe_backbone(
        backbone,
        revision=model.revision or None,
        weights=weights,
        compute_dtype=model.compute_dtype,
        attention=asked_attention(model),
        tf32=model.tf32,
        compiled=model.compiled,
        preset=preset_of(image),
    )
    size = None if image.fit == "processor" else image.size
    drawn = (image.view, image.augmentation, options_of(image))
    asked = recipe_document(
        Recipe(image_recipe(info, image.window, image.fit, size, image.plane, image.time, *drawn), info.model)
    )
    recorded = recipe_document(root.recipe)
    differ = [
        f"{part}.{key}"
        for part in ("image", "model")
        for key in sorted({*recorded[part], *asked[part]})
        if recorded[part].get(key) != asked[part].get(key)
    ]
    if differ:
        raise InputError(
            f"{name} was made by another recipe: {', '.join(differ)} differ. Give the backbone that it names, "
            f"{recorded_name(model)}{f' at revision {model.revision}' if model.revision else ''}."
        )


# --- shards ---------------------------------------------------------------------------------------


def choose_shards(
    files: StoreFiles, found: Findings, source: Source | None
) -> tuple[tuple[RemadeShard, ...], tuple[Left, ...]]:
    """Which of the damaged shards can be made again, and why the others can not."""
    remade: list[RemadeShard] = []
    left: list[Left] = []
    for name, shards in found.shards.items():
        assert found.root is not None
        p = found.root.passes[name]
        hindered = why_no_pass(files, found, source, p)
        why = {shard: hindered or why_no_shard(found, source, p, shard) for shard in shards}
        # a pass can only be finished again where every commit is there
        lost = [shard for shard in shards if why[shard] and shard not in found.commits[name]]
        for shard, reason in shards.items():
            needs = why[shard] or (f"shard {lost[0]}, whose commit is lost, to be made first" if lost else "")
            rows = (shard * p.rows_per_shard, (shard + 1) * p.rows_per_shard)
            if needs:
                what = layout.chunk_name(layout.commits_path(name), shard)
                left.append(Left(what, f"shard {shard}, rows {rows[0]} to {rows[1] - 1}: {reason}; it needs {needs}"))
            else:
                remade.append(RemadeShard(name, shard, rows, reason))
    return tuple(remade), tuple(left)


def without_logs(found: Findings, remade: tuple[RemadeShard, ...]) -> tuple[Left, ...]:
    """What stays damaged, less the logs of passes that are finished anew."""
    logs = {log_name(shard.pass_id) for shard in remade}
    return tuple(left for left in found.left if left.object not in logs)


def why_no_pass(files: StoreFiles, found: Findings, source: Source | None, p: Pass) -> str:
    """What the shards of a pass would need to be made again, "" if nothing."""
    if source is None:
        return SOURCES
    if not source.config.backbones:
        return "the backbone: give --backbone"
    if found.index is None:
        return "an index that holds; see there"
    assert found.root is not None
    place = files.path.resolve()
    if place.name != f"{found.root.fingerprint[:12]}.zarr" or place.parents[1].name != found.root.dataset.name:
        return f"its place in a cache, {found.root.dataset.name}/<backbone>/{found.root.fingerprint[:12]}.zarr"
    if source.config.mixed:
        return ""
    if p.device_kind != choose_device("auto") and p.device_kind != "cpu":
        return f"a {p.device_kind} device, as it was made on, or --mixed"
    then = next((commit.versions for commit in found.commits[p.id].values()), {})
    now = software_versions() | family_versions(found.root.recipe.model.family)
    differ = [n for n in now if n in then and n != "embedcache" and minor(then[n]) != minor(now[n])]
    told = ", ".join(f"{n} {then[n]} (here is {now[n]})" for n in differ)
    return f"the versions that it was made with, {told}, or --mixed" if differ else ""


def why_no_shard(found: Findings, source: Source | None, p: Pass, shard: int) -> str:
    """What a shard would need, "" if each of its current samples that was read once can be read as it was."""
    assert source is not None
    assert found.index is not None
    index, plan = found.index, found.index.plan
    start, stop = shard * p.rows_per_shard, (shard + 1) * p.rows_per_shard
    aside = index.row_status[start:stop] == layout.QUARANTINED
    commit = found.commits[p.id].get(shard)
    if commit is not None:
        aside[:] = False
        aside[[bad.row - start for bad in commit.quarantined]] = True
    first = int(plan.slice_start.searchsorted(start, side="right")) - 1
    troubles: dict[str, list[str]] = {}
    for i in range(max(first, 0), int(plan.slice_start.searchsorted(stop))):
        begin, end = int(plan.slice_start[i]), int(plan.slice_start[i] + plan.slice_count[i])
        inside = slice(max(begin, start) - start, min(end, stop) - start)
        if index.superseded[i] or inside.start >= inside.stop or aside[inside].all():
            continue
        name = str(plan.sample_id[i])
        if trouble := source.trouble(name, int(plan.slice_count[i])):
            troubles.setdefault(trouble, []).append(name)
    told = [
        f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}, which {trouble}"
        for trouble, names in troubles.items()
    ]
    return f"all of its samples as they were, and lacks {'; '.join(told)}" if told else ""


def _by_pass(remade: tuple[RemadeShard, ...]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for shard in remade:
        found.setdefault(shard.pass_id, []).append(shard.shard)
    return found


def _identical(files: StoreFiles, shard: RemadeShard, found: Findings) -> bool | None:
    """Whether a shard that was made again has the bytes that its commit named before; of lost rows these are not known."""
    before = found.commits[shard.pass_id].get(shard.shard)
    if before is None or shard.reason == LOST:
        return None
    return read_commit(files.objects, shard.pass_id, shard.shard).objects == before.objects


# --- labels ---------------------------------------------------------------------------------------


def mend_labels(
    files: StoreFiles, source: Source | None, listener: Listener, dry_run: bool
) -> tuple[tuple[Mended, ...], tuple[Left, ...]]:
    """The label table beside the store, where it is damaged: read from the dataset again."""
    folder = _dataset_folder(files)
    damage = damage_of_labels(folder)
    if not damage:
        return (), ()
    if damage.get(DIGEST, "").startswith("is damaged"):
        if not dry_run:
            rewrite_digest(folder)
        return (Mended(DIGEST, f"it names the {LABELS} that is there; the rest of it was damaged"),), ()
    if source is None:
        needed = (
            "the files as they were: copy both again from whoever gave you the cache; or, on the machine that extracted, give "
            "--dataset and --root"
        )
        return (), tuple(Left(name, f"{reason}; it needs {needed}") for name, reason in damage.items())
    how = "read from the dataset again; labels that came from elsewhere than this root are not in it"
    if not dry_run:
        named = _words(folder / DIGEST)
        try:
            digest = sync_labels(source.config, listener.tell, anew=True).digest
        except StoreError as error:  # another store of the dataset, whose samples are to be labelled too
            return (), tuple(Left(name, f"{reason}; first: {error}") for name, reason in damage.items())
        if digest in named:
            how = f"read from the dataset again; {DIGEST} names it"
    return tuple(Mended(name, how) for name in damage), ()


def _words(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text("ascii", errors="replace").split()
    return []


def _dataset_folder(files: StoreFiles) -> Path:
    return files.path.resolve().parent.parent


def _cache(files: StoreFiles) -> Path:
    return _dataset_folder(files).parent

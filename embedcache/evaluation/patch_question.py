"""What the patch head is asked, settled before it is fitted: masks, classes, split, drawn patches, and their digests."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

import embedcache
from embedcache.datasets.base import DatasetOptions
from embedcache.errors import InputError
from embedcache.evaluation import splits
from embedcache.evaluation.mask_files import ClassNumbers, MaskClasses, StoreMasks, mask_classes, open_masks
from embedcache.evaluation.question import FEWEST_RESAMPLES, plain
from embedcache.evaluation.split_files import choose_split
from embedcache.evaluation.store_inputs import store_inputs
from embedcache.fields import hold_fields
from embedcache.images.geometry import Placement, patch_shares
from embedcache.images.views import placement_of
from embedcache.probes.base import Matrix
from embedcache.probes.patch_linear import PatchLinearProbe
from embedcache.store.features import finished_rows
from embedcache.store.reader import FeatureCache
from embedcache.store.tokens import PatchTokens
from embedcache.types import PARTS, IntArray, Split, StringArray

PROBE = "patch-linear"


@dataclass(frozen=True)
class PatchProbeConfig:
    """Which store's patch tokens to segment with, and where the masks are. Paths never enter a result."""

    store: Path | str
    dataset: str
    """The dataset that was extracted, or a `table` of its ids (or paths) with a column of masks."""
    root: str
    options: DatasetOptions = field(default_factory=DatasetOptions)
    mask_values: str | None = None
    """`255=lung,127=ignore`; None is as the dataset names them, else a class for every value but 0, named by its number."""
    layers: tuple[int, ...] | Literal["auto", "last"] = "auto"
    """Layers that validation chooses one from; `auto` is every layer with patch tokens."""
    split: Path | None = None
    """A split file, or the name of an imported split; None is what the dataset names, completed by a draw."""
    validation: float = 0.2
    test: float = 0.2
    seed: int = 0
    """Of the drawn split, the drawn patches and the bootstrap."""
    C: tuple[float, ...] | None = None
    """Grid of the inverse penalty; None is the probe's own."""
    max_patches: int = 65_536
    """Patches that are fitted, spread evenly over the slices: the memory is twice so many tokens."""
    resamples: int = 1000
    results: Path | None = None
    """Folder of the results; None is `<cache>/results`, or `results` beside a store that lies in no cache."""
    force: bool = False
    """Fit again although the result is there, and write it beside the old one."""

    def __post_init__(self) -> None:
        hold_fields(self)
        for name, least in (("resamples", FEWEST_RESAMPLES), ("seed", 0), ("max_patches", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}. Got {getattr(self, name)}.")
        if self.layers == ():
            raise InputError("layers names none; give their numbers, `last` or `auto`.")


@dataclass(frozen=True)
class Slices:
    """Slices with tokens and a mask, in the store's order."""

    row: IntArray
    """(n,): row of the store."""
    mask: IntArray
    """(n,): number of the sample's mask in StoreMasks."""
    index: IntArray
    """(n,): position in that mask."""
    part: npt.NDArray[np.str_]
    """(n,)."""

    def of(self, *parts: str) -> "Slices":
        """Those in `parts`."""
        inside = np.isin(self.part, parts)
        return Slices(self.row[inside], self.mask[inside], self.index[inside], self.part[inside])

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Targets:
    """The patches that are drawn for fitting, and what each should be."""

    row: IntArray
    """(m,): row of the store, ascending."""
    patch: IntArray
    """(m,): position in the flattened grid."""
    shares: npt.NDArray[np.float32]
    """(m, n_classes): of each class among what is not ignored; sums to 1."""
    trains: npt.NDArray[np.bool_]
    """(m,): of a training slice, else of a validation slice."""
    mean: Matrix
    """(gy, gx, n_classes): the mean mask of training and validation slices together."""


@dataclass(frozen=True)
class PatchQuestion:
    """All that decides the answer, before any token was read."""

    cache: FeatureCache
    masks: StoreMasks
    classes: MaskClasses
    split: Split
    slices: Slices
    targets: Targets
    probe: PatchLinearProbe
    tokens: Mapping[int, PatchTokens]
    """Layer → its patch tokens."""
    counts: dict[str, int]
    inputs: Mapping[str, Any]

    @property
    def grid(self) -> tuple[int, int]:
        """Patches (y, x)."""
        return grid_of(self.tokens)

    def truth(self, mask: int, index: int) -> ClassNumbers:
        """Class numbers (y, x) of one slice, at the mask's own resolution."""
        return self.classes.apply(self.masks.values(mask)[index], self.masks.where[mask])

    def placement(self, shape: tuple[int, ...], row: int) -> Placement:
        """How the slice of a row, of that shape, landed on the backbone's input."""
        return placement(self.cache, shape, row)


def ask_patches(config: PatchProbeConfig) -> PatchQuestion:
    """Open the cache and the masks, settle classes and split, draw patches, and name the inputs by their digests.

    Reads every mask. Raises InputError, StoreError.
    """
    cache = FeatureCache.open(config.store)
    tokens = _tokens(cache, config.layers)
    probe = PatchLinearProbe() if config.C is None else PatchLinearProbe(C=config.C)
    masks = open_masks(cache, config.dataset, config.root, config.options)
    classes = mask_classes(masks, config.mask_values)
    split = choose_split(cache, masks.listed, config)
    slices, counts = _slices(cache, masks, split, tokens)
    targets, digest = _targets(cache, masks, classes, slices, grid_of(tokens), config)
    counts["fitted_patches"] = len(targets.row)
    inputs = {
        **store_inputs(cache, [t.stored_pass.id for t in tokens.values()]),
        "masks": digest,
        "split": splits.split_digest(split),
        "config": {
            "probe": PROBE,
            "options": asdict(probe),
            "classes": classes.names,
            "layers": sorted(tokens),
            "max_patches": config.max_patches,
            "seed": config.seed,
            "resamples": config.resamples,
        },
        "version": embedcache.__version__,
    }
    return PatchQuestion(cache, masks, classes, split, slices, targets, probe, tokens, counts, plain(inputs))


def _tokens(cache: FeatureCache, layers: tuple[int, ...] | str) -> dict[int, PatchTokens]:
    """The patch tokens of the asked layers, by layer. Raises InputError where there are none."""
    if cache.unit == "volume":
        raise InputError(
            f"{cache.path.name} holds whole volumes, whose patches have three axes; {PROBE} segments slices, so give it the "
            "store of a backbone that sees slices."
        )
    kinds = ("patch_tokens", "patch_tokens_int8")
    stored = sorted({a.layer for p in cache.passes for a in p.arrays if a.kind in kinds})
    if not stored:
        raise InputError(f"{cache.path.name} holds no patch tokens; add them with `embedcache extract --tokens patch`.")
    if isinstance(layers, str):
        wanted = stored if layers == "auto" else stored[-1:]
    else:
        wanted = sorted({cache.layer_number(n) for n in layers})
    found = {n: cache.layer(n).patch_tokens for n in wanted}
    grids = {t.spec.shape[:2] for t in found.values()}
    if len(grids) > 1:
        raise InputError(f"layers {wanted} have patch grids of {len(grids)} sizes; ask for them one by one.")
    return found


def grid_of(tokens: Mapping[int, PatchTokens]) -> tuple[int, int]:
    """Patches (y, x), the same for all layers."""
    gy, gx, _ = next(iter(tokens.values())).spec.shape
    return gy, gx


def placement(cache: FeatureCache, shape: tuple[int, ...], row: int) -> Placement:
    """How the slice of `row`, of `shape` (y, x), landed on the input that the store's tokens were made from."""
    plan = cache.index.plan
    sample = int(plan.slice_start.searchsorted(row, side="right")) - 1
    name, index = str(plan.sample_id[sample]), int(plan.slice_index[row])
    return placement_of(cache.recipe.image, shape[0], shape[1], name, index)


def _slices(
    cache: FeatureCache, masks: StoreMasks, split: Split, tokens: Mapping[int, PatchTokens]
) -> tuple[Slices, dict[str, int]]:
    """The slices that count, with their parts, and what was left out."""
    plan = cache.index.plan
    ok = cache.good_rows(array.stored_pass for array in tokens.values())
    for array in tokens.values():
        ok &= finished_rows(array)
    of_sample = np.full(len(plan.sample_id), -1)
    of_sample[masks.sample] = np.arange(len(masks.sample))
    owner = plan.owner()
    row = np.flatnonzero(ok & (owner >= 0))
    row = row[of_sample[owner[row]] >= 0]
    ids = plan.sample_id[owner[row]]
    part = splits.part_rows(split, ids)
    slices = Slices(row, of_sample[owner[row]], plan.slice_index[row].astype(np.int64), part)
    samples = cache.samples()
    masked = np.isin(np.arange(len(samples)), masks.sample)
    counts = {
        "left_out_superseded": int(samples.superseded.sum()),
        "left_out_quarantined": int((masked & (samples.ok_slices == 0)).sum()),
        "left_out_not_in_split": len(np.unique(owner[row[part == ""]])),
        "left_out_no_mask": int((~masked & ~samples.superseded).sum()),
    }
    for name in PARTS:
        inside = owner[row[part == name]]
        if not len(inside):
            raise InputError(f"the {name} part has no sample with patch tokens and a mask; give another split.")
        counts[f"{name}_samples"] = len(np.unique(inside))
        counts[f"{name}_patients"] = len(np.unique(plan.patient_id[inside]))
        counts[f"{name}_rows"] = len(inside)
    return slices.of(*PARTS), counts


def _targets(
    cache: FeatureCache,
    masks: StoreMasks,
    classes: MaskClasses,
    slices: Slices,
    grid: tuple[int, int],
    config: PatchProbeConfig,
) -> tuple[Targets, str]:
    """Draw the patches, and digest the class numbers of every mask (Dice is of pixels). Each is read once, one held at a time."""
    digest = hashlib.sha256()
    fits = slices.part != "test"
    quota = np.zeros(len(slices), dtype=np.int64)
    quota[fits] = draw_counts(int(fits.sum()), grid[0] * grid[1], config.max_patches, config.seed)
    drawn: list[IntArray] = []
    kept: list[npt.NDArray[np.float32]] = []
    total, weight = np.zeros((*grid, classes.count)), np.zeros((*grid, 1))
    for i in range(len(slices)):
        mask, index = int(slices.mask[i]), int(slices.index[i])
        numbers = classes.apply(masks.values(mask)[index], masks.where[mask])
        # one class more: what is ignored
        shares = patch_shares(numbers, classes.count + 1, placement(cache, numbers.shape, int(slices.row[i])), grid)
        digest.update(f"{cache.index.plan.sample_id[masks.sample[mask]]}/{index}:".encode())
        digest.update(f"{numbers.shape}".encode() + numbers.tobytes())
        if not fits[i]:
            continue
        known = 1 - shares[..., -1:]
        total += shares[..., :-1]
        weight += known
        # a patch that is ignored but for the rounding of its shares says nothing
        usable = np.flatnonzero(known.ravel() > 1e-3)
        random = np.random.default_rng([config.seed, int(slices.row[i])])
        patch = np.sort(random.choice(usable, min(int(quota[i]), len(usable)), replace=False))
        drawn.append(patch)
        kept.append((shares[..., :-1] / np.maximum(known, 1e-3)).reshape(-1, classes.count)[patch])
    lengths = [len(patch) for patch in drawn]
    # where every mask ignores a patch, the mean mask has background
    mean = np.divide(total, weight, out=np.zeros_like(total), where=weight > 1e-3)
    targets = Targets(
        np.repeat(slices.row[fits], lengths),
        np.concatenate(drawn),
        np.concatenate(kept),
        np.repeat(slices.part[fits] == "train", lengths),
        mean,
    )
    return targets, digest.hexdigest()


def draw_counts(slices: int, patches: int, most: int, seed: int) -> IntArray:
    """(slices,): patches to draw of each slice with `patches` of them, `most` in all, as even as can be."""
    each, rest = divmod(min(most, slices * patches), slices)
    counts = np.full(slices, each, dtype=np.int64)
    counts[np.random.default_rng(seed).choice(slices, rest, replace=False)] += 1
    return counts


def patients_of(question: PatchQuestion, masks: IntArray) -> StringArray:
    """The patient of each of these masks."""
    return question.cache.index.plan.patient_id[question.masks.sample[masks]]

"""`embedcache verify --recompute 1%`: a random share of a store's rows made again with the backbone, and compared.

Checksums say that bytes are as they were written; this says that what was written is what the images and the weights
give. So a cache that came from someone else can be trusted by whoever has the images.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, Interrupted
from embedcache.extraction.config import ExtractConfig
from embedcache.extraction.device import ready_device
from embedcache.extraction.like import what_differs
from embedcache.extraction.prepare import Prepared, prepare
from embedcache.extraction.progress import Listener, Progress
from embedcache.extraction.signals import watch_signals
from embedcache.store import layout
from embedcache.store.quantise import dequantise, quantise
from embedcache.store.reader import FeatureCache
from embedcache.store.texts import locate
from embedcache.types import ArraySpec

FLOAT32_LIMITS = {"cls_token": 1e-5, "patch_mean": 1e-5, "pooled": 1e-5, "patch_tokens": 1e-4}
"""DESIGN's bounds on the relative L2 difference of a token between equal recipes on other machines, in float32."""
HALF_LIMIT = 2.0**-5
"""The bound where the compute dtype is float16, TF32 or bfloat16 (8 bits): other kernels round elsewhere, in every layer."""
FLOAT16_ROUNDING, FLOAT16_SMALLEST = 2.0**-11, 2.0**-25
"""What storing as float16 adds at most to each number: relative to it, and at all."""


@dataclass(frozen=True)
class ArrayCheck:
    """One array's comparison."""

    array: str
    tokens: int
    identical: int
    """Tokens whose stored bytes came out again bit by bit."""
    worst: float
    """The largest relative L2 difference of a token."""
    limit: float
    """The most that other hardware, and rounding to the stored dtype, may account for in one of these tokens."""
    wrong: tuple[str, ...]
    """`ID:SLICE` of the slices with a token beyond the limit."""


@dataclass(frozen=True)
class RecomputeReport:
    """Whether a store holds what its images and weights give."""

    store: str
    rows: int
    of: int
    """Rows of the store that could have been chosen."""
    arrays: tuple[ArrayCheck, ...]
    unreadable: int
    """Chosen rows whose image can not be read here."""
    seed: int

    @property
    def trusted(self) -> bool:
        """Whether rows were compared, and every token lies within its limit."""
        return any(a.tokens for a in self.arrays) and not any(a.wrong for a in self.arrays)


def recompute(
    store: str | Path, config: ExtractConfig, share: str = "1%", seed: int = 0, listener: Listener | None = None
) -> RecomputeReport:
    """Make a random share of a store's good rows again and compare them token by token.

    config: an extraction of the same recipe with one backbone (`config_like` makes it); its samples are chosen from.
    share: `1%`, or a number of rows. Raises InputError where the recipe is another one, naming what differs.
    """
    listener = listener or Listener()
    prepared = prepare(config, listener.tell)
    cache = FeatureCache.open(store)
    if [planned.files.path.resolve() for planned in prepared.stores] != [Path(store).resolve()]:
        found = "; ".join(f"{d.field} was {d.recorded}, is {d.now}" for d in what_differs(store, prepared))
        raise InputError(
            f"what was asked for is not what {Path(store).name} holds: {found or 'it is another dataset'}."
        )
    rows = choose_rows(cache, prepared, share, seed)
    compared = {
        spec.path: _Compared(cache, spec) for p in cache.passes for spec in p.arrays if spec.kind != "patch_scale"
    }
    done, unreadable = 0, set()
    with watch_signals() as stop:
        for p in cache.passes:
            device = ready_device(prepared.config, p.threads)
            from embedcache.extraction.remake import remake  # torch, which `ready_device` has imported

            for of_piece, tokens in remake(cache, prepared, p, rows, device, stop):
                done += len(of_piece)
                if tokens is None:
                    unreadable |= set(of_piece.tolist())
                else:
                    for spec in p.arrays:
                        if spec.path in compared:
                            compared[spec.path].add(of_piece, tokens[float_path(spec)])
                listener.progress(Progress(done, len(rows) * len(cache.passes), 0.0, 0.0, 1.0))
    if stop():
        raise Interrupted("stopped before the comparison was complete; nothing was changed", stop.number)
    return RecomputeReport(
        store=str(store),
        rows=len(rows),
        of=int((cache.row_status == layout.OK).sum()),
        arrays=tuple(c.check() for c in compared.values()),
        unreadable=len(unreadable),
        seed=seed,
    )


def float_path(spec: ArraySpec) -> str:
    """Under which name the backbone gives the tokens of an array: codes are made from float patch tokens."""
    return spec.path.removesuffix("_int8")


def choose_rows(cache: FeatureCache, prepared: Prepared, share: str, seed: int) -> npt.NDArray[np.int64]:
    """Ascending rows: good ones of samples that the dataset here has, drawn by whole batches. Raises InputError.

    A batch costs the same however many of its rows are asked for, and only a whole one gives equal bits.
    """
    plan, p = cache.index.plan, cache.passes[0]
    known = (locate(plan.sample_id, prepared.samples.id) >= 0) & ~cache.index.superseded
    good = np.flatnonzero((cache.row_status == layout.OK) & plan.rows_of(known))
    if not len(good):
        raise InputError(f"none of the samples of {cache.path.name} is in the dataset that was named, by its id.")
    try:
        number = float(share.removesuffix("%")) / 100 * len(good) if share.endswith("%") else int(share)
    except ValueError:
        number = 0
    if not 0 < number <= len(good):
        raise InputError(f"--recompute takes a share like 1% or a number of rows, up to {len(good)}. Got {share!r}.")
    batch = good // p.rows_per_shard * p.rows_per_shard + good % p.rows_per_shard // p.batch_size
    names, members = np.unique(batch, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    counts = np.bincount(members, minlength=len(names))[order]
    enough = int(np.searchsorted(np.cumsum(counts), number)) + 1
    chosen: npt.NDArray[np.int64] = good[np.isin(members, order[:enough])]
    return chosen


class _Compared:
    """What the comparison of one array has found so far."""

    def __init__(self, cache: FeatureCache, spec: ArraySpec) -> None:
        self.cache = cache
        self.spec = spec
        self.tokens = 0
        self.identical = 0
        self.worst = self.allowed = 0.0
        self.wrong: list[str] = []

    @property
    def limit(self) -> float:
        """What other hardware may account for, before rounding to the stored dtype."""
        model = self.cache.recipe.model
        exact = model.compute_dtype == "float32" and not model.tf32
        return FLOAT32_LIMITS[self.spec.kind.removesuffix("_int8")] if exact else HALF_LIMIT

    def add(self, rows: npt.NDArray[np.int64], made: npt.NDArray[np.float32]) -> None:
        """Compare rows of the store with what was made, shape (len(rows), …, width)."""
        width = made.shape[-1]
        norm = np.maximum(np.linalg.norm(made, axis=-1), np.finfo(np.float32).tiny)
        stored = self.cache.tokens(self.spec.layer, self.spec.kind).rows(rows)
        if self.spec.dtype == "int8":
            scale = self.cache.tokens(self.spec.layer, "patch_scale").rows(rows)
            codes, scales = quantise(made, np)
            same = (codes == stored).all(axis=-1) & (scales == scale)
            values = dequantise(stored, scale)
            rounding = 0.56 * scale.astype(np.float32) * np.sqrt(width) / norm  # see `quantise`
        else:
            same = (made.astype(self.spec.dtype) == stored).all(axis=-1)
            values = stored.astype(np.float32)
            half = self.spec.dtype == "float16"
            rounding = (FLOAT16_ROUNDING + FLOAT16_SMALLEST * np.sqrt(width) / norm) * half
        difference = np.linalg.norm(values - made, axis=-1) / norm
        allowed = np.broadcast_to(self.limit + rounding, difference.shape)
        per_row = tuple(range(1, difference.ndim))
        self.tokens += same.size
        self.identical += int(same.sum())
        self.worst = max(self.worst, float(difference.max()))
        self.allowed = max(self.allowed, float(allowed.max()))
        for row in rows[(difference > allowed).any(axis=per_row)].tolist():
            plan = self.cache.index.plan
            sample = int(plan.slice_start.searchsorted(row, side="right")) - 1
            self.wrong.append(f"{plan.sample_id[sample]}:{plan.slice_index[row]}")

    def check(self) -> ArrayCheck:
        """The outcome."""
        return ArrayCheck(self.spec.path, self.tokens, self.identical, self.worst, self.allowed, tuple(self.wrong))

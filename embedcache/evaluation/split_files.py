"""`embedcache splits make|export|import`: splits of a store's samples as CSV files; and which split a job takes."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from embedcache.errors import InputError
from embedcache.evaluation.splits import check_split, given_parts, make_split, read_split, split_digest, write_split
from embedcache.evaluation.strata import strata_of
from embedcache.evaluation.writable import check_file
from embedcache.store.labels import LABELS
from embedcache.store.reader import FeatureCache
from embedcache.store.texts import locate
from embedcache.types import PARTS, Labels, Split, StringArray, strings

SPLITS = "splits"
"""The folder of imported splits beside a dataset's stores."""


@dataclass(frozen=True)
class SplitReport:
    """A split that was written."""

    path: str
    digest: str
    samples: dict[str, int]
    patients: dict[str, int]
    unnamed: int = 0
    """Samples of the store that are in no part."""
    strata: str = ""
    """The task within whose labels patients were drawn."""

    def __str__(self) -> str:
        counts = [f"{part} {n} (patients: {self.patients[part]})" for part, n in self.samples.items()]
        if self.unnamed:
            counts.append(f"in no part {self.unnamed}")
        return f"{self.path}: samples {', '.join(counts)}" + (f"; drawn within {self.strata}" if self.strata else "")


def make_splits(
    store: str | Path,
    out: str | Path,
    *,
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    redraw: bool = False,
    stratify: str | None = None,
) -> SplitReport:
    """Draw by patient the parts that the labels do not name (all of them under `redraw`), and write them to `out`.

    Samples without a part stay out where the labels name training samples: see `make_split`. stratify: a task, in whose strata
    (`strata_of`) is drawn. Raises InputError where no file can be written, before anything is drawn, and where nothing is left to
    be stratified.
    """
    path = _place(out)
    cache = FeatureCache.open(store)
    ids, patients = _current(cache)
    labels = cache.labels() if cache.dataset_folder is not None or stratify is not None else None
    given = None if redraw or labels is None else given_parts(ids, patients, labels)
    strata = having = None
    if labels is not None and stratify is not None:
        found = strata_of(ids, patients, labels, labels.get(stratify))
        strata, having = found.stratum, found.having
    split = make_split(ids, patients, given, validation=validation, test=test, seed=seed, strata=strata, having=having)
    if stratify is not None and split.seed is None:
        raise InputError(
            f"the labels of {cache.path.name} name every part, so none is drawn; --redraw draws anew, or leave --stratify out."
        )
    return replace(_written(split, path, ids), strata=stratify or "")


def export_splits(store: str | Path, out: str | Path) -> SplitReport:
    """Write down the parts that the dataset itself names. Raises InputError if it names none, and as `make_splits`."""
    path = _place(out)
    cache = FeatureCache.open(store)
    ids, patients = _current(cache)
    parts = given_parts(ids, patients, cache.labels())
    named = parts != ""
    if not named.any():
        raise InputError(f"the labels of {cache.path.name} name no parts; `embedcache splits make` draws them.")
    return _written(Split(ids[named], patients[named], parts[named]), path, ids)


def import_splits(file: str | Path, store: str | Path, name: str) -> SplitReport:
    """Check a split against a store's samples and keep it as `<dataset>/splits/<name>.csv`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"a split's name is letters, digits, `.`, `_` and `-`. Got {name!r}.")
    cache = FeatureCache.open(store)
    if cache.dataset_folder is None:
        raise InputError(
            f"no {LABELS} lies beside {cache.path.name}, so there is no place for a split; give the file to --split."
        )
    ids, _ = _current(cache)
    split = read_split(Path(file), cache.samples().id)
    folder = cache.dataset_folder / SPLITS
    folder.mkdir(exist_ok=True)
    return _written(split, folder / f"{name}.csv", ids)


def find_split(split: Path, cache: FeatureCache) -> Path:
    """A split file as given, or the imported one of that name."""
    if cache.dataset_folder is not None and not split.exists() and split.parent == Path():
        named = cache.dataset_folder / SPLITS / f"{split.name}.csv"
        if named.exists():
            return named
    return split


def _current(cache: FeatureCache) -> tuple[StringArray, StringArray]:
    """Ids and patients of the store's samples, without those that a newer one of the same id replaces."""
    samples = cache.samples()
    return samples.id[~samples.superseded], samples.patient_id[~samples.superseded]


def _place(out: str | Path) -> Path:
    """Where a split will be written; its folders are made then."""
    path = Path(out)
    check_file(path, "the split", makes_folders=True)
    return path


def _written(split: Split, path: Path, ids: StringArray) -> SplitReport:
    """ids: all that could be in it."""
    check_split(split)
    write_split(split, path)
    samples = Counter(split.part.tolist())
    patients = Counter(part for _, part in set(zip(split.patient.tolist(), split.part.tolist(), strict=True)))
    there = [part for part in PARTS if part in samples]
    return SplitReport(
        str(path),
        split_digest(split),
        {p: samples[p] for p in there},
        {p: patients[p] for p in there},
        int((locate(ids, split.sample) < 0).sum()),
    )


class SplitWishes(Protocol):
    """The part of a probe's configuration that says who trains, validates and tests; see ProbeConfig."""

    @property
    def split(self) -> Path | None:
        """A split file, or the name of an imported split."""

    @property
    def validation(self) -> float:
        """Share of the training patients, where no validation part is named."""

    @property
    def test(self) -> float:
        """Share of the patients, where no test part is named."""

    @property
    def seed(self) -> int:
        """Of the draw."""


def choose_split(cache: FeatureCache, labels: Labels, config: SplitWishes, needs_test: bool = True) -> Split:
    """The given file's split, else the labels' own, completed by a draw; always with the store's own patients.

    Of a file only the validation part may be missing: it is drawn from the training patients, as published lists of training
    and test cases need. needs_test: refuse a file without a test part; a draw has one in any case.
    """
    if config.split is None:
        ids, patients = _current(cache)
        given = given_parts(ids, patients, labels)
        return make_split(ids, patients, given, validation=config.validation, test=config.test, seed=config.seed)
    samples = cache.samples()
    file = read_split(find_split(config.split, cache), samples.id)
    patient = dict(zip(samples.id.tolist(), samples.patient_id.tolist(), strict=True))
    split = Split(
        file.sample, strings([patient[s] for s in file.sample.tolist()]), file.part, file.draw, file.seed, file.name
    )
    check_split(split)
    there = set(split.part.tolist())
    for part in ("train", "test") if needs_test else ("train",):
        if part not in there:
            raise InputError(
                f"{config.split.name} names no {part} samples; add them, or draw all parts with `embedcache splits make`."
            )
    if "validation" in there:
        return split
    if "test" not in there:
        raise InputError(
            f"{config.split.name} names no validation samples; `embedcache splits make` draws a part of them."
        )
    return make_split(
        split.sample,
        split.patient,
        split.part,
        validation=config.validation,
        seed=config.seed,
        name=split.name,
    )

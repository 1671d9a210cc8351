"""Who trains, validates and tests. A split is a file, and a patient is in one part of it.

Draws take patients, sorted by their ids, from numpy's default generator, so the order of samples decides nothing.
"""

import csv
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedcache.coded import CodedTexts
from embedcache.errors import InputError, suggest
from embedcache.evaluation.exchanges import evened
from embedcache.store.files import replace_file
from embedcache.store.fingerprint import canonical, sha256
from embedcache.store.texts import factorise, locate, rows_of, to_arrow
from embedcache.types import PARTS, IntArray, Labels, Split, StringArray, Texts, fixed_width, strings

COLUMNS = ("sample", "patient", "split", "draw", "seed")


def make_split(
    samples: StringArray,
    patients: StringArray,
    given: StringArray | None = None,
    *,
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    name: str = "",
    strata: IntArray | None = None,
    having: npt.NDArray[np.bool_] | None = None,
) -> Split:
    """Keep the parts that are given and draw those that are missing, by patient.

    `given` names a part per sample, "" where unknown; a patient with a part passes it on to its other samples. The patients
    left are for training, unless `given` names patients to train: then who has no part is in none, and not in the split (a
    list of its own, as a published one is, leaves out on purpose). Without a given test part, `test` of the training patients
    are drawn for it; then, without a given validation part, `validation` of those left (rounded, at least one).
    strata: (samples,), the stratum of each sample's patient; each part then takes its share of every stratum, as nearly as
    whole patients allow (`shares`). having: (samples, classes), which classes the patient has; where some have several, which one
    stratum cannot say, the draw is then evened for all classes (`evened`). Raises InputError for a patient in two parts, or if a
    part would be empty.
    """
    for what, share in (("validation", validation), ("test", test)):
        if not 0 < share < 1:
            raise InputError(f"the share of {what} patients must lie between 0 and 1. Got {share}.")
    if seed < 0:
        raise InputError(f"seed must be 0 or more. Got {seed}.")
    parts = given if given is not None else strings([""] * len(samples))
    known = parts != ""
    those = rows_of(known)  # nearly always all: a copy of a column takes as long as what is made of it
    check_split(Split(samples[those], patients[those], parts[those]))
    names, patient = factorise(strings(patients))
    part_of = np.full(len(names), "" if (parts == "train").any() else "train", dtype="U10")
    part_of[patient[those]] = parts[those]
    stratum: IntArray | None = None
    if strata is not None:
        stratum = np.zeros(len(names), dtype=np.int64)
        stratum[patient] = strata
    classes: npt.NDArray[np.bool_] | None = None
    if having is not None:
        classes = np.zeros((len(names), having.shape[1]), dtype=np.bool_)
        classes[patient] = having
    random = np.random.default_rng(seed)
    drawn: list[str] = []
    for wanted, share in (("test", test), ("validation", validation)):
        if (part_of == wanted).any():
            continue
        drawn.append(wanted)
        free = np.flatnonzero(part_of == "train")  # names are sorted
        if len(free) < 2:
            raise InputError(
                f"{len(free)} training patients are too few to draw a {wanted} part from; "
                "give a split with --split FILE, or more patients."
            )
        count = min(max(1, round(share * len(free))), len(free) - 1)
        taken = _taken(random, free, count, stratum)
        if classes is not None and (classes[free].sum(axis=1) > 1).any():
            taken = free[evened(random, classes[free], np.isin(free, taken))]
        part_of[taken] = wanted
    words, code = np.unique(part_of, return_inverse=True)
    part = strings(words)[code[patient]]
    inside = rows_of(part != "")
    split = Split(
        samples[inside],
        patients[inside],
        part[inside],
        seed=seed if drawn else None,
        name=name,
        drawn=("train", *drawn) if drawn else (),
    )
    check_split(split, whole=False)  # each patient was given one part
    return split


def _taken(random: np.random.Generator, free: IntArray, count: int, stratum: IntArray | None) -> IntArray:
    """`count` of the patients `free`, within the strata where there are any."""
    if stratum is None:
        drawn: IntArray = free[random.choice(len(free), count, replace=False)]
        return drawn
    present, sizes = np.unique(stratum[free], return_counts=True)
    taken: list[IntArray] = []
    for one, n in zip(present.tolist(), shares(sizes, count).tolist(), strict=True):
        members = free[stratum[free] == one]
        taken.append(members[random.choice(len(members), n, replace=False)])
    return np.concatenate(taken)


def shares(sizes: IntArray, count: int) -> IntArray:
    """How many of `count` each of several strata gives, by largest remainder; of equal ones the smaller stratum's first."""
    quota = sizes * count / sizes.sum()
    whole: IntArray = np.floor(quota + 1e-9).astype(np.int64)
    first = np.lexsort((np.arange(len(sizes)), sizes, -np.round(quota - whole, 9)))
    whole[first[: count - int(whole.sum())]] += 1
    return whole


def given_parts(samples: StringArray, patients: StringArray, labels: Labels) -> StringArray:
    """The part that the labels name for each sample, "" where they name none."""
    parts = strings([""] * len(samples))
    named = labels.split != ""
    of_patient = named & (labels.sample == "")  # the rows of a patient-level task name no sample
    for asked, whose, those in ((patients, labels.patient, of_patient), (samples, labels.sample, named & ~of_patient)):
        rows = rows_of(those)
        of_rows = whose[rows]
        place = locate(strings(asked), of_rows)
        found = place >= 0
        parts[found] = np.asarray(labels.split[rows][place[found]])
    return parts


def check_split(split: Split, known: StringArray | None = None, whole: bool = True) -> None:
    """Raise InputError for an unknown part, a sample twice, a patient in two parts (if `whole`), or samples not in `known`."""
    where = f"split {split.name!r}" if split.name else "the split"
    for part in np.unique(split.part).tolist():
        if part not in PARTS:
            raise suggest(f"part in {where}", part, PARTS)
    samples, sample = factorise(strings(split.sample))
    if len(samples) < len(sample):
        twice = samples[np.flatnonzero(np.bincount(sample) > 1)[0]]
        raise InputError(f"{where} has sample {str(twice)!r} twice; keep one of the two rows.")
    if whole:
        _check_patients(split, where)
    if known is not None:
        unknown = samples[locate(samples, strings(known)) < 0].tolist()
        if unknown:
            raise InputError(
                f"{where} names {len(unknown)} samples that the store does not hold, {unknown[0]!r} for one; "
                "make it for this store with `embedcache splits make`."
            )


def _check_patients(split: Split, where: str) -> None:
    patients, patient = factorise(strings(split.patient))
    part = _part_numbers(split)
    last = np.zeros(len(patients), dtype=np.int64)
    last[patient] = part  # of several assignments the last holds
    if (last[patient] != part).any():
        order = np.argsort(patient, kind="stable")
        torn = np.flatnonzero((np.diff(patient[order]) == 0) & (np.diff(part[order]) != 0))
        one, other = order[torn[0]], order[torn[0] + 1]
        raise InputError(
            f"{where} has one patient in two parts: sample {str(split.sample[one])!r} in {split.part[one]} and sample "
            f"{str(split.sample[other])!r} in {split.part[other]}; put all samples of a patient into one part."
        )


def _part_numbers(split: Split) -> IntArray:
    """(n,): the place of each row's part among PARTS."""
    part = np.zeros(len(split.part), dtype=np.int64)
    for number, name in enumerate(PARTS):
        part[split.part == name] = number
    return part


def split_digest(split: Split) -> str:
    """SHA-256 over (sample, patient, part) in sorted order; draw, seed and name say how it came about, not what it is."""
    columns = (split.sample, split.patient, split.part)
    texts = [to_arrow(strings(column)) for column in columns]
    # as a store has them they are sorted, and JSON escapes nothing of them
    if not (split.sample[1:] > split.sample[:-1]).all() or any(_escaped(column) for column in texts):
        return sha256(canonical(sorted(zip(*(column.tolist() for column in columns), strict=True))))
    opened, between, closed, nothing = to_arrow(strings(('["', '","', '"],', "")))  # `pyarrow.scalar` imports pandas
    sample, patient, part = texts
    rows = pc.binary_join_element_wise(opened, sample, between, patient, between, part, closed, nothing)
    length = int(np.frombuffer(rows.buffers()[1], dtype=np.int64)[len(rows)])
    return sha256("[", memoryview(rows.buffers()[2])[: max(0, length - 1)], "]")


def _escaped(texts: pa.Array) -> bool:
    """Whether JSON escapes something of these."""
    data = np.frombuffer(texts.buffers()[2], dtype=np.uint8)
    return bool(((data < 0x20) | (data == 0x22) | (data == 0x5C)).any())


def members(split: Split) -> dict[str, str]:
    """Sample id → part."""
    return dict(zip(split.sample.tolist(), split.part.tolist(), strict=True))


def encode_split(split: Split) -> bytes:
    """The CSV, rows sorted by sample: the same bytes for the same split."""
    check_split(split)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    seed = "" if split.seed is None else split.seed
    for sample, patient, part in sorted(
        zip(split.sample.tolist(), split.patient.tolist(), split.part.tolist(), strict=True)
    ):
        writer.writerow([sample, patient, part, split.draw, seed])
    return text.getvalue().encode()


def write_split(split: Split, path: Path) -> None:
    """Write the CSV: whole or not at all."""
    data = encode_split(split)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data)


def read_split(path: Path, known: StringArray | None = None, whole: bool = True) -> Split:
    """Read and check a CSV with columns sample, patient, split and, if they are there, draw and seed.

    `known`: the sample ids of the store, to refuse a split of something else. `whole`: refuse a patient in two parts; only who
    looks for such patients reads it otherwise. Raises InputError.
    """
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"there is no split file {path}; `embedcache splits make` writes one.") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise InputError(f"{path.name} is no CSV file of text; a split has columns {', '.join(COLUMNS)}.") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = reader.fieldnames or []
    absent = [c for c in COLUMNS[:3] if c not in header]
    if absent:
        raise InputError(f"{path.name} has no column {absent[0]!r}; a split has columns {', '.join(COLUMNS)}.")
    rows = list(reader)
    if not rows:
        raise InputError(f"{path.name} has no rows; a split names the part of each sample.")
    for i, row in enumerate(rows, start=1):
        if any(row[c] is None for c in COLUMNS[:3]):
            raise InputError(f"row {i} of {path.name} is too short; it needs sample, patient and split.")
    split = Split(
        strings([row["sample"] for row in rows]),
        strings([row["patient"] for row in rows]),
        strings([row["split"] for row in rows]),
        draw=_one_number(rows, "draw", path.name) or 0,
        seed=_one_number(rows, "seed", path.name),
        name=path.stem,
    )
    check_split(split, known, whole)
    return split


def _one_number(rows: list[dict[str, str]], column: str, name: str) -> int | None:
    """The number that all rows agree on; None where the column is absent or empty."""
    texts = {row.get(column) or "" for row in rows}
    if len(texts) > 1:
        raise InputError(f"{name} has {len(texts)} values in column {column!r}; a split file holds one {column}.")
    text = texts.pop()
    try:
        return int(text) if text else None
    except ValueError:
        raise InputError(f"{name} has {text!r} in column {column!r}, which must be a whole number.") from None


def part_rows(split: Split, sample_id: Texts) -> npt.NDArray[np.str_]:
    """The part of each row by its sample id, "" for samples that the split does not name."""
    named = sample_id if isinstance(sample_id, CodedTexts) else strings(sample_id)
    place = locate(named, strings(split.sample))
    parts = np.append(fixed_width(split.part), "").astype("U10")
    return parts[place]

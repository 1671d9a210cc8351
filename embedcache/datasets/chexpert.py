"""`chexpert`: the frontal radiographs of CheXpert, in either size, in the layout in which Stanford distributes it."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedcache.datasets.base import Columns, Dataset, DatasetOptions, Published, adapter
from embedcache.datasets.columns import Table, is_missing, number, read_table
from embedcache.datasets.publishing import COMMON_OPTIONS, OwnTask, absent, find_root, published_dataset
from embedcache.datasets.uncertain import VALUE, Policy, parse_policy
from embedcache.errors import InputError
from embedcache.types import DatasetInfo, Samples, Task, strings

FINDINGS = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
"""The five of the competition, and of the study."""
DEFAULT_POLICY: Policy = "zeros"
"""What -1, "uncertain", counts as, as in the study."""
TASK = "findings"
FOLDERS = ("CheXpert-v1.0-small", "CheXpert-v1.0")
TABLES = (("train.csv", "train"), ("valid.csv", "valid"), ("test.csv", "test"), ("test_labels.csv", "test"))
COLUMNS = ("Sex", "Age", "AP/PA")

INFO = DatasetInfo(
    name="chexpert",
    version="1.0",
    licence="Stanford University Dataset Research Use Agreement: research only, not to be passed on",
    citation=(
        "Irvin J, Rajpurkar P, Ko M, et al. CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert "
        "Comparison. AAAI 2019. doi:10.1609/aaai.v33i01.3301590"
    ),
    homepage="https://stanfordmlgroup.github.io/competitions/chexpert/",
    public_ids=True,
)
PUBLISHED = Published(
    191_229,
    "frontal images",
    None,
    "train.csv lists 191,027 frontal images, valid.csv 202: valid tests unless the test set is there, and validation is drawn by "
    "patient (the study's table 1 says 161,792 images, and not which)",
)


@adapter(INFO, PUBLISHED)
def open_chexpert(root: Path, options: DatasetOptions) -> Dataset:
    """The frontal images that are at `root`, in the order of the tables; `valid` is `test` where there is no test table.

    Ids are paths below the archive's folder. A finding that a report does not mention (an empty cell) is 0. Raises
    InputError if the training table or every image is missing, and for a label that is none of 1, 0, -1 and empty.
    """
    options.only("chexpert", *COMMON_OPTIONS, "uncertain")
    policy = parse_policy(options.uncertain) if options.uncertain else DEFAULT_POLICY
    options = replace(options, uncertain=None)  # it speaks of CheXpert's own labels, not of a second table's
    folder = find_root(root, ["train.csv"], FOLDERS, "--root is CheXpert's folder, with train.csv and train/.")
    tables = [(read_table(folder / name), part) for name, part in TABLES if (folder / name).is_file()]
    has_test = any(part == "test" for _, part in tables)
    words = {"train": "train", "valid": "validation" if has_test else "test", "test": "test"}

    ids, parts, values = [], [], []
    for table, part in tables:
        below = [_below_archive(path, table, i) for i, path in enumerate(table.column("Path").text().tolist())]
        ids += below
        parts += [words[part]] * len(below)
        values.append(_values(table, policy))
    base = f"{folder}{os.sep}"  # two hundred thousand texts are joined sooner than paths
    frontal = np.array(["_frontal" in name.rsplit("/", 1)[-1] for name in ids])
    there = np.array(
        [os.path.isfile(base + name) if front else False for name, front in zip(ids, frontal, strict=True)]
    )
    if not there.any():
        raise InputError(
            f"none of the {int(frontal.sum()):,} frontal images that the tables of {folder.name} list is there; unpack "
            "CheXpert's archive so that train/ lies beside train.csv."
        )
    chosen = np.flatnonzero(there)
    listed = strings(ids)
    samples = Samples(
        id=listed[chosen],
        patient_id=strings([name.split("/")[1] for name in listed[chosen].tolist()]),
        path=strings([base + name for name in listed[chosen].tolist()]),
        split=strings(parts)[chosen],
        row=chosen + 1,
        listing=" then ".join(table.name for table, _ in tables),
    )
    column = f"{', '.join(FINDINGS)}; uncertain as {policy}"
    task = OwnTask(Task(TASK, "multilabel", FINDINGS, column=column), np.concatenate(values)[chosen])
    missing = [*absent(listed[frontal & ~there].tolist(), "is listed and has no file")]
    if not any(part == "valid" for _, part in tables):
        missing.append("valid.csv is missing: there is no official test part")
    return published_dataset(
        INFO, PUBLISHED, options, samples, [task], _columns([t for t, _ in tables], chosen), missing=missing
    )


def _below_archive(path: str, table: Table, row: int) -> str:
    """`CheXpert-v1.0-small/train/patient00001/…` from `train` on."""
    parts = path.split("/")
    for start in (0, 1):
        if len(parts) == start + 4 and parts[start] in ("train", "valid", "test"):
            return "/".join(parts[start:])
    raise InputError(f"{table.where(row)} has no path of CheXpert's in its column 'Path'; take its own table.")


def _values(table: Table, policy: Policy) -> npt.NDArray[np.float64]:
    """Shape (rows, 5)."""
    meaning = {1.0: 1.0, 0.0: 0.0, -1.0: VALUE[policy]}
    found = np.empty((len(table), len(FINDINGS)))
    for k, name in enumerate(FINDINGS):
        column = table.column(name)
        values = []
        for code, word in enumerate(column.words):
            value = 0.0 if is_missing(word) else number(word)
            if value not in meaning:
                row = int(np.flatnonzero(column.codes == code)[0])
                raise InputError(
                    f"{table.where(row)} has {word!r} for {name!r}, which is none of 1, 0, -1 and empty; take CheXpert's own "
                    "table."
                )
            values.append(meaning[value])
        found[:, k] = np.array(values)[column.codes]
    return found


def _columns(tables: list[Table], chosen: npt.NDArray[np.int64]) -> Columns:
    """What `--where` may name: columns that every table has (the test table has fewer)."""
    found: dict[str, npt.NDArray[np.generic]] = {}
    for name in COLUMNS:
        if not all(name in table.names for table in tables):
            continue
        columns = [table.column(name) for table in tables]
        numbers = [column.numbers() for column in columns]
        if all(n is not None for n in numbers):
            parts = [n[c.codes] for n, c in zip(numbers, columns, strict=True) if n is not None]
        else:
            parts = [column.text() for column in columns]
        found[name] = np.concatenate(parts)[chosen]
    return found

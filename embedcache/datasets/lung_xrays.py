"""What Montgomery and Shenzhen share: radiographs whose file names end in the reading, `_0` normal, `_1` tuberculosis, and a
text on each in `ClinicalReadings`.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embedcache.datasets.base import Columns
from embedcache.datasets.publishing import OwnTask
from embedcache.errors import InputError
from embedcache.types import Task, strings

TUBERCULOSIS = Task("tuberculosis", "binary", ("tuberculosis",), positive="1", column="file name")

READINGS = "ClinicalReadings"
_SEX = re.compile(r"\b(f|m|female|male)\b", re.IGNORECASE)
_AGE = re.compile(r"(\d+)[ -]*(y|m|d)", re.IGNORECASE)
_YEARS = {"y": 1.0, "m": 1 / 12, "d": 1 / 365.25}
_MOST_BYTES = 4096
"""Of a text that is read: each has two or three lines."""


def clinical_columns(folder: Path, names: Sequence[str]) -> Columns:
    """Sex (`F`, `M`) and age in years of each image, from `NAME.txt` in `folder`; missing where it is not there, or does not say.

    As distributed, Montgomery writes `Patient's Sex: F` and `Patient's Age: 027Y`, Shenzhen `male 45yrs`. What was found is
    free text, and no column.
    """
    told = [_told(folder / f"{name}.txt") for name in names]
    return {"sex": strings([sex for sex, _ in told]), "age": np.array([age for _, age in told], dtype=np.float64)}


def _told(path: Path) -> tuple[str, float]:
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return "", np.nan
    sex, age = _SEX.search(text), _AGE.search(text)
    return sex[1][0].upper() if sex else "", float(age[1]) * _YEARS[age[2].lower()] if age else np.nan


def readings(names: Sequence[str], pattern: str) -> OwnTask:
    """The task of images whose names (without suffix) fit `pattern`, and end in `_0` or `_1`. Raises InputError."""
    for name in names:
        if not re.fullmatch(pattern, name):
            raise InputError(
                f"{name}.png says no reading: a name is like {pattern.replace('[01]', '0')}, and ends in _0 (normal) or _1 "
                "(tuberculosis)."
            )
    return OwnTask(TUBERCULOSIS, np.array([[float(name[-1])] for name in names]))

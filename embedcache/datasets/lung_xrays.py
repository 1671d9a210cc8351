"""What Montgomery and Shenzhen share: radiographs whose file names end in the reading, `_0` normal, `_1` tuberculosis."""

import re
from collections.abc import Sequence

import numpy as np

from embedcache.datasets.publishing import OwnTask
from embedcache.errors import InputError
from embedcache.types import Task

TUBERCULOSIS = Task("tuberculosis", "binary", ("tuberculosis",), positive="1", column="file name")


def readings(names: Sequence[str], pattern: str) -> OwnTask:
    """The task of images whose names (without suffix) fit `pattern`, and end in `_0` or `_1`. Raises InputError."""
    for name in names:
        if not re.fullmatch(pattern, name):
            raise InputError(
                f"{name}.png says no reading: a name is like {pattern.replace('[01]', '0')}, and ends in _0 (normal) or _1 "
                "(tuberculosis)."
            )
    return OwnTask(TUBERCULOSIS, np.array([[float(name[-1])] for name in names]))

"""Columns of many values: their array types, and texts without a Python object each."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache.coded import CodedTexts

StringArray: TypeAlias = npt.NDArray[Any]
"""Of dtype numpy.dtypes.StringDType; numpy's stubs can not name it usefully."""
Texts: TypeAlias = StringArray | CodedTexts
"""A long column of texts, however it is held."""
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
IntArray: TypeAlias = npt.NDArray[np.int64]


def strings(values: Any) -> StringArray:
    """`values` as a compact numpy string array (16 bytes a value and the text once, not a Python object each)."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "U":
        values = values.tolist()  # numpy's own way takes twice as long
    return np.asarray(values, dtype=np.dtypes.StringDType())

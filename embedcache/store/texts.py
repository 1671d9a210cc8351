"""Long columns of texts as numbers. A text compared or hashed a million times is slow, an integer is not."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedcache.types import IntArray, StringArray, strings


def factorise(values: StringArray) -> tuple[StringArray, IntArray]:
    """(words, codes): the distinct values, sorted, and for each of the n values its place among them.

    Runs of equal values, as in a column of sample ids with a row per class, are hashed once each.
    """
    if not len(values):
        return strings([]), np.zeros(0, dtype=np.int64)
    heads = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    encoded = pa.array(values[heads].tolist(), pa.string()).dictionary_encode()
    found = strings(encoded.dictionary.to_pylist())
    order = np.argsort(found)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return found[order], np.repeat(rank[encoded.indices.to_numpy()], np.diff(heads, append=len(values)))


def joint_codes(a: StringArray, b: StringArray) -> tuple[int, IntArray, IntArray]:
    """The number of distinct values in both, and codes under which equal values of `a` and `b` are equal."""
    words, codes = factorise(np.concatenate([a, b]))
    return len(words), codes[: len(a)], codes[len(a) :]


def locate(values: StringArray, among: StringArray) -> IntArray:
    """Shape (n,): the first position of each of `values` in `among`, -1 where it is not there.

    By hashing in Arrow: numpy's searchsorted on large arrays of its own strings ends the process (numpy 2.4).
    """
    found = pc.index_in(pa.array(values.tolist(), pa.string()), pa.array(among.tolist(), pa.string()))
    return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), dtype=np.int64)

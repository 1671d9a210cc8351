"""Samples of two stores of one recipe that have the very tokens of each other, so the very input.

A store holds no digest of an image, which would tell who has the image; but equal inputs give equal tokens wherever the same
kernels ran, and two different images give equal ones of hundreds of numbers by no chance. So equal tokens are certain, and
unequal ones are not: other hardware may round the last bits elsewhere.
"""

import hashlib

import numpy as np
import numpy.typing as npt

from embedcache.store.features import vectors
from embedcache.store.reader import FeatureCache
from embedcache.store.tokens import TokenArray
from embedcache.types import StringArray


def with_tokens_of(
    cache: FeatureCache, other: FeatureCache, known: npt.NDArray[np.bool_], kind: str, layers: tuple[int, ...]
) -> StringArray:
    """Ids of the samples of `other` that have, in the same order of slices, the tokens of a sample of `cache` that is `known`.

    kind, layers: vectors that both stores hold; the first of their arrays is read of each, and no image.
    """
    here, there = (vectors(store, kind, layers or None)[0] for store in (cache, other))
    # a store in float32 and one in float16 are compared as float16, which is how the other was written
    dtype = min((here.dtype, there.dtype), key=lambda dtype: dtype.itemsize)
    seen = {digest for digest, one in zip(token_digests(here, dtype), known.tolist(), strict=True) if one and digest}
    samples = other.samples()
    theirs = [bool(digest) and digest in seen for digest in token_digests(there, dtype)]
    return samples.id[np.array(theirs, dtype=np.bool_) & ~samples.superseded]


def token_digests(tokens: TokenArray, dtype: np.dtype[np.generic]) -> list[bytes]:
    """Of each sample of the store, by its good rows in their order; b"" where it has none. Time is one read of the array."""
    cache, plan = tokens.cache, tokens.cache.index.plan
    good = cache.good_rows([tokens.stored_pass])
    owner = plan.owner()
    found: list[hashlib.blake2b | None] = [None] * len(plan.sample_id)
    for first, block in tokens.shards(reuse=True):
        rows = np.flatnonzero(good[first : first + len(block)])
        for row, sample in zip(rows.tolist(), owner[first + rows].tolist(), strict=True):
            if found[sample] is None:
                found[sample] = hashlib.blake2b(digest_size=16)
            found[sample].update(block[row].astype(dtype).tobytes())
    return [digest.digest() if digest is not None else b"" for digest in found]

"""Which numbers of a backbone are kept, and in which arrays."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

TokenKind = Literal["cls_token", "patch_mean", "patch_tokens", "patch_tokens_int8", "patch_scale", "pooled"]
StoredType = Literal["float16", "float32", "int8"]

TOKEN_KINDS: tuple[TokenKind, ...] = get_args(TokenKind)


@dataclass(frozen=True)
class ArraySpec:
    """One array of tokens: its layer (0 = the root group, for `pooled`), kind, stored dtype and shape of one row."""

    layer: int
    kind: TokenKind
    dtype: StoredType
    shape: tuple[int, ...]

    @property
    def path(self) -> str:
        """Its path in the store: `layer_12/cls_token`."""
        return f"layer_{self.layer}/{self.kind}" if self.layer else self.kind

    @property
    def row_bytes(self) -> int:
        """Bytes of one row (one slice)."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

"""Canonical JSON and the digests that name recipes, passes and plans (FORMAT.md, sections 2, 3 and 5)."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import numpy as np

from embedcache.store.packed import PackedTexts
from embedcache.types import ArraySpec, Plan, Recipe, StringArray

LATER_FIELDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"image": {"time": 0, "augmentation": None, "volume": None}, "model": {"compiled": False}}
)
"""Fields that a recipe got after stores were written without them, by part, with the value under which a token is what it was
before. There they are left out of the canonical document, so that the fingerprints of old stores stay."""


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, shortest floats; NaN and infinity are refused (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256(*parts: bytes | bytearray | memoryview | str) -> str:
    """SHA-256, in hex, of the parts one after the other: what lies contiguously in memory as it lies, a string as UTF-8."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def recipe_document(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON values (tuples become lists), without later fields that have their default."""
    document: dict[str, Any] = json.loads(canonical(asdict(recipe)))
    for part, fields in LATER_FIELDS.items():
        document[part] = {k: v for k, v in document[part].items() if k not in fields or v != fields[k]}
    return document


def fingerprint(recipe: Recipe) -> str:
    """The SHA-256 of the recipe's canonical JSON: what a store is named by."""
    return sha256(canonical(recipe_document(recipe)))


def pass_document(
    arrays: tuple[ArraySpec, ...], rows_per_shard: int, batch_size: int, threads: int, device_kind: str
) -> dict[str, Any]:
    """What a pass is, as plain JSON values."""
    return {
        "arrays": [{"layer": a.layer, "kind": a.kind, "dtype": a.dtype, "shape": list(a.shape)} for a in arrays],
        "rows_per_shard": rows_per_shard,
        "batch_size": batch_size,
        "threads": threads,
        "device_kind": device_kind,
    }


def pass_id(document: dict[str, Any]) -> str:
    """`p` and 8 hex digits of a pass's canonical content."""
    return "p" + sha256(canonical(document))[:8]


def plan_digest(plan: Plan) -> str:
    """The digest of a plan's rows in order (FORMAT.md, section 3)."""
    return sha256(
        canonical(
            {
                "quantum": plan.quantum,
                "rows": plan.rows,
                "sample_id": _text_digest(plan.sample_id),
                "patient_id": _text_digest(plan.patient_id),
                "slice_start": sha256(np.ascontiguousarray(plan.slice_start, dtype="<i8").tobytes()),
                "slice_count": sha256(np.ascontiguousarray(plan.slice_count, dtype="<i8").tobytes()),
                "slice_index": sha256(np.ascontiguousarray(plan.slice_index, dtype="<i4").tobytes()),
            }
        )
    )


def _text_digest(texts: StringArray) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(texts), 65_536):  # bounded memory, whatever the plan's length
        block = PackedTexts.of(texts[start : start + 65_536])
        digest.update(block.framed(np.empty((len(block.lengths), 0), dtype=np.uint8), b"\n"))
    return digest.hexdigest()

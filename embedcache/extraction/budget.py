"""What an extraction would cost that stores less: proposals under a budget of bytes, in the order of what they lose."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from embedcache.errors import InputError
from embedcache.extraction.config import ExtractConfig, asked_arrays, parse_layers
from embedcache.extraction.pending import needed_bytes, pending_passes
from embedcache.extraction.prepare import Prepared, RowPlanner, StorePlan

UNITS = {"B": 1} | {
    f"{letter}{kind}": base ** (i + 1) for i, letter in enumerate("KMGT") for kind, base in (("B", 1000), ("iB", 1024))
}
Changes: TypeAlias = Mapping[str, Any]
"""Fields of the configuration that differ from what was asked."""


@dataclass(frozen=True)
class Proposal:
    """One way to ask for less."""

    name: str
    """`as asked`, `patch tokens as int8`, …"""
    switches: str
    """What to type in place of the same switches; "" for what was asked."""
    needed: int
    """Bytes of disk."""
    fits: bool


def parse_bytes(text: str) -> int:
    """`50GiB`, `1.5 TB`, `500MB` or plain bytes as a number. Raises InputError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip(), re.IGNORECASE)
    units = {unit.lower(): size for unit, size in UNITS.items()}
    unit = (found[2] or "B").lower() if found else ""
    if found is None or unit not in units or float(found[1]) == 0:
        raise InputError(f"a size is a number above 0 with one of {', '.join(UNITS)}, as in 50GiB. Got {text!r}.")
    return int(float(found[1]) * units[unit])


def say_bytes(count: float) -> str:
    """1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def proposals(prepared: Prepared, planner: RowPlanner, limit: int) -> tuple[Proposal, ...]:
    """What was asked, and after it what costs less, the least loss first; `limit` bytes are there.

    What a store holds under another dtype already is not proposed: an array has one.
    """
    found: list[Proposal] = []
    for name, changes in _variants(prepared):
        config = replace(prepared.config, **changes)
        stores = [restricted for store in prepared.stores if (restricted := _restricted(store, config))]
        if len(stores) < len(prepared.stores):
            continue
        variant = replace(prepared, config=config, stores=tuple(stores))
        needed = needed_bytes(variant, pending_passes(variant, planner), planner)
        switches = " ".join(f"--{key} {value}" for key, value in changes.items())
        if not found or needed < found[0].needed:
            found.append(Proposal(name, switches, needed, needed <= limit))
    return tuple(found)


def _variants(prepared: Prepared) -> Iterator[tuple[str, Changes]]:
    """Each with its name."""
    config = prepared.config
    patches = "patch" in {word.strip() for word in config.tokens.split(",")}
    depth = max(len(parse_layers(config.layers, store.info)) for store in prepared.stores)
    narrower: list[tuple[str, Changes]] = []
    if config.dtype == "float32":
        narrower.append(("as float16", {"dtype": "float16"}))
    if patches and config.dtype != "int8":
        narrower.append(("patch tokens as int8", {"dtype": "int8"}))
    fewer: list[tuple[str, Changes]] = []
    if depth > 2:
        fewer.append(("the last two layers", {"layers": "last:2"}))
    if depth > 1:
        fewer.append(("the last layer", {"layers": "last"}))
    pooled: list[tuple[str, Changes]] = []
    if patches:
        # int8 is for patch tokens only
        dtype = {"dtype": "float16"} if config.dtype == "int8" else {}
        pooled.append(("patch mean in place of patch tokens", {"tokens": "cls,mean", **dtype}))
    yield "as asked", {}
    yield from narrower
    yield from fewer
    yield from _each(narrower, fewer)
    yield from pooled
    yield from _each(pooled, fewer)


def _each(first: list[tuple[str, Changes]], second: list[tuple[str, Changes]]) -> Iterator[tuple[str, Changes]]:
    """One of the first and one of the second together."""
    for name, changes in first:
        for other, more in second:
            yield f"{name}, {other}", {**changes, **more}


def _restricted(store: StorePlan, config: ExtractConfig) -> StorePlan | None:
    """The store's plan if `config` were asked; None if it holds one of the arrays in another dtype."""
    asked = asked_arrays(config, store.info, store.recipe.image.shape)
    if store.root is None:
        return replace(store, missing=asked)
    held = {a.path: (p, a) for p in store.root.passes.values() for a in p.arrays}
    if any(spec.path in held and held[spec.path][1].dtype != spec.dtype for spec in asked):
        return None
    used = {held[spec.path][0].id for spec in asked if spec.path in held} | store.root.reopened
    return replace(
        store,
        missing=tuple(spec for spec in asked if spec.path not in held),
        # rows that are added reopen every pass
        unfinished=tuple(
            p for p in store.root.passes.values() if len(store.new) or (p.id in used and not store.root.complete[p.id])
        ),
    )

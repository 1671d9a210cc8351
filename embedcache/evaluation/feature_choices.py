"""What validation may choose among as features: which tokens, of how many blocks, standardised or not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal

from embedcache.errors import InputError, suggest
from embedcache.probes.base import Columns
from embedcache.store.features import VECTORS, FeatureColumns
from embedcache.store.reader import FeatureCache

Layers = tuple[int, ...] | Literal["last", "auto"]
Standardize = bool | Literal["auto"]
BLOCKS = 4
"""`auto` tries the last block, and the last four where they are stored (DINOv2's choices)."""


@dataclass(frozen=True)
class FeatureChoice:
    """One way to make a row's vector."""

    kind: str
    """`cls`, `mean`, `cls+mean`, `pooled`."""
    layers: tuple[int, ...]
    """CLS tokens of all of them, the mean patch token of the last; () for a backbone without layers."""
    standardize: bool

    def columns(self, stored: tuple[FeatureColumns, ...]) -> Columns:
        """Where this vector lies in a matrix that holds it and perhaps more; ranges that touch are one."""
        found: list[slice] = []
        for part in stored:
            if part.kind not in VECTORS[self.kind] or not self._takes(part):
                continue
            if found and found[-1].stop == part.start:
                found[-1] = slice(found[-1].start, part.stop)
            else:
                found.append(slice(part.start, part.stop))
        return tuple(found)

    def _takes(self, part: FeatureColumns) -> bool:
        if part.kind == "pooled":
            return True
        return part.layer in (self.layers if part.kind == "cls_token" else self.layers[-1:])


def feature_choices(
    cache: FeatureCache, features: str, layers: Layers, standardize: Standardize
) -> dict[str, FeatureChoice]:
    """By name, from the fewest features to the most: the first of equals is chosen.

    Raises InputError, UnknownNameError for what the store has not, and for layers of which nothing would be taken.
    """
    check_vectors(cache)
    asked = _layer_sets(cache, layers)
    kinds = _kinds(cache, features, asked)
    _check_pooled(cache, kinds)
    _check_arrays(cache, kinds, asked)
    _check_layers(cache, features, layers, kinds)
    scaled = (False, True) if standardize == "auto" else (standardize,)
    found: dict[str, FeatureChoice] = {}
    for of_layers, kind, scale in product(asked, kinds, scaled):
        used = of_layers if "cls" in kind else of_layers[-1:]
        choice = FeatureChoice(kind, used, scale)
        if choice not in found.values():
            found[_name(choice, "standardized" if standardize == "auto" else "")] = choice
    return found


def check_vectors(cache: FeatureCache) -> None:
    """Raise InputError for a store that holds tokens of patches only, so no vector of a slice."""
    vectors = {kind for kinds in VECTORS.values() for kind in kinds}
    if not any(kind in vectors for _, kind in _arrays(cache)):
        raise InputError(
            f"{cache.path.name} holds patch tokens only, which `embedcache probe patch-linear` reads, and no vector of a "
            f"{cache.unit}; where its backbone has them, extract with --tokens cls,mean."
        )


def untried(features: str, layers: Layers, choices: Mapping[str, FeatureChoice]) -> str | None:
    """What `auto` would have validation choose among, and the store does not hold: a line for who asked so."""
    if layers != "auto":
        return None
    vectors = {(choice.kind, choice.layers) for choice in choices.values()}
    kinds = 2 if features == "auto" else 1
    blocks = 1 if features in ("mean", "pooled") else 2
    if len(vectors) == kinds * blocks:
        return None
    held = dict.fromkeys(_name(choice, "") for choice in choices.values())
    asked = "cls and cls+mean" if features == "auto" else features
    return f"of {asked}, of the last block and of the last {BLOCKS}, the store holds only {', '.join(held)}."


def widest(choices: Iterable[FeatureChoice]) -> tuple[str, tuple[int, ...]]:
    """The kind and layers whose columns hold all of `choices`."""
    kinds = {choice.kind for choice in choices}
    layers = tuple(sorted({layer for choice in choices for layer in choice.layers}))
    return (next(iter(kinds)) if len(kinds) == 1 else "cls+mean"), layers


def described(choices: Mapping[str, FeatureChoice]) -> tuple[list[str], list[int] | list[list[int]]]:
    """Kinds and layers as a result records them: the layers in lists of their own where there is a choice of them."""
    kinds = list(dict.fromkeys(choice.kind for choice in choices.values()))
    sets = list(dict.fromkeys(choice.layers for choice in choices.values()))
    return kinds, list(sets[0]) if len(sets) == 1 else [list(layers) for layers in sets]


def _layer_sets(cache: FeatureCache, layers: Layers) -> list[tuple[int, ...]]:
    stored = cache.layers
    if layers == "last":
        return [stored[-1:]]
    if layers != "auto":
        return [tuple(sorted({cache.layer_number(n) for n in layers}))]
    last = stored[-BLOCKS:]
    consecutive = len(last) == BLOCKS and last[-1] - last[0] == BLOCKS - 1
    if consecutive and all((layer, "cls_token") in _arrays(cache) for layer in last):
        return [stored[-1:], last]
    return [stored[-1:]]


def _kinds(cache: FeatureCache, features: str, layer_sets: list[tuple[int, ...]]) -> tuple[str, ...]:
    if features != "auto":
        if features not in VECTORS:
            raise suggest("vector", features, ("auto", *VECTORS))
        return (features,)
    stored, needed = _arrays(cache), {layer for layers in layer_sets for layer in layers}
    has_cls = bool(needed) and all((layer, "cls_token") in stored for layer in needed)
    has_mean = bool(needed) and (max(needed), "patch_mean") in stored
    if has_cls:
        return ("cls", "cls+mean") if has_mean else ("cls",)
    return ("mean",) if has_mean else ("pooled",)


def _check_pooled(cache: FeatureCache, kinds: tuple[str, ...]) -> None:
    """Raise for a pooled vector that the store does not hold."""
    stored = {kind for _, kind in _arrays(cache)}
    if "pooled" not in kinds or "pooled" in stored:
        return
    held = [name for name in ("cls", "mean") if VECTORS[name][0] in stored]
    raise InputError(
        f"{cache.path.name} holds no pooled vector of the backbone's own, but {' and '.join(held)}; use --features {held[0]}."
    )


def _check_arrays(cache: FeatureCache, kinds: tuple[str, ...], layer_sets: list[tuple[int, ...]]) -> None:
    """Raise for tokens of a layer that the store does not hold."""
    stored = _arrays(cache)
    for layers, kind in product(layer_sets, kinds):
        for part in VECTORS[kind] if kind != "pooled" else ():
            for layer in layers if part == "cls_token" else layers[-1:]:
                if (layer, part) not in stored:
                    held = sorted(f"layer_{n}/{name}" if n else name for n, name in stored)
                    raise InputError(
                        f"{cache.path.name} holds no layer_{layer}/{part}, but {', '.join(held)}: choose among these with "
                        "--features and --layers, or extract with --tokens cls,mean where its backbone has both."
                    )


def _check_layers(cache: FeatureCache, features: str, layers: Layers, kinds: tuple[str, ...]) -> None:
    """Raise for layers that were asked for by number, and that these features leave unread."""
    if isinstance(layers, str):  # `last` and `auto` name none
        return
    if kinds == ("pooled",):
        raise InputError("pooled features are of no layer; leave --layers out.")
    if len({cache.layer_number(n) for n in layers}) > 1 and kinds == ("mean",):
        why = (
            ""
            if features == "mean"
            else f", and {cache.path.name} does not hold the CLS tokens of all that are asked for"
        )
        raise InputError(
            f"mean features are of one layer{why}; several layers set their CLS tokens side by side: name one."
        )


def _arrays(cache: FeatureCache) -> set[tuple[int, str]]:
    return {(a.layer, a.kind) for p in cache.passes for a in p.arrays}


def _name(choice: FeatureChoice, scale: str) -> str:
    """`cls`, `cls+mean of layers 9, 10, 11, 12`, `cls, standardized`."""
    layers = f" of layers {', '.join(map(str, choice.layers))}" if len(choice.layers) > 1 else ""
    return choice.kind + layers + (f", {'' if choice.standardize else 'not '}{scale}" if scale else "")

"""`embedcache backbones`: which families and checkpoints there are, and what is known of one of them."""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcache.backbones import describe_backbone, image_recipe, list_backbones
from embedcache.backbones.carried import WeightFile, weights_in
from embedcache.backbones.hub import page
from embedcache.backbones.known import KNOWN, KnownBackbone, find_known
from embedcache.backbones.loading import Loading, try_loading
from embedcache.errors import EmbedcacheError, UnknownNameError, suggest
from embedcache.images.options import VolumeOptions
from embedcache.types import BackboneInfo, TokenKind, Window

FLOAT16_BYTES = 2
NO_FILES = {"patches": "patches:14", "pixels": "pixels:32"}
"""Families without weights, and how one is named."""


@dataclass(frozen=True)
class BackboneFamily:
    """One family that is registered."""

    name: str
    """The `model_type` of its `config.json`, or the word before the colon."""
    named: str
    """How one of its backbones is given."""
    known: tuple[str, ...]
    """Its checkpoints that are known by name."""


@dataclass(frozen=True)
class BackboneCatalogue:
    """Every family, and the checkpoints that are known."""

    families: tuple[BackboneFamily, ...]
    known: tuple[KnownBackbone, ...]


@dataclass(frozen=True)
class LayerShape:
    """One layer of a backbone at one input size."""

    layer: int
    width: int
    grid: tuple[int, ...] | None
    """Patches (y, x), or (z, y, x); None for a layer without patches, or a size that is refused."""


@dataclass(frozen=True)
class BackboneCard:
    """All that can be said of one backbone on this machine."""

    name: str
    family: str
    what: str
    licence: str
    citation: str
    gated: bool
    page: str
    """Where it is described; "" for a local folder and where no hub is known here."""
    study: bool
    paper: str
    parameters: int | None
    """Of what runs, counted on the loaded model, else as known."""
    stored_parameters: int | None
    """Of everything in its weight files, from their headers; None where they are not here or have none."""
    loading: Loading
    known: KnownBackbone | None
    """None for one that is not known by name."""
    info: BackboneInfo | None
    """None where its files are not here."""
    size: tuple[int, ...]
    """The input that `layers` and `image_bytes` are for, (y, x) or (z, y, x); () where its files are not here."""
    size_problem: str
    """Why that size is refused, "" where it is not."""
    layers: tuple[LayerShape, ...]
    image_bytes: Mapping[TokenKind, int]
    """Per image and layer, in float16 at the last layer."""


def describe_backbones() -> BackboneCatalogue:
    """The registered families and the known checkpoints. Imports no torch and looks at no weights."""
    families = tuple(
        BackboneFamily(
            name=name,
            named=NO_FILES.get(name) or ("timm:NAME" if name == "timm" else "hub name or folder"),
            known=tuple(known.name for known in KNOWN if known.family == name),
        )
        for name in list_backbones()
    )
    return BackboneCatalogue(families, KNOWN)


def explain_backbone(
    name: str, *, size: int | None = None, revision: str | None = None, weights: str | None = None
) -> BackboneCard:
    """What one backbone is, which tokens it has, and whether it can load here, which is tried.

    size: a side in pixels other than its own, for the patch grid and the bytes. Raises UnknownNameError for a name that is
    neither known nor to be found here.
    """
    known = find_known(name)
    loading = try_loading(name, revision=revision, weights=weights)
    with weights_in(weights):
        info = _described(name, revision)
    if info is None and known is None:
        if "/" not in name and ":" not in name:
            raise suggest("backbone", name, [k.name for k in KNOWN])
        raise UnknownNameError(f"backbone {name!r} is not known by name, and can not be looked at: {loading.problem}")
    shape, problem = _asked_shape(info, size)
    return BackboneCard(
        name=name,
        family=info.family if info else known.family if known else "",
        what=known.what if known else "",
        licence=(known.licence if known else "") or (info.licence if info else ""),
        citation=known.citation if known else info.citation if info else "",
        gated=known.gated if known else False,
        page=_page(name, info),
        study=known.study if known else False,
        paper=known.paper if known else "",
        parameters=loading.parameters or (known.parameters if known else None),
        stored_parameters=_stored_parameters(info, loading.files),
        loading=loading,
        known=known,
        info=info,
        size=shape,
        size_problem=problem,
        layers=() if info is None else _layers(info, shape, bool(problem)),
        image_bytes={} if info is None or problem else _image_bytes(info, shape),
    )


def _described(name: str, revision: str | None) -> BackboneInfo | None:
    try:
        return describe_backbone(name, revision=revision)
    except EmbedcacheError:
        return None


def _page(name: str, info: BackboneInfo | None) -> str:
    is_local = info is not None and not info.model.revision
    try:
        return "" if is_local else page(name)
    except ImportError:
        return ""


def _asked_shape(info: BackboneInfo | None, size: int | None) -> tuple[tuple[int, ...], str]:
    """The input's shape, and why it is refused."""
    if info is None:
        return (), ""
    shape: tuple[int, ...] = info.shape if size is None else (*info.shape[:-2], size, size)
    try:
        image_recipe(info, Window("range"), size=(shape[-2], shape[-1]), volume=_asked_voxels(info, shape))
        info.grid(shape)
    except EmbedcacheError as error:
        return shape, str(error)
    return shape, ""


def _asked_voxels(info: BackboneInfo, shape: tuple[int, ...]) -> VolumeOptions:
    return VolumeOptions() if info.volume is None else VolumeOptions(size=(info.volume.slices, shape[-2], shape[-1]))


def _layers(info: BackboneInfo, shape: tuple[int, ...], refused: bool) -> tuple[LayerShape, ...]:
    has_patches = "patch_tokens" in info.kinds and not refused
    return tuple(
        LayerShape(i + 1, stage.width, info.grid(shape, i + 1) if has_patches else None)
        for i, stage in enumerate(info.stages)
    )


def _image_bytes(info: BackboneInfo, shape: tuple[int, ...]) -> dict[TokenKind, int]:
    patches = math.prod(info.grid(shape)) if "patch_tokens" in info.kinds else 0
    numbers = {"patch_tokens": patches * info.hidden_size, "pooled": info.pooled_size}
    return {kind: FLOAT16_BYTES * numbers.get(kind, info.hidden_size) for kind in info.kinds}


def _stored_parameters(info: BackboneInfo | None, files: tuple[WeightFile, ...]) -> int | None:
    """The numbers in all safetensors files, from their headers: eight bytes of length, then JSON."""
    tensors = [file.name for file in files if file.name.endswith(".safetensors")]
    if info is None or not tensors:
        return None
    return sum(_header_count(Path(info.folder) / name) for name in tensors)


def _header_count(file: Path) -> int:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")

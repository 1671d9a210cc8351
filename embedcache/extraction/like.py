"""`--like STORE`: a recorded extraction as a configuration, and what differs where it is repeated."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedcache.backbones import asked_attention, recorded_name
from embedcache.backbones.paper import preset_of
from embedcache.backbones.volume_recipe import options_of
from embedcache.datasets.base import DatasetOptions
from embedcache.errors import InputError
from embedcache.extraction.config import BATCH_SIZES, TOKEN_WORDS, ExtractConfig
from embedcache.extraction.prepare import Prepared, id_scheme
from embedcache.extraction.versions import family_versions, minor, software_versions
from embedcache.images.options import parse_plane
from embedcache.images.views import augmentation_text
from embedcache.images.windows import window_text
from embedcache.store.fingerprint import recipe_document
from embedcache.store.reader import FeatureCache
from embedcache.store.root import Root
from embedcache.types import Augmentation, ImageRecipe


@dataclass(frozen=True)
class Difference:
    """One field in which an extraction is not the recorded one."""

    field: str
    """As in `image.window.name`, `model.weights_digest`, `pass.batch_size`, `torch`."""
    recorded: str
    now: str


def config_like(
    store: str | Path,
    dataset: str,
    root: str,
    options: DatasetOptions | None = None,
    **changes: Any,
) -> ExtractConfig:
    """The configuration that repeats what the store records: recipe, tokens, layers, dtypes, batches.

    What a store can not know is given: the dataset's adapter, where it lies, and (as `backbones`) the folder of a local
    backbone. changes: further fields of ExtractConfig that are to differ. Raises InputError, StoreError.
    """
    path = Path(store)
    found = FeatureCache.open(path, allow_partial=True).root
    if not found.passes:
        raise InputError(f"{path.name} holds no tokens yet, so there is nothing to repeat.")
    image, model = found.recipe.image, found.recipe.model
    backbone = recorded_name(model)
    if not changes.get("backbones") and not changes.get("weights") and _is_folder_elsewhere(backbone):
        raise InputError(
            f"{path.name} was made with the weights of a folder called {backbone}, and where that lies no store records; "
            "give its path with --backbone (backbones=)."
        )
    arrays = [spec for p in found.passes.values() for spec in p.arrays]
    first = next(iter(found.passes.values()))
    kinds = {spec.kind for spec in arrays}
    codes = "patch_tokens_int8" in kinds
    words = [word for word, kind in TOKEN_WORDS.items() if kind in kinds or (codes and kind == "patch_tokens")]
    named = options or DatasetOptions()
    config = ExtractConfig(
        dataset=dataset,
        root=root,
        backbones=(backbone,),
        cache=str(path.absolute().parents[2]),
        tokens=",".join(words),
        layers=",".join(str(n) for n in sorted({spec.layer for spec in arrays if spec.layer})),
        dtype="int8" if codes else next(spec.dtype for spec in arrays if spec.dtype != "int8"),
        preset=preset_of(image),
        window=window_text(image.window),
        plane=parse_plane(image.plane) if image.volume is None else "stored",
        time=image.time,
        fit=image.fit,
        size=None if image.fit == "processor" or image.volume is not None else image.size,
        **_whole(image),
        revision=model.revision or None,
        compute_dtype=model.compute_dtype,
        attention=asked_attention(model),
        tf32=model.tf32,
        compiled=model.compiled,
        view=image.view,
        **_drawn(image.augmentation),
        options=named if found.id_scheme == "public" or named.name else replace(named, name=found.dataset.name),
        ids="keep" if found.id_scheme == "kept" else "pseudonym",
        device=first.device_kind,
        batch_size=first.batch_size,
        threads=first.threads,
        rows_per_shard=first.rows_per_shard,
        like=str(store),
    )
    if changes.get("views") and "view" not in changes:
        changes["view"] = None  # all views are asked for, and not the recorded one
    return replace(config, **changes)


def _is_folder_elsewhere(source: str) -> bool:
    """Whether a backbone was a local folder, of which only the name is recorded: hub names have a slash, families a colon."""
    return not {"/", ":"} & set(source) and not Path(source).is_dir()


def _whole(image: ImageRecipe) -> dict[str, Any]:
    """How an encoder of whole volumes saw them."""
    if image.volume is None:
        return {}
    options = options_of(image)
    return {
        "spacing": options.spacing if isinstance(options.spacing, str) else ",".join(map(repr, options.spacing)),
        "volume_size": ",".join(map(str, image.shape)),
        "sliding": options.overlap,
    }


def _drawn(augmentation: Augmentation | None) -> dict[str, Any]:
    if augmentation is None:
        return {}
    return {"view_preset": augmentation_text(augmentation), "view_seed": augmentation.seed}


def what_differs(store: str | Path, prepared: Prepared) -> tuple[Difference, ...]:
    """Each field in which an extraction would not repeat what the store records; () where it repeats it."""
    cache = FeatureCache.open(Path(store), allow_partial=True)
    recorded, now = _flat(recorded_fields(cache.root)), _flat(asked_fields(prepared))
    found = [
        Difference(name, recorded.get(name, "absent"), now.get(name, "absent"))
        for name in sorted({*recorded, *now})
        if recorded.get(name) != now.get(name)
    ]
    then = next((c.versions for p in cache.passes for c in cache.commits(p.id)), {})
    found += [
        Difference(name, then[name], version)
        for name, version in (software_versions() | family_versions(cache.recipe.model.family)).items()
        if name in then and minor(then[name]) != minor(version)
    ]
    return tuple(found)


def recorded_fields(root: Root) -> dict[str, Any]:
    """What a store records of its extraction, as nested values."""
    first = next(iter(root.passes.values()))
    return {
        **recipe_document(root.recipe),
        "dataset": {"name": root.dataset.name, "version": root.dataset.version},
        "identifiers": {"scheme": root.id_scheme, "key_id": root.key_id},
        "selection": root.selection,
        "pass": {"batch_size": first.batch_size, "threads": first.threads, "device_kind": first.device_kind},
    }


def asked_fields(prepared: Prepared) -> dict[str, Any]:
    """The same of an extraction with one backbone that is asked for."""
    config = prepared.config
    return {
        **recipe_document(prepared.stores[0].recipe),
        "dataset": {"name": prepared.dataset.name, "version": prepared.dataset.version},
        "identifiers": {
            "scheme": id_scheme(prepared.dataset, config),
            "key_id": prepared.key.id if prepared.key else "",
        },
        "selection": prepared.selection,
        "pass": {
            "batch_size": config.batch_size or BATCH_SIZES[prepared.stores[0].recipe.image.unit][prepared.device_kind],
            "threads": prepared.threads,
            "device_kind": prepared.device_kind,
        },
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    return dict(_pairs(values, prefix))


def _pairs(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _pairs(value, f"{prefix}{name}.")
        else:
            yield prefix + name, "" if value is None else str(value)

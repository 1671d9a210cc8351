"""`embedcache.embed`: vectors of a few images now, without a cache that stays.

It is an extraction into a temporary cache, whose vectors are then read: what an extraction promises of its tokens holds here.
"""

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedcache.backbones import describe_backbone
from embedcache.datasets.base import DatasetOptions
from embedcache.datasets.index import PrivateIndex
from embedcache.errors import InputError, suggest
from embedcache.extraction.config import ExtractConfig
from embedcache.extraction.job import extract
from embedcache.extraction.named_images import Given, NamedImage, find_images
from embedcache.extraction.prepare import KEPT_IDS
from embedcache.extraction.progress import Listener
from embedcache.images.options import parse_plane
from embedcache.store.catalog import quarantined_rows
from embedcache.store.features import VECTORS
from embedcache.store.files import replace_file
from embedcache.store.fingerprint import canonical, recipe_document
from embedcache.store.layout import OK
from embedcache.store.reader import FeatureCache

SUFFIXES = (".npz", ".parquet")


@dataclass(frozen=True)
class SetAside:
    """A slice that could not be read, or the whole image where `slice` is 0 of one."""

    path: str
    slice: int
    reason: str


@dataclass(frozen=True)
class Embedded:
    """Vectors, a row per image or per slice."""

    features: npt.NDArray[np.float32]
    """(n, d)."""
    path: npt.NDArray[np.str_]
    """(n,): the image, as it was named."""
    slice: npt.NDArray[np.int32]
    """(n,): position in its volume; -1 where the slices were averaged."""
    tokens: str
    """Which vector: `cls`, `mean`, `cls+mean` or `pooled`."""
    layers: tuple[int, ...]
    recipe: Mapping[str, Any]
    """All that decided the values."""
    fingerprint: str
    set_aside: tuple[SetAside, ...]
    """What could not be read. A volume is averaged over its other slices; an image without any other has no row."""

    @property
    def exit_code(self) -> int:
        """1 where something was set aside, else 0."""
        return 1 if self.set_aside else 0

    @property
    def provenance(self) -> dict[str, Any]:
        """What a file of these vectors says of how they were made."""
        return {
            "recipe": self.recipe,
            "fingerprint": self.fingerprint,
            "tokens": self.tokens,
            "layers": list(self.layers),
        }

    def save(self, output: str | Path) -> None:
        """Write a `.npz` (`features`, `path`, `slice`, `provenance` as JSON) or a `.parquet` (a row each, `provenance` in the
        schema's metadata). Raises InputError for another suffix.
        """
        file = check_output(output)
        provenance = canonical(self.provenance)
        buffer = io.BytesIO()
        if file.suffix == ".npz":
            arrays = {"features": self.features, "path": self.path, "slice": self.slice}
            np.savez(buffer, allow_pickle=False, **arrays, provenance=np.array(provenance))
        else:
            flat = pa.array(self.features.ravel(), pa.float32())
            columns = {
                "path": pa.array(self.path.tolist(), pa.string()),
                "slice": pa.array(self.slice, pa.int32()),
                "features": pa.FixedSizeListArray.from_arrays(flat, self.features.shape[1]),
            }
            pq.write_table(pa.table(columns).replace_schema_metadata({"embedcache": provenance}), buffer)
        replace_file(file, buffer.getvalue())


def check_output(output: str | Path) -> Path:
    """The file to write. Raises InputError for another suffix than SUFFIXES, and where its folder is not there."""
    file = Path(output).expanduser()
    if file.suffix not in SUFFIXES:
        raise InputError(f"vectors are written as .npz or .parquet. Got {file.name!r}.")
    if not file.absolute().parent.is_dir():
        raise InputError(f"there is no folder {file.parent} to write {file.name} into; make it first.")
    return file


def embed(
    images: Sequence[Given],
    backbone: str,
    *,
    tokens: str | None = None,
    layers: str = "last",
    window: str = "auto",
    plane: str = "stored",
    size: int | None = None,
    slices: bool = False,
    device: str = "auto",
    compute_dtype: str = "float32",
    weights: str | None = None,
    output: str | Path | None = None,
    listener: Listener | None = None,
) -> Embedded:
    """Vectors of images, float32: one of each image (a volume's slices averaged), or with `slices` one of each slice.

    images: files, folders, globs, or arrays (y, x) and (slice, y, x). tokens: `cls`, `mean`, `cls+mean` or `pooled`; None is
    `cls`, or `mean` of a backbone without a CLS token. layers: as `ExtractConfig.layers`; the CLS tokens of all of them side
    by side, the mean of the last one. Nothing of it stays on disk but `output`, a `.npz` or `.parquet` file that is written if it
    is given. Raises InputError, also where no image can be read.
    """
    if output is not None:
        check_output(output)
    listener = listener or Listener()
    kinds = describe_backbone(backbone, compute_dtype=compute_dtype, weights=weights).kinds
    wanted = tokens or ("cls" if "cls_token" in kinds else "mean")
    if wanted not in VECTORS:
        raise suggest("vector", wanted, VECTORS)
    if kinds == ("patch_tokens",):  # what `extract` would advise is no vector
        raise InputError(f"{backbone} has patch tokens only, and no vector of an image; name another backbone.")
    with tempfile.TemporaryDirectory(prefix="embedcache-embed-") as folder:
        named = find_images(images, Path(folder))
        if not named:
            raise InputError("no image was named; give files, folders or globs.")
        config = ExtractConfig(
            dataset="table",
            root=str(_write_table(Path(folder), named)),
            backbones=(backbone,),
            cache=str(Path(folder) / "cache"),
            tokens=wanted.replace("+", ","),
            layers=layers,
            dtype="float32",
            window=window,
            plane=parse_plane(plane),
            size=size,
            ids="keep",
            options=DatasetOptions(name="embed", id_column="id", patient_column="id", path_column="path"),
            device=device,
            compute_dtype=compute_dtype,
            weights=weights,
        )
        try:
            report = extract(config, Listener(lambda line: _tell(line, listener), listener.progress))
        finally:
            PrivateIndex.open(config.cache_folder / "embed").remove()
        found = _read(FeatureCache.open(report.stores[0].path), named, wanted, slices)
    if output is not None:
        found.save(output)
    return found


def _tell(line: str, listener: Listener) -> None:
    if line != KEPT_IDS:  # nobody receives this cache
        listener.tell(line)


def _write_table(folder: Path, named: Sequence[NamedImage]) -> Path:
    table = folder / "images.parquet"
    ids = [f"{i:08}" for i in range(len(named))]
    pq.write_table(pa.table({"path": [image.path for image in named], "id": ids}), table)
    return table


def _read(cache: FeatureCache, named: Sequence[NamedImage], wanted: str, slices: bool) -> Embedded:
    plan, owner = cache.index.plan, cache.index.plan.owner()
    set_aside = tuple(
        SetAside(named[int(plan.sample_id[owner[row]])].name, int(plan.slice_index[row]), f"{bad.stage}: {bad.reason}")
        for row, bad in sorted(quarantined_rows(cache).items())
    )
    if not (cache.row_status == OK).any():
        raise InputError(f"none of the {len(named)} images can be read; {set_aside[0].path}: {set_aside[0].reason}")
    layers = cache.layers
    found = cache.features(wanted, layers=layers or None, pool=None if slices else "mean")
    return Embedded(
        features=found.X,
        path=np.array([named[int(name)].name for name in found.sample_id]),
        slice=found.slice_index,
        tokens=wanted,
        layers=layers,
        recipe=json.loads(canonical(recipe_document(cache.recipe))),
        fingerprint=cache.fingerprint,
        set_aside=set_aside,
    )

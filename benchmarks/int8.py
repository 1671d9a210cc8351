"""What patch tokens lose as int8, and what they save: on real images, beside the loss of float16 rounding.

The radiographs with lung masks of `patch_linear.py` at 448 px through the trained ViT-S/14 (a trained ViT in DINOv2's
format; not DINOv2's weights), layers 4, 8 and 12, extracted three times: as float32, which is the truth here, float16 and
int8. ratio: bytes of the float16 arrays over bytes of the int8 arrays with their scales. Errors are relative, per token:
the length of the difference over the length of the token. `dice`: `probe patch-linear` on the float16 and on the int8
store, same split and options. Without these images: slices of nilearn's T1 volume, and no Dice.

`--quick`: six images, no Dice. A finished cache is reused.
"""

import argparse
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from common import ROOT, SHARED_DATA, finish
from extract import choose_images
from extract import write_table as write_plain_table
from patch_linear import LAYERS, segment, value, write_table

import embedcache
from embedcache.store import layout
from embedcache.store.quantise import quantise
from embedcache.testing.trained_vit import make_trained_vit

DTYPES: tuple[Literal["float32", "float16", "int8"], ...] = ("float32", "float16", "int8")
RADIOGRAPHS = SHARED_DATA / "cxr_hannover_lungmask"
QUICK_IMAGES = 6
SEEDS = range(2)
DICE_MARGIN = 0.01
WORST_STEP = 0.5 + 127 * 2.0**-11
"""Of a scale: half a step, and the rounding of the scale to float16, 127 times."""


@dataclass(frozen=True)
class Errors:
    """Over all tokens of a layer."""

    median: float
    p999: float
    greatest: float
    cosine: float
    """The least cosine between a token and what is stored of it."""

    @classmethod
    def of(cls, stored: npt.NDArray[Any], truth: npt.NDArray[Any]) -> "Errors":
        """Both (slices, y, x, feature)."""
        a, b = (x.astype(np.float64).reshape(-1, x.shape[-1]) for x in (stored, truth))
        size = np.linalg.norm(b, axis=1)
        error = np.linalg.norm(a - b, axis=1) / size
        cosine = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * size)
        median, p999 = np.quantile(error, [0.5, 0.999])
        return cls(float(median), float(p999), float(error.max()), float(cosine.min()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_IMAGES} images, no Dice")
    parser.add_argument("--backbone", help="a Hugging Face folder; else the trained ViT-S/14 of the tests")
    parser.add_argument("--layers", default=LAYERS)
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--work", help="cache, table and home; else a folder below .benchmark-cache")
    asked = parser.parse_args()
    work = Path(asked.work) if asked.work else ROOT / ".benchmark-cache" / ("int8-quick" if asked.quick else "int8")
    work.mkdir(parents=True, exist_ok=True)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["EMBEDCACHE_HOME"] = str(work / "home")
    table, source = choose_table(work)
    backbone = asked.backbone or str(make_trained_vit(ROOT / ".test-weights" / "trained-vit-s14"))
    stores = {
        dtype: extract(dtype, table, backbone, asked.layers, asked.size, work, QUICK_IMAGES if asked.quick else None)
        for dtype in DTYPES
    }
    caches = {dtype: embedcache.FeatureCache.open(path) for dtype, path in stores.items()}
    size = {dtype: bytes_of(cache) for dtype, cache in caches.items()}
    errors: dict[str, dict[int, Errors]] = {"int8": {}, "float16": {}}
    faithful, bounded = True, True
    for layer in caches["float32"].layers:
        tokens = {dtype: tokens_of(cache, layer) for dtype, cache in caches.items()}
        for dtype, found in errors.items():
            found[layer] = Errors.of(tokens[dtype], tokens["float32"])
        codes, scale = quantise(tokens["float32"], np)
        faithful &= np.array_equal(codes * scale[..., None].astype(np.float32), tokens["int8"])
        bounded &= bool((np.abs(tokens["int8"] - tokens["float32"]).max(axis=-1) <= WORST_STEP * 1.0001 * scale).all())
    for dtype, found in errors.items():
        print(f"| {dtype} | median | 99.9% | greatest | least cosine |")
        for layer, e in found.items():
            print(f"| layer {layer} | {e.median:.2e} | {e.p999:.2e} | {e.greatest:.2e} | 1 - {1 - e.cosine:.1e} |")
    checks = {"quantised_as_the_format_says": faithful, "error_within_a_step": bounded}
    dice: dict[str, list[float]] = {}
    if source == RADIOGRAPHS.name and not asked.quick:
        dice = {d: [value(segment(stores[d], table, seed), "dice") for seed in SEEDS] for d in ("float16", "int8")}
        checks["dice_as_float16"] = bool(np.abs(np.subtract(dice["int8"], dice["float16"])).max() <= DICE_MARGIN)
        print(f"Dice {dice}")
    rows = caches["int8"].root.rows  # those of padding, which take as much, among them
    finish(
        "int8",
        checks,
        ours=size["int8"] / rows,
        baseline=size["float16"] / rows,
        baseline_name="the same patch tokens as float16",
        ratio=round(size["float16"] / size["int8"], 4),
        unit="bytes an image, all layers",
        error=worst(errors["int8"]),
        error_float16=worst(errors["float16"]),
        layers={layer: {d: asdict(found[layer]) for d, found in errors.items()} for layer in errors["int8"]},
        dice={d: [round(v, 4) for v in values] for d, values in dice.items()},
        images=len(caches["int8"].samples()),
        source=source,
    )


def worst(errors: dict[int, Errors]) -> dict[str, float]:
    """Of any layer."""
    found = [asdict(e) for e in errors.values()]
    return {name: (min if name == "cosine" else max)(e[name] for e in found) for name in found[0]}


def choose_table(work: Path) -> tuple[Path, str]:
    """A table of real images: the radiographs, or what is there wherever nilearn is."""
    if RADIOGRAPHS.is_dir():
        return write_table(RADIOGRAPHS, work), RADIOGRAPHS.name
    images, source = choose_images(work, QUICK_IMAGES)
    return write_plain_table(work, images), source


def extract(
    dtype: Literal["float32", "float16", "int8"],
    table: Path,
    backbone: str,
    layers: str,
    size: int,
    work: Path,
    limit: int | None,
) -> Path:
    """The store of one dtype: each has a cache of its own, as an array has one float dtype in a store."""
    report = embedcache.extract(
        embedcache.ExtractConfig(
            dataset="table",
            root=str(table),
            backbones=(backbone,),
            cache=str(work / dtype),
            tokens="patch",
            layers=layers,
            dtype=dtype,
            size=size,
            device="cpu",
            limit=limit,
        )
    )
    print(f"{report.decoded} images extracted as {dtype}: {report.seconds:.0f} s", flush=True)
    return Path(report.stores[0].path)


def tokens_of(cache: embedcache.FeatureCache, layer: int) -> npt.NDArray[Any]:
    """Of the rows that hold an image, as floats."""
    return cache.layer(layer).patch_tokens.rows(np.flatnonzero(cache.row_status == layout.OK))


def bytes_of(cache: embedcache.FeatureCache) -> int:
    """Of all shard objects on disk."""
    arrays = [cache.path / spec.path for p in cache.passes for spec in p.arrays]
    return sum(file.stat().st_size for array in arrays for file in array.rglob("c/**/*") if file.is_file())


if __name__ == "__main__":
    main()

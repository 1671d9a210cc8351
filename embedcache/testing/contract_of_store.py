"""What a store returns must be what the model computed: three small images, or volumes, there and back. Imports torch."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch

from embedcache.backbones import image_recipe
from embedcache.backbones.preprocess import preprocess
from embedcache.backbones.volume_input import volume_input
from embedcache.datasets.base import DatasetOptions
from embedcache.extraction.config import ExtractConfig
from embedcache.extraction.job import extract
from embedcache.store.reader import FeatureCache
from embedcache.testing.backbone_subject import EVERYTHING, Subject, Tokens, apart
from embedcache.testing.files import write_nifti, write_png
from embedcache.types import Calibration, Volume, Window

SAMPLES = 3
SPACING = (2.0, 1.5, 1.0)
"""mm between the voxels of the volumes along (z, y, x)."""
WHITE = 255.0
Pixels = npt.NDArray[np.uint8]


def of_store(subjects: Sequence[Subject], settings: Mapping[str, str]) -> Iterator[str]:
    """Backbones of slices, or of volumes, share one extraction, each at its own size."""
    slices = [subject for subject in subjects if subject.info.volume is None]
    volumes = [subject for subject in subjects if subject.info.volume is not None]
    rng = np.random.default_rng(1)
    if slices:
        pictures = [rng.integers(0, 256, (50, 40), dtype=np.uint8) for _ in range(SAMPLES)]
        yield from _round_trip(slices, pictures, settings)
    if volumes:
        stacks = [rng.integers(0, 256, (12 + i, 20, 30 - i), dtype=np.uint8) for i in range(SAMPLES)]
        yield from _round_trip(volumes, stacks, settings)


def _round_trip(subjects: Sequence[Subject], samples: Sequence[Pixels], settings: Mapping[str, str]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, {"EMBEDCACHE_HOME": folder}):
        root = Path(folder)
        names = [_write(root / str(i), pixels) for i, pixels in enumerate(samples)]
        lines = ["path,case", *(f"{name},case{i}" for i, name in enumerate(names))]
        (root / "cases.csv").write_text("\n".join(lines) + "\n")
        config = ExtractConfig(
            dataset="table",
            root=str(root / "cases.csv"),
            backbones=tuple(subject.info.name for subject in subjects),
            cache=str(root / "cache"),
            tokens=EVERYTHING,
            layers="all",
            dtype="float32",
            window="range",
            options=DatasetOptions(id_column="case"),
            ids="keep",
            device=str(subjects[0].device),
            batch_size=4,
            threads=torch.get_num_threads(),
            workers=1,
            **settings,  # type: ignore[arg-type]  # strings, which is what these fields are
        )
        report = extract(config)
        if report.exit_code:
            yield f"an extraction of three {_what(samples)} ends with exit code {report.exit_code}"
            return
        for subject in subjects:
            info = subject.info
            (path,) = Path(config.cache).glob(f"*/{info.store_name}/*.zarr")
            stored = _stored(FeatureCache.open(path), len(samples))
            computed = subject.tokens(torch.cat([_input(subject, pixels) for pixels in samples]))
            for line in apart(computed, stored, "computed and of the store"):
                yield f"{info.store_name}: {line}"


def _what(samples: Sequence[Pixels]) -> str:
    return "images" if samples[0].ndim == 2 else "volumes"


def _write(path: Path, pixels: Pixels) -> str:
    """A PNG of (y, x), or a NIfTI file of (z, y, x), whose voxels lie as they do in NIfTI: to the right, anterior, superior."""
    if pixels.ndim == 2:
        return write_png(path.with_suffix(".png"), pixels).name
    voxels = np.ascontiguousarray(pixels.transpose(2, 1, 0)[::-1, ::-1])
    return write_nifti(path.with_suffix(".nii"), voxels, np.diag([*SPACING[::-1], 1.0])).name


def _input(subject: Subject, pixels: Pixels) -> torch.Tensor:
    """What an extraction makes of one sample."""
    image = image_recipe(subject.info, Window("range"))
    n = 1 if pixels.ndim == 2 else len(pixels)
    calibration, limits = Calibration(np.ones(n), np.zeros(n)), np.tile([[[0.0, WHITE]]], (n, 1, 1))
    if pixels.ndim == 2:
        return preprocess(Volume(pixels[np.newaxis], calibration, "raster"), limits, image, subject.device)
    return volume_input(Volume(pixels, calibration, "nifti", spacing=SPACING), limits, image, subject.device)


def _stored(cache: FeatureCache, n: int) -> Tokens:
    """By path, the rows of `case0`, `case1`, … in this order."""
    plan = cache.index.plan
    ids = plan.sample_id.tolist()
    rows = [int(plan.slice_start[ids.index(f"case{i}")]) for i in range(n)]
    specs = [spec for p in cache.passes for spec in p.arrays]
    return {spec.path: torch.from_numpy(cache.tokens(spec.layer, spec.kind).rows(rows)) for spec in specs}

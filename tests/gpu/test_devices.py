"""What a device computes is what the CPU computes, within DESIGN's bounds: preprocessing, every captured family, extraction."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import embedcache
from embedcache import ExtractConfig
from embedcache.backbones import describe_backbone, load_backbone
from embedcache.backbones.device import prepare_device
from embedcache.backbones.preprocess import preprocess
from embedcache.extraction.config import asked_arrays
from embedcache.extraction.device_check import check_device
from embedcache.extraction.recompute import FLOAT32_LIMITS
from embedcache.store.reader import FeatureCache
from embedcache.testing.files import write_png
from embedcache.testing.tiny_backbones import make_tiny_backbone, tiny_families
from embedcache.types import Calibration, ImageRecipe, Volume, Window

pytestmark = pytest.mark.gpu
PIXELS = 1e-5
"""Of an input in [0, 1]: a resize is a few hundred float32 operations."""


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest relative L2 difference of a token."""
    a, b = a.double().cpu(), b.double().cpu()
    return float(((a - b).norm(dim=-1) / b.norm(dim=-1).clamp_min(1e-30)).max())


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
@pytest.mark.parametrize("side", [(300, 200), (40, 60)])
def test_preprocessing(device: str, dtype: str, side: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 200, (3, *side)).astype(dtype)
    ones = np.ones(3)
    volume = Volume(pixels, Calibration(2.0 * ones, -5.0 * ones, invert=True), "raster")
    limits = np.tile(np.array([10.0, 300.0]), (3, 1, 1))
    image = ImageRecipe(Window("range"), (112, 112), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    expected = preprocess(volume, limits, image, "cpu")
    found = preprocess(volume, limits, image, prepare_device(device, 1))
    assert found.device.type == torch.device(device).type
    assert float((found.cpu() - expected).abs().max()) <= PIXELS / 0.2


@pytest.mark.parametrize("family", tiny_families())
def test_every_family(device: str, family: str, tmp_path: Path) -> None:
    """Last layer and first, all kinds of tokens, in float32 with TF32 off."""
    info = describe_backbone(str(make_tiny_backbone(family, tmp_path / "model")))
    config = ExtractConfig("table", "", ("x",), tokens="cls,mean,patch,pooled", layers=f"1,{info.layers}")
    arrays = asked_arrays(config, info, info.shape)
    channels = 3 if info.volume is None else 1
    x = torch.randn(3, channels, *info.shape, generator=torch.Generator().manual_seed(0))
    expected = load_backbone(info).tokens(x, arrays)
    where = prepare_device(device, 1)
    found = load_backbone(info, device).tokens(x.to(where), arrays)
    for spec in arrays:
        assert found[spec.path].device.type == where.type
        assert difference(found[spec.path], expected[spec.path]) <= FLOAT32_LIMITS[spec.kind], spec.path


@pytest.mark.parametrize("compute_dtype", ["bfloat16", "float16"])
def test_sixteen_bits_are_near(device: str, compute_dtype: str, tiny: Path) -> None:
    if device == "cpu" and compute_dtype == "float16":
        pytest.skip("float16 is for GPUs")
    info = describe_backbone(str(tiny), compute_dtype=compute_dtype)
    arrays = asked_arrays(ExtractConfig("table", "", ("x",)), info, info.size)
    x = torch.randn(4, 3, *info.size, generator=torch.Generator().manual_seed(0))
    expected = load_backbone(describe_backbone(str(tiny))).tokens(x, arrays)
    found = load_backbone(info, device).tokens(x.to(device), arrays)
    assert all(difference(found[a.path], expected[a.path]) < 2**-5 for a in arrays)


def test_an_extraction(device: str, tiny: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["path,label"]
    for i in range(20):
        write_png(tmp_path / f"{i}.png", rng.integers(0, 255, (70, 60)).astype(np.uint8))
        lines.append(f"{i}.png,{i % 2}")
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    config = ExtractConfig(
        "table", str(tmp_path / "cases.csv"), (str(tiny),), cache=str(tmp_path / "there"), tokens="cls,patch",
        dtype="float32", ids="keep", device=device, batch_size=8, workers=1,
    )  # fmt: skip
    reference = replace(config, cache=str(tmp_path / "cpu"), device="cpu", batch_size=3)
    stores = []
    for c in (config, reference):
        report = embedcache.extract(c)
        assert report.exit_code == 0
        stores.append(FeatureCache.open(report.stores[0].path))
    ours, theirs = stores
    good = ours.row_status == 1
    assert int(good.sum()) == 20
    for kind in ("cls_token", "patch_tokens"):
        a, b = (torch.from_numpy(s.tokens(2, kind).read()[good]) for s in (ours, theirs))
        assert difference(a, b) <= FLOAT32_LIMITS[kind]


def test_the_doctor(device: str, tiny: Path) -> None:
    report = check_device(device, (str(tiny),))
    assert report.device == device
    assert report.problems == ()
    assert all(speed.share > 0 for b in report.backbones for speed in b.speeds)

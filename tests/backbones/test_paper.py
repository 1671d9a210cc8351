"""Preset `paper`: the study's resize and intensities against numpy, DINOv2's positions against the bicubic formula."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import embedcache
from embedcache.backbones import describe_backbone, image_recipe, load_backbone
from embedcache.backbones.paper import OFFSET, RESIZE, preset_of, window_in
from embedcache.backbones.preprocess import preprocess
from embedcache.errors import InputError, UnknownNameError
from embedcache.images.windows import parse_window
from embedcache.store.reader import FeatureCache
from embedcache.testing.files import write_png
from embedcache.testing.tiny_backbones import make_tiny_backbone
from embedcache.testing.tiny_monai import make_monai_vit
from embedcache.types import ArraySpec, Calibration, Volume, Window

A = -0.75
"""The free parameter of bicubic interpolation, as torch and DINOv2's own code have it (Keys 1981 has -.5)."""


def cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    d = np.abs(distance)
    near = (A + 2) * d**3 - (A + 3) * d**2 + 1
    far = A * d**3 - 5 * A * d**2 + 8 * A * d - 4 * A
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def weights(source: int, target: int, scale: float) -> NDArray[np.float64]:
    """(target, source): bicubic without antialias, pixel i of the target sampled at (i + .5) / scale - .5."""
    at = (np.arange(target) + 0.5) / scale - 0.5
    table = np.zeros((target, source))
    for offset in range(-1, 3):
        index = np.floor(at).astype(int) + offset
        np.add.at(table, (np.arange(target), np.clip(index, 0, source - 1)), cubic(at - index))
    return table


# --- the image --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(150, 90), (20, 31), (56, 56)])
def test_no_antialias_no_clamp_then_lowest_to_highest(tiny: Path, shape: tuple[int, int]) -> None:
    info = describe_backbone(str(tiny), preset="paper")
    pixels = np.random.default_rng(0).integers(20, 200, (2, *shape), dtype=np.uint8)
    volume = Volume(pixels, Calibration(np.ones(2), np.zeros(2)), "raster")
    image = image_recipe(info, Window("range"))
    found = preprocess(volume, np.tile([[[0.0, 255.0]]], (2, 1, 1)), image, "cpu").numpy()
    rows, columns = (weights(side, 56, 56 / side) for side in shape)
    for i in range(2):
        resized = rows @ (pixels[i] / 255) @ columns.T
        stretched = (resized - resized.min()) / (resized.max() - resized.min())
        for channel in range(3):
            expected = (stretched - info.mean[channel]) / info.std[channel]
            assert np.abs(found[i, channel] - expected).max() < 1e-4  # float32, over a standard deviation of .22


def test_a_constant_image_is_black(tiny: Path) -> None:
    info = describe_backbone(str(tiny), preset="paper")
    volume = Volume(np.full((1, 30, 30), 7, dtype=np.uint8), Calibration(np.ones(1), np.zeros(1)), "raster")
    found = preprocess(volume, np.array([[[0.0, 255.0]]]), image_recipe(info, Window("range")), "cpu")
    assert torch.allclose(found, (-torch.tensor(info.mean) / torch.tensor(info.std)).view(1, 3, 1, 1).expand_as(found))


def test_every_backbone_gets_imagenets_numbers(tmp_path: Path) -> None:
    name = make_tiny_backbone("siglip", tmp_path / "siglip")
    own, paper = describe_backbone(name), describe_backbone(name, preset="paper")
    assert own.mean != paper.mean == (0.485, 0.456, 0.406)
    assert (paper.std, paper.resize) == ((0.229, 0.224, 0.225), RESIZE)
    assert paper.model == own.model  # only DINOv2 fits its positions in another way
    assert (preset_of(image_recipe(own, Window("range"))), preset_of(image_recipe(paper, Window("range")))) == (
        "default",
        "paper",
    )


def test_pixels_stay_pixels() -> None:
    info = describe_backbone("pixels:16", preset="paper")
    assert (info.mean, info.std, info.resize) == ((0.0,) * 3, (1.0,) * 3, RESIZE)


def test_windows_of_the_study_yield_to_what_is_asked() -> None:
    assert window_in("paper", "amos22", "auto") == "-212/1624"
    assert parse_window("-212/1624").numbers == ((-212.0, 1624.0),)  # HU from -1024 to 600
    assert window_in("paper", "amos22", "ct-lung") == "ct-lung"
    assert window_in("paper", "nih-cxr14", "auto") == window_in("default", "amos22", "auto") == "auto"


def test_an_unknown_preset_names_the_nearest(tiny: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown preset 'papers'; did you mean 'paper'\?"):
        describe_backbone(str(tiny), preset="papers")
    with pytest.raises(UnknownNameError, match="unknown preset"):
        embedcache.ExtractConfig("table", "cases.csv", (str(tiny),), preset="study")


def test_encoders_of_volumes_have_no_such_preset(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    name = str(make_monai_vit(tmp_path / "monai"))
    with pytest.raises(InputError, match="preset paper is of slices"):
        describe_backbone(name, preset="paper")


# --- DINOv2's positions -----------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(3, 5), (6, 6), (2, 2)])
def test_dinov2s_positions_have_its_offset(tiny: Path, grid: tuple[int, int]) -> None:
    backbone = load_backbone(describe_backbone(str(tiny), preset="paper"))
    embeddings = backbone.model.embeddings  # type: ignore[attr-defined]
    positions = embeddings.position_embeddings.detach()
    tokens = torch.zeros(1, 1 + grid[0] * grid[1], 32)
    found = embeddings.interpolate_pos_encoding(tokens, 14 * grid[0], 14 * grid[1])[0].numpy()
    assert np.array_equal(found[0], positions[0, 0].numpy())
    trained = positions[0, 1:].reshape(4, 4, 32).numpy().astype(np.float64)
    rows, columns = (weights(4, cells, (cells + 0.1) / 4) for cells in grid)
    expected = np.einsum("ya,xb,abe->yxe", rows, columns, trained).reshape(-1, 32)
    assert np.abs(found[1:] - expected).max() < 1e-5


def test_at_the_native_grid_nothing_is_fitted(tiny: Path) -> None:
    own, paper = (load_backbone(describe_backbone(str(tiny), preset=preset)) for preset in ("default", "paper"))
    assert paper.info.model.position_interpolation == OFFSET
    cls = ArraySpec(2, "cls_token", "float32", (32,))

    def tokens(backbone: embedcache.backbones.Backbone, side: int) -> torch.Tensor:
        x = torch.randn((1, 3, side, side), generator=torch.Generator().manual_seed(0))
        return backbone.tokens(x, [cls])[cls.path]

    assert torch.equal(tokens(own, 56), tokens(paper, 56))
    assert not torch.allclose(tokens(own, 84), tokens(paper, 84), atol=1e-4)


def test_registers_keep_their_own_way(tiny_registers: Path) -> None:
    """DINOv2's own code gives its models with registers the antialias filter and no offset, as transformers does."""
    info = describe_backbone(str(tiny_registers), preset="paper")
    assert info.model.position_interpolation == "transformers-bicubic-antialias"


# --- an extraction ----------------------------------------------------------------------------------


def test_an_extraction_records_it_tells_it_and_is_repeated(tiny: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.random.default_rng(1).integers(0, 256, (30, 40), dtype=np.uint8))
    (tmp_path / "cases.csv").write_text("path\na.png\n")

    def run(preset: str) -> tuple[Path, list[str]]:
        told: list[str] = []
        config = embedcache.ExtractConfig(
            "table", str(tmp_path / "cases.csv"), (str(tiny),), cache=str(tmp_path / "cache"), preset=preset, workers=1
        )
        report = embedcache.extract(config, embedcache.Listener(tell=told.append))
        return Path(report.stores[0].path), told

    plain, told = run("default")
    assert not any("preset" in line for line in told)
    paper, told = run("paper")
    assert paper != plain
    (line,) = [line for line in told if "preset" in line]
    assert "resize torch-bicubic-min-max" in line
    assert OFFSET in line
    recipe = FeatureCache.open(paper).recipe
    assert (recipe.image.resize, recipe.model.position_interpolation) == (RESIZE, OFFSET)
    again = embedcache.config_like(paper, "table", str(tmp_path / "cases.csv"), backbones=(str(tiny),))
    assert again.preset == "paper"
    assert Path(embedcache.extract(again).stores[0].path) == paper

"""Encoders of whole volumes: what they tell of themselves, and their tokens beside MONAI's own forward pass."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from embedcache.backbones import Backbone, describe_backbone, image_recipe, load_backbone
from embedcache.backbones.monai_config import Axes
from embedcache.backbones.monai_encoder import MonaiEncoder, from_model, in_model, to_model, window_starts
from embedcache.errors import InputError
from embedcache.images.options import VolumeOptions
from embedcache.testing.tiny_monai import SWIN, VIT, make_monai_vit
from embedcache.types import ArraySpec, BackboneInfo, VolumeInput, Window

SIZE = (32, 24, 16)
"""(z, y, x) of the tiny ViT."""


def loaded(folder: Path) -> Backbone:
    return load_backbone(describe_backbone(str(folder)))


def everything(info: BackboneInfo, size: tuple[int, int, int]) -> list[ArraySpec]:
    return [
        ArraySpec(n, kind, "float32", (*info.grid(size, n), stage.width) if kind == "patch_tokens" else (stage.width,))
        for n, stage in enumerate(info.stages, start=1)
        for kind in info.kinds
    ]


def with_config(folder: Path, to: Path, **changes: Any) -> Path:
    """The same weights under another configuration; None takes a key away."""
    to.mkdir()
    config = json.loads((folder / "config.json").read_text()) | changes
    (to / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    (to / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    return to


# --- what is told of them ---------------------------------------------------------------------------


def test_a_vit_is_described_along_z_y_x(vit3d: Path) -> None:
    info = describe_backbone(str(vit3d))
    assert (info.family, info.layers, info.hidden_size, info.shape) == ("monai_vit", 3, 24, SIZE)
    assert info.stages[0].strides == (8, 8, 4)
    assert info.grid(SIZE) == (4, 3, 4)
    assert info.volume == VolumeInput(32, (2.0, 1.5, 1.0))
    assert (info.window, info.mean, info.std, info.fixed_size) == ("-100/500", (0.0,), (1.0,), True)
    assert info.kinds == ("cls_token", "patch_mean", "patch_tokens")
    assert "unstated origin" in info.citation


def test_a_swin_unetr_is_described_stage_by_stage(swin3d: Path) -> None:
    info = describe_backbone(str(swin3d))
    assert [(s.width, s.stride) for s in info.stages] == [(24, 4), (48, 8), (96, 16), (192, 32)]
    assert info.grid((64, 32, 96), 1) == (16, 8, 24)
    assert info.volume == VolumeInput(32, None)
    with pytest.raises(InputError, match=r"input size 64x32x90 is no multiple of .* patch size 32; use 64x32x64"):
        info.grid((64, 32, 90))


def test_describing_imports_no_torch(vit3d: Path, swin3d: Path) -> None:
    script = (
        "import sys; from embedcache.backbones import describe_backbone\n"
        f"for name in ({str(vit3d)!r}, {str(swin3d)!r}): describe_backbone(name)\n"
        "print([name for name in ('torch', 'monai', 'transformers') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_size": None}, "img_size must be a whole number"),
        ({"img_size": [16, 24]}, "img_size must be a whole number"),
        ({"patch_size": 7}, "is no multiple of patch_size"),
        ({"in_channels": 2}, "takes 2 channels; only 1"),
        ({"spatial_dims": 2}, "model of 2 dimensions"),
        ({"orientation": "RAX"}, "three letters"),
        ({"orientation": "RLS"}, "three letters"),
        ({"spacing": "fine"}, "spacing must be mm"),
        ({"spacing": [1, 1, 0]}, "above 0 mm"),
        ({"std": 0}, "std must be a number above 0"),
        ({"window": "ct-three"}, "several channels"),
        ({"window": "ct-lungs"}, "ct-lung"),
    ],
)
def test_a_configuration_that_says_no_volume_model_is_refused(
    vit3d: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((InputError, KeyError), match=message):
        describe_backbone(str(with_config(vit3d, tmp_path / "wrong", **changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"depths": [1, 1]}, "depths must be 4"), ({"img_size": 48}, "no multiple"), ({"normalize": False}, "normalize")],
)
def test_a_swin_unetr_that_is_another_is_refused(
    swin3d: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        describe_backbone(str(with_config(swin3d, tmp_path / "wrong", **changes)))


# --- recipes ----------------------------------------------------------------------------------------


def test_a_recipe_takes_the_models_own_spacing_size_and_window(vit3d: Path) -> None:
    info = describe_backbone(str(vit3d))
    own = image_recipe(info, Window("auto"), size=(224, 224), plane="coronal")
    assert (own.shape, own.unit, own.plane, own.channels, own.fit) == (SIZE, "volume", "axial", 1, "pad")
    assert own.window.numbers == ((-100.0, 500.0),)
    assert own.volume == VolumeInput(32, (2.0, 1.5, 1.0))
    other = image_recipe(info, Window("min-max"), volume=VolumeOptions(spacing="none"))
    assert (other.fit, other.window) == ("squash", Window("min-max", scope="volume"))
    slid = image_recipe(info, Window("auto"), volume=VolumeOptions((1.0, 1.0, 1.0), (64, 24, 32), 0.25))
    assert slid.volume == VolumeInput(64, (1.0, 1.0, 1.0), roi=SIZE, overlap=0.25)
    assert slid.shape == (64, 24, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"volume": VolumeOptions(size=(64, 24, 16))}, "sees 32x24x16 voxels .* no more and no less; .*--sliding 0.5"),
        ({"volume": VolumeOptions(size=(32, 16, 16), overlap=0.5)}, "larger --volume-size"),
        ({"volume": VolumeOptions(size=(32, 24, 18), overlap=0.5)}, "is no multiple of .* patch size 8x8x4"),
        ({"volume": VolumeOptions(overlap=0.5)}, "--volume-size"),
        ({"fit": "processor"}, "no processor's crop"),
        ({"view": 1}, "no views"),
        ({"window": Window("ct-three", numbers=((0.0, 1.0),) * 3)}, "has 3 channels"),
    ],
)
def test_an_input_that_the_model_can_not_take_is_refused(vit3d: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        image_recipe(describe_backbone(str(vit3d)), **({"window": Window("auto")} | options))


def test_options_that_make_no_sense_are_refused() -> None:
    for wrong in ({"overlap": 1.0}, {"size": (0, 1, 1)}, {"spacing": (1.0, 0.0, 1.0)}):
        with pytest.raises(InputError):
            VolumeOptions(**wrong)  # type: ignore[arg-type]


# --- parity -----------------------------------------------------------------------------------------


def ras(x: torch.Tensor) -> torch.Tensor:
    """(n, c, z, y, x), which point to superior, posterior and left, with axes right, anterior, superior."""
    return x.flip(3, 4).permute(0, 1, 4, 3, 2)


def as_stored(maps: torch.Tensor) -> torch.Tensor:
    """(n, E, right, anterior, superior) as tokens (n, z, y, x, E)."""
    return maps.permute(0, 4, 3, 2, 1).flip(2, 3)


def test_a_vits_tokens_are_monais_own_hidden_states_behind_its_norm(vit3d: Path) -> None:
    from monai.networks.nets.vit import ViT

    reference = ViT(in_channels=1, **VIT).eval()
    reference.load_state_dict(load_file(vit3d / "model.safetensors"))
    backbone = loaded(vit3d)
    x = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(5))
    tokens = backbone.tokens(x, everything(backbone.info, SIZE))
    with torch.inference_mode():
        _, hidden = reference(ras(x))
        all_normed = [reference.norm(state) for state in hidden]
    for layer, normed in enumerate(all_normed, start=1):
        torch.testing.assert_close(tokens[f"layer_{layer}/cls_token"], normed[:, 0])
        patches = as_stored(normed[:, 1:].transpose(1, 2).unflatten(2, (4, 3, 4)))
        torch.testing.assert_close(tokens[f"layer_{layer}/patch_tokens"], patches)
        torch.testing.assert_close(tokens[f"layer_{layer}/patch_mean"], patches.mean(dim=(1, 2, 3)))


@pytest.mark.usefixtures("vit3d")  # which skips without MONAI
def test_a_vit_without_a_cls_token_gives_what_its_forward_pass_returns(tmp_path: Path) -> None:
    from monai.networks.nets.vit import ViT

    folder = make_monai_vit(tmp_path / "plain", classification=False, orientation="LPS")
    reference = ViT(in_channels=1, **{**VIT, "classification": False}).eval()
    reference.load_state_dict(load_file(folder / "model.safetensors"))
    backbone = loaded(folder)
    assert backbone.info.kinds == ("patch_mean", "patch_tokens")
    x = torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(6))
    tokens = backbone.tokens(x, everything(backbone.info, SIZE))["layer_3/patch_tokens"]
    with torch.inference_mode():
        last, _ = reference(x.permute(0, 1, 4, 3, 2))  # left, posterior, superior: x, y and z as they are
    torch.testing.assert_close(tokens, last.transpose(1, 2).unflatten(2, (4, 3, 4)).permute(0, 4, 3, 2, 1))


def test_a_swins_tokens_are_what_its_decoder_gets(swin3d: Path) -> None:
    from monai.networks.nets.swin_unetr import SwinUNETR

    sizes = {name: value for name, value in SWIN.items() if name != "img_size"}
    reference = SwinUNETR(in_channels=1, out_channels=2, **sizes).eval()
    reference.load_state_dict(load_file(swin3d / "model.safetensors"))
    got: list[list[torch.Tensor]] = []
    reference.swinViT.register_forward_hook(lambda _m, _i, out: got.append(out))
    backbone = loaded(swin3d)
    for size in ((32, 32, 32), (64, 32, 32)):  # its own, and one other
        x = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(7))
        tokens = backbone.tokens(x, everything(backbone.info, size))
        with torch.inference_mode():
            reference.swinViT(ras(x), reference.normalize)
        for layer, maps in enumerate(got.pop()[1:], start=1):
            patches = as_stored(maps)
            torch.testing.assert_close(tokens[f"layer_{layer}/patch_tokens"], patches)
            torch.testing.assert_close(tokens[f"layer_{layer}/patch_mean"], patches.mean(dim=(1, 2, 3)))


@pytest.mark.usefixtures("vit3d")
@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SPL", "PIR", "ASL"])
def test_a_bright_cube_that_moves_is_followed_by_its_patch(orientation: str, tmp_path: Path) -> None:
    size = {"R": 16, "L": 16, "A": 24, "P": 24, "S": 32, "I": 32}
    patch = {"R": 4, "L": 4, "A": 8, "P": 8, "S": 8, "I": 8}
    folder = make_monai_vit(
        tmp_path / "turned",
        orientation=orientation,
        img_size=[size[letter] for letter in orientation],
        patch_size=[patch[letter] for letter in orientation],
        num_layers=1,
    )
    backbone = loaded(folder)
    asked = [ArraySpec(1, "patch_tokens", "float32", (4, 3, 4, 24))]
    dark = torch.zeros(1, 1, *SIZE)
    base = backbone.tokens(dark, asked)["layer_1/patch_tokens"]
    for z, y, x in ((0, 0, 0), (3, 1, 2), (2, 2, 3)):
        lit = dark.clone()
        lit[..., 8 * z : 8 * z + 8, 8 * y : 8 * y + 8, 4 * x : 4 * x + 4] = 3
        moved = (backbone.tokens(lit, asked)["layer_1/patch_tokens"] - base).norm(dim=-1)[0]
        assert np.unravel_index(int(moved.argmax()), moved.shape) == (z, y, x)


def test_a_layer_alone_and_a_batch_of_one_are_the_same(vit3d: Path) -> None:
    backbone = loaded(vit3d)
    x = torch.rand(3, 1, *SIZE, generator=torch.Generator().manual_seed(8))
    all_of_it = backbone.tokens(x, everything(backbone.info, SIZE))
    one = backbone.tokens(x[1:2], [ArraySpec(2, "cls_token", "float32", (24,))])
    torch.testing.assert_close(one["layer_2/cls_token"], all_of_it["layer_2/cls_token"][1:2], atol=1e-5, rtol=1e-5)


# --- windows ----------------------------------------------------------------------------------------


def test_windows_lie_on_the_patch_grid_share_enough_and_end_with_the_input() -> None:
    starts = list(window_starts((80, 24, 20), (32, 24, 16), (8, 8, 4), 0.3))
    assert sorted({z for z, _, _ in starts}) == [0, 16, 32, 48]
    assert {y for _, y, _ in starts} == {0}
    assert sorted({x for _, _, x in starts}) == [0, 4]
    assert list(window_starts((32, 24, 16), (32, 24, 16), (8, 8, 4), 0.9)) == [(0, 0, 0)]


def slid(backbone: Backbone, roi: tuple[int, int, int], overlap: float) -> MonaiEncoder:
    assert isinstance(backbone, MonaiEncoder)
    assert backbone.info.volume is not None
    return replace(
        backbone, info=replace(backbone.info, volume=replace(backbone.info.volume, roi=roi, overlap=overlap))
    )


def test_sliding_tokens_are_the_mean_of_what_each_window_shows(vit3d: Path) -> None:
    backbone = loaded(vit3d)
    x = torch.rand(1, 1, 48, 24, 16, generator=torch.Generator().manual_seed(9))
    specs = everything(backbone.info, (48, 24, 16))
    got = slid(backbone, SIZE, 0.5).tokens(x, specs)
    parts = [backbone.tokens(x[:, :, z : z + 32], everything(backbone.info, SIZE)) for z in (0, 16)]
    first, second = (part["layer_3/patch_tokens"] for part in parts)
    tokens = got["layer_3/patch_tokens"]
    torch.testing.assert_close(tokens[:, :2], first[:, :2])
    torch.testing.assert_close(tokens[:, 2:4], (first[:, 2:] + second[:, :2]) / 2)
    torch.testing.assert_close(tokens[:, 4:], second[:, 2:])
    torch.testing.assert_close(got["layer_3/patch_mean"], tokens.mean(dim=(1, 2, 3)))
    mean = (parts[0]["layer_3/cls_token"] + parts[1]["layer_3/cls_token"]) / 2
    torch.testing.assert_close(got["layer_3/cls_token"], mean)


def test_every_stage_of_a_swin_is_stitched_on_its_own_grid(swin3d: Path) -> None:
    backbone = loaded(swin3d)
    x = torch.rand(1, 1, 64, 32, 64, generator=torch.Generator().manual_seed(10))
    got = slid(backbone, (32, 32, 32), 0.0).tokens(x, everything(backbone.info, (64, 32, 64)))
    corner = backbone.tokens(x[..., 32:, :, 32:], everything(backbone.info, (32, 32, 32)))
    for layer, n in ((1, 8), (2, 4), (3, 2), (4, 1)):
        path = f"layer_{layer}/patch_tokens"
        torch.testing.assert_close(got[path][:, n:, :, n:], corner[path])


def test_an_input_of_another_size_is_refused(vit3d: Path, swin3d: Path) -> None:
    with pytest.raises(InputError, match=r"takes .* voxels .* only"):
        loaded(vit3d).tokens(torch.zeros(1, 1, 64, 24, 16), [ArraySpec(1, "cls_token", "float32", (24,))])
    with pytest.raises(InputError, match="has no cls_token"):
        loaded(swin3d).tokens(torch.zeros(1, 1, 32, 32, 32), [ArraySpec(1, "cls_token", "float32", (24,))])
    with pytest.raises(InputError, match="has layers 1 to 4"):
        loaded(swin3d).tokens(torch.zeros(1, 1, 32, 32, 32), [ArraySpec(5, "patch_mean", "float32", (24,))])


def test_axes_go_forth_and_back() -> None:
    x = torch.rand(2, 1, 3, 4, 5)
    for orientation in ("RAS", "LPI", "SAR", "PRI"):
        axes = Axes.named(orientation, "made")
        turned = to_model(x, axes)
        assert tuple(turned.shape[2:]) == in_model((3, 4, 5), axes)
        torch.testing.assert_close(from_model(turned, axes), x, rtol=0, atol=0)
    torch.testing.assert_close(to_model(x, Axes.named("RAS", "made")), ras(x), rtol=0, atol=0)

"""`check_backbone` over all families on tiny models of their real classes, and over models that are broken on purpose."""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedcache.backbones import describe_backbone, list_backbones, load_backbone
from embedcache.backbones.captured import CapturedBackbone
from embedcache.errors import TokenOverflowError
from embedcache.extraction.stored import stored_tokens
from embedcache.testing import backbone_contract as contract
from embedcache.testing import check_backbone, contract_of_tokens, make_tiny_backbone, tiny_families
from embedcache.testing.backbone_contract import breaches_of
from embedcache.testing.backbone_subject import Subject, everything
from embedcache.testing.tiny_timm import make_tiny_open_clip, make_tiny_timm, tiny_timm_kinds
from embedcache.types import ArraySpec

from .altered import Altered, breaches, patches

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = tiny_families()
PARTS = 3
"""One extraction serves several families, and xdist may share the parts."""


@pytest.mark.parametrize("part", range(PARTS))
def test_every_family_holds_to_the_contract(part: int, tmp_path: Path) -> None:
    check_backbone(*(make_tiny_backbone(family, tmp_path / family) for family in FAMILIES[part::PARTS]))


@pytest.mark.slow  # four kinds are in the main suite: test_timm_parity.py
@pytest.mark.parametrize("part", range(2))
def test_every_kind_of_timms_models_holds_to_the_contract(part: int, tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="timm is an extra of its own")
    made = [make_tiny_timm(kind, tmp_path / kind) for kind in tiny_timm_kinds()[part::2]]
    check_backbone(*made, *([make_tiny_open_clip(tmp_path / "open_clip")] if part else []))


def test_the_floors_hold_to_the_contract() -> None:
    check_backbone("pixels:32", "patches:14")


def test_encoders_of_volumes_hold_to_the_contract(vit3d: Path, swin3d: Path) -> None:
    check_backbone(str(vit3d), str(swin3d))


def test_every_family_that_is_registered_is_held_to_it() -> None:
    """By the tests above."""
    held = {*FAMILIES, "timm", "open_clip", "pixels", "patches", "monai_vit", "monai_swin_unetr"}
    assert set(list_backbones()) == held


def test_other_settings_hold_to_the_contract(models: Callable[[str], Path]) -> None:
    check_backbone(str(models("vit")), str(models("swin")), attention="eager")


# --- what it must catch -----------------------------------------------------------------------------


def test_rows_and_columns_exchanged(models: Callable[[str], Path]) -> None:
    def transposed(path: str, values: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        if not patches(path):
            return values
        n, y, x, width = values.shape
        return values.transpose(1, 2).reshape(n, y, x, width)

    found = breaches(models("vit"), transposed)
    assert any(line.startswith("layer_1/patch_tokens: of 16 squares ") for line in found)


def test_hieras_own_order_of_tokens(models: Callable[[str], Path]) -> None:
    """As they leave the model: what forgetting to roll them would store."""
    loaded = load_backbone(describe_backbone(str(models("hiera"))))
    assert isinstance(loaded, CapturedBackbone)
    raw = replace(loaded, structure=replace(loaded.structure, arrange=None, layout="tokens"))
    found = list(breaches_of(Subject(raw, torch.device("cpu"))))
    layers = {line.partition(":")[0] for line in found if "do not show where" in line}
    assert layers == {"layer_1/patch_tokens", "layer_2/patch_tokens", "layer_3/patch_tokens"}


def test_a_map_that_is_one_patch_off(models: Callable[[str], Path]) -> None:
    def shifted(path: str, values: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return torch.cat([values[:, 1:], values[:, -1:]], dim=1) if patches(path) else values

    found = breaches(models("swin"), shifted)
    assert any(
        line.startswith("layer_3/patch_tokens: squares show -1.0 patches along y, +0.0 patches along x")
        for line in found
    )


def test_patches_shuffled_as_a_masked_autoencoder_does(models: Callable[[str], Path]) -> None:
    def shuffled(path: str, values: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        if not patches(path):
            return values
        flat = values.flatten(1, 2)
        return flat[:, torch.randperm(flat.shape[1])].reshape(values.shape)

    found = breaches(models("vit_mae"), shuffled)
    assert any("differs when computed twice" in line for line in found)
    assert any("do not show where they are" in line for line in found)


def test_an_image_that_sees_the_others_of_its_batch(models: Callable[[str], Path]) -> None:
    def mixed(path: str, values: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return values + 1e-3 * values.mean(dim=0)

    found = breaches(models("vit"), mixed)
    assert any("differs when with other images in the batch" in line for line in found)
    assert any("of an image alone is" in line for line in found)


def test_a_model_that_works_in_its_input(models: Callable[[str], Path]) -> None:
    found = breaches(models("vit"), lambda path, values, x: values + 0 * x.mul_(0.5).sum())
    assert "it changes its input" in found


def test_tokens_of_another_type_or_shape(models: Callable[[str], Path]) -> None:
    found = breaches(models("vit"), lambda path, values, _: values.half())
    assert any(
        "layer_1/cls_token at 32x32 is torch.float16 of shape (2, 32), and float32 (2, 32) was told" in b for b in found
    )
    found = breaches(models("vit"), lambda path, values, _: values.double() if "mean" in path else values)
    assert any("patch_mean at 32x32 is torch.float64" in line for line in found)


def test_layers_that_are_one(models: Callable[[str], Path]) -> None:
    found = breaches(models("vit"), lambda path, values, x: torch.ones_like(values) * x.mean())
    assert "layer_1/cls_token and layer_2/cls_token are the same" in found


def test_a_number_that_hides(models: Callable[[str], Path]) -> None:
    found = breaches(models("vit"), lambda path, values, _: torch.nan_to_num(values))
    assert "layer_3/patch_tokens of an image of NaN is stored as if it were tokens" in found


def test_a_constant_image_that_is_no_number(models: Callable[[str], Path]) -> None:
    def standardised(path: str, values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return values / x.std()

    found = breaches(models("vit"), standardised)
    assert any("of a constant image of 0.0 is not finite" in line for line in found)


def test_a_load_that_draws_weights(models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    other = load_backbone(describe_backbone(str(models("vit_mae"))))
    monkeypatch.setattr(contract_of_tokens, "load_backbone", lambda *_: other)
    found = breaches(models("vit"))
    assert any("differs when loaded twice" in line for line in found)


def test_what_is_told_and_is_not_so(models: Callable[[str], Path]) -> None:
    assert any("its kinds are" in line for line in breaches(models("clip"), kinds=("cls_token",)))
    assert any("does not say what norm" in line for line in breaches(models("vit"), norm=""))
    assert any("std above 0" in line for line in breaches(models("vit"), std=(1.0, 0.0, 1.0)))


def test_a_size_that_ends_in_another_error(models: Callable[[str], Path]) -> None:
    def fails(path: str, values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] > 2 * x.shape[-2]:
            raise RuntimeError("no such size")
        return values

    class Careless(Altered):
        def tokens(self, x: torch.Tensor, arrays: Sequence[ArraySpec]) -> dict[str, torch.Tensor]:
            if x.shape[-1] % 8:
                raise RuntimeError("shapes do not match")
            return super().tokens(x, arrays)

    loaded = load_backbone(describe_backbone(str(models("vit"))))
    careless = Careless(loaded, lambda path, values, _: values)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Subject, "arrays", lambda self, size: everything(self.info, (32, 32)))
        found = list(contract_of_tokens.of_odd_sizes(Subject(careless, torch.device("cpu"))))
    assert "an input of 32x39 ends in RuntimeError, and not in an InputError" in found


def test_a_family_that_another_process_can_not_describe(tmp_path: Path) -> None:
    (line,) = contract._of_describing([str(tmp_path / "nowhere")], {})
    assert "another process can not describe them" in line


def test_a_description_that_imports_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package's own family, found by its entry point."""
    package = tmp_path / "careless-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: careless\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[embedcache.backbones]\ncareless = careless:describe\n")
    (tmp_path / "careless.py").write_text(
        "import torch\nfrom embedcache.backbones.pixels import describe as of_pixels\n"
        "def describe(argument, **settings): return of_pixels(argument, **settings)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    assert list(contract._of_describing(["careless:8"], {})) == ["describing them imports torch"]
    assert list(contract._of_describing(["pixels:8"], {})) == []


def test_the_error_names_the_backbone_and_every_breach(
    models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract, "breaches_of", lambda subject: ["first", "second"])
    monkeypatch.setattr(contract, "of_store", lambda *_: [])
    with pytest.raises(AssertionError, match=r"backbones break their contract: vit: first; vit: second"):
        check_backbone(str(models("vit")))


@pytest.mark.parametrize("family", ["vit", "swin", "resnet", "sam"])
def test_weights_that_are_no_numbers_are_caught_by_the_layers_name(
    models: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    """In the second half of the model: the layers before it can be stored, those behind it can not."""
    folder = shutil.copytree(models(family), tmp_path / family)
    weights = load_file(folder / "model.safetensors")
    block = {"vit": ".layer.1.", "swin": "encoder.layers.1.", "resnet": "stages.1.", "sam": "vision_encoder.layers.1."}[
        family
    ]
    name = next(n for n in weights if block in n and n.endswith("weight") and weights[n].ndim > 1)
    weights[name][0] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    backbone = load_backbone(describe_backbone(str(folder)))
    arrays = [a for a in everything(backbone.info, backbone.info.size) if a.kind == "patch_tokens"]
    found = backbone.tokens(torch.zeros(1, 3, *backbone.info.size), arrays)
    assert len(list(stored_tokens(found, torch.zeros(1, dtype=torch.long), arrays[:1], "it"))) == 1
    for spec in arrays[1:]:
        with pytest.raises(TokenOverflowError, match=rf"^{spec.path} of it holds values that float32 can not, or NaN"):
            list(stored_tokens(found, torch.zeros(1, dtype=torch.long), [spec], "it"))

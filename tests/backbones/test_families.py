"""What is particular to a family: its numbers, its checkpoints' names, and what its architecture can not take."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedcache.backbones import FAMILIES, describe_backbone, load_backbone
from embedcache.backbones.captured import CapturedBackbone, load_captured
from embedcache.backbones.description import processor_geometry
from embedcache.backbones.hiera import rolled
from embedcache.backbones.siglip import cut_into_patches
from embedcache.backbones.structure import Structure
from embedcache.backbones.weights import find_weights
from embedcache.errors import InputError, UnknownNameError
from embedcache.testing import make_tiny_backbone, tiny_families
from embedcache.testing.backbone_subject import everything, relative_l2
from embedcache.types import BackboneInfo, Stage

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENS = {"cls_token", "patch_mean", "patch_tokens"}
PATCHES = {"patch_mean", "patch_tokens"}


def edited(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of a model's folder with other entries in its configuration."""
    shutil.copytree(folder, target)
    document = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**document, **changes}))
    return target


def renamed(folder: Path, target: Path, rename: Callable[[str], str | None]) -> Path:
    """A copy of a model's folder whose weights have other names; None leaves one out."""
    shutil.copytree(folder, target)
    weights = {rename(name): values for name, values in load_file(folder / "model.safetensors").items()}
    save_file({k: v for k, v in weights.items() if k}, target / "model.safetensors", {"format": "pt"})
    return target


def all_tokens(folder: Path, size: tuple[int, int] | None = None, seed: int = 0) -> dict[str, torch.Tensor]:
    """Every layer and kind of two images of noise."""
    backbone = load_backbone(describe_backbone(str(folder)))
    return tokens_of(backbone, size, seed)


def tokens_of(backbone: Any, size: tuple[int, int] | None = None, seed: int = 0) -> dict[str, torch.Tensor]:
    size = size or backbone.info.size
    x = torch.randn((2, 3, *size), generator=torch.Generator().manual_seed(seed))
    found: dict[str, torch.Tensor] = backbone.tokens(x, everything(backbone.info, size))
    return found


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[path], b[path]) for path in a)


# --- what is told -----------------------------------------------------------------------------------

PLAIN = (Stage(32, 8),) * 3
HALVING = (Stage(16, 4), Stage(24, 8), Stage(32, 16), Stage(40, 32))


@pytest.mark.parametrize(
    ("family", "stages", "registers", "kinds", "pooled", "positions", "attention"),
    [
        ("clip", PLAIN, 0, {*TOKENS, "pooled"}, 24, "transformers-bicubic", "sdpa"),
        ("clip_vision_model", PLAIN, 0, TOKENS, 0, "transformers-bicubic", "sdpa"),
        ("convnext", HALVING, 0, {*PATCHES, "pooled"}, 40, "none", "none"),
        ("convnextv2", HALVING, 0, {*PATCHES, "pooled"}, 40, "none", "none"),
        ("dinov3_convnext", HALVING, 0, {*PATCHES, "pooled"}, 40, "none", "none"),
        ("dinov3_vit", PLAIN, 3, TOKENS, 0, "rotary", "sdpa"),
        (
            "hiera",
            (Stage(16, 4), Stage(32, 8), Stage(64, 16), Stage(128, 32)),
            0,
            {*PATCHES, "pooled"},
            128,
            "transformers-bicubic",
            "eager",
        ),
        ("ijepa", PLAIN, 0, PATCHES, 0, "transformers-bicubic", "sdpa"),
        ("resnet", HALVING, 0, PATCHES, 0, "none", "none"),
        ("sam", ((Stage(32, 16),) * 3 + (Stage(24, 16),)), 0, PATCHES, 0, "none: one size", "sdpa"),
        ("siglip", PLAIN, 0, {*PATCHES, "pooled"}, 32, "transformers-bicubic", "sdpa"),
        ("siglip2", PLAIN, 0, {*PATCHES, "pooled"}, 32, "transformers-bilinear-antialias", "sdpa"),
        ("swin", (Stage(16, 4), Stage(32, 8), Stage(64, 16)), 0, PATCHES, 0, "none: relative to a window", "sdpa"),
        ("swinv2", (Stage(16, 4), Stage(32, 8), Stage(64, 16)), 0, PATCHES, 0, "none: relative to a window", "eager"),
        ("vit_mae", PLAIN, 0, TOKENS, 0, "transformers-bicubic", "sdpa"),
    ],
)
def test_the_numbers_of_a_family(
    models: Callable[[str], Path],
    family: str,
    stages: tuple[Stage, ...],
    registers: int,
    kinds: set[str],
    pooled: int,
    positions: str,
    attention: str,
) -> None:
    info = describe_backbone(str(models(family)))
    assert (info.family, info.stages, info.registers) == (family, stages, registers)
    assert (set(info.kinds), info.pooled_size) == (kinds, pooled)
    assert (info.model.position_interpolation, info.model.attention) == (positions, attention)
    assert info.norm
    assert info.fixed_size == (family == "sam")
    assert (info.mean, info.std) == ((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))


@pytest.mark.parametrize("family", tiny_families())
def test_without_a_processor_a_family_knows_its_own_numbers(
    models: Callable[[str], Path], family: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(models(family), tmp_path / "bare")
    processor = folder / "preprocessor_config.json"
    if not processor.exists():
        pytest.skip("its models come without one")
    processor.unlink()
    info = describe_backbone(str(folder))
    assert info.grid(info.size)
    assert all(0 < v < 1 for v in (*info.mean, *info.std))


def origins() -> list[tuple[str, str, str, str]]:
    """Hub name, family, licence, first author of the citation."""
    return [
        ("facebook/vit-mae-large", "vit_mae", "CC-BY-NC-4.0", "He et al."),
        ("google/vit-large-patch16-224-in21k", "vit", "Apache-2.0", "Dosovitskiy"),
        ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "clip", "MIT", "Cherti"),
        ("openai/clip-vit-large-patch14", "clip", "MIT", "Radford"),
        ("google/siglip2-base-patch16-224", "siglip", "Apache-2.0", "Tschannen"),
        ("google/siglip-so400m-patch14-384", "siglip", "Apache-2.0", "Zhai"),
        ("google/medsiglip-448", "siglip", "Health AI Developer Foundations terms of use", "Sellergren"),
        ("facebook/dinov3-vitl16-pretrain-lvd1689m", "dinov3_vit", "DINOv3 License", "Siméoni"),
        ("facebook/sam-vit-large", "sam", "Apache-2.0", "Kirillov"),
        ("wanglab/medsam-vit-base", "sam", "Apache-2.0", "Ma et al."),
        ("microsoft/rad-dino", "dinov2", "MIT (earlier revisions: MSRLA)", "Pérez-García"),
        ("facebook/dinov2-large", "dinov2", "Apache-2.0", "Oquab"),
        ("somebody/their-own-swin", "swin", "", "weights of an unstated origin"),
    ]


@pytest.mark.parametrize(("source", "family", "licence", "citation"), origins())
def test_published_weights_are_cited(
    models: Callable[[str], Path], source: str, family: str, licence: str, citation: str
) -> None:
    weights = replace(find_weights(str(models(family))), source=source)
    info: BackboneInfo = FAMILIES.load(family)(weights, compute_dtype="float32", attention="sdpa")
    assert info.licence == licence
    assert info.citation.startswith(citation)


@pytest.mark.parametrize(
    ("processor", "size", "crop"),
    [
        # SAM: the long side, then a border; a ViT's old form of a square; DINOv3's spelt-out nothing
        ({"size": {"longest_edge": 1024}, "pad_size": {"height": 1024, "width": 1024}}, {"longest_edge": 1024}, 1024),
        ({"size": 224}, {"height": 224, "width": 224}, 224),
        ({"size": {"height": 224, "width": 224}, "do_center_crop": None, "crop_size": None}, None, 224),
        # ConvNeXt's processor: below 384 a crop of a larger image, from there on the image squashed
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, {"shortest_edge": 256}, 224),
        ({"size": 224, "feature_extractor_type": "ConvNextFeatureExtractor"}, {"shortest_edge": 256}, 224),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, {"height": 384, "width": 384}, 384),
    ],
)
def test_the_processors_of_the_families(processor: dict[str, Any], size: dict[str, int] | None, crop: int) -> None:
    geometry = processor_geometry(processor, {"height": 224, "width": 224}, None)
    assert geometry["size"] == (size or processor["size"])
    assert geometry["crop_size"] == {"height": crop, "width": crop}
    assert geometry["do_center_crop"] == (geometry["size"] == {"shortest_edge": 256})


def test_convnexts_processor_crops_as_transformers_does() -> None:
    import numpy as np
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

    from embedcache.images.geometry import place

    for edge in (224, 384):
        processor = {"size": {"shortest_edge": edge}, "crop_pct": 0.875}
        image = np.zeros((3, 500, 400), np.uint8)
        expected = ConvNextImageProcessorPil(**processor)(image, return_tensors="np")["pixel_values"].shape[-2:]
        assert place(500, 400, expected, "processor", processor_geometry(processor)).size == expected


# --- checkpoints as they come -----------------------------------------------------------------------


def test_a_masked_autoencoder_needs_nothing_of_its_decoder(models: Callable[[str], Path], tmp_path: Path) -> None:
    folder = models("vit_mae")
    names = load_file(folder / "model.safetensors").keys()
    assert {name.partition(".")[0] for name in names} == {"vit", "decoder"}
    bare = renamed(folder, tmp_path / "encoder", lambda name: name if name.startswith("vit.") else None)
    assert same(all_tokens(bare), all_tokens(folder))


@pytest.mark.parametrize("family", ["clip_vision_model", "siglip_vision_model", "siglip2_vision_model"])
def test_an_image_tower_saved_by_an_earlier_transformers(
    models: Callable[[str], Path], family: str, tmp_path: Path
) -> None:
    """Its names began with `vision_model.`, as those of the whole model still do."""
    older = renamed(models(family), tmp_path / "older", lambda name: f"vision_model.{name}")
    assert same(all_tokens(older), all_tokens(models(family)))


@pytest.mark.parametrize(("whole", "part"), [("siglip", "siglip_vision_model"), ("sam", "sam_vision_model")])
def test_a_whole_model_is_its_image_tower(models: Callable[[str], Path], whole: str, part: str, tmp_path: Path) -> None:
    folder = models(whole)
    tower = renamed(folder, tmp_path / "tower", lambda name: name if name.startswith("vision") else None)
    config = json.loads((folder / "config.json").read_text())["vision_config"]
    (tower / "config.json").write_text(json.dumps({**config, "model_type": part}))
    assert describe_backbone(str(tower)).family == part
    assert same(all_tokens(tower), all_tokens(folder))


def test_clip_with_its_projection_alone(models: Callable[[str], Path], tmp_path: Path) -> None:
    """As image encoders are passed around: one tower and the projection, named by its architecture."""
    folder = models("clip")
    tower = renamed(
        folder, tmp_path / "tower", lambda name: name if name.startswith("visi") or "visual" in name else None
    )
    config = json.loads((folder / "config.json").read_text())["vision_config"]
    told = {**config, "model_type": "clip_vision_model", "architectures": ["CLIPVisionModelWithProjection"]}
    (tower / "config.json").write_text(json.dumps(told))
    assert same(all_tokens(tower), all_tokens(folder))


def test_the_length_of_clips_embedding_is_that_of_both_towers(models: Callable[[str], Path], tmp_path: Path) -> None:
    config = json.loads((models("clip") / "config.json").read_text())
    del config["vision_config"]["projection_dim"]
    folder = edited(models("clip"), tmp_path / "partial", vision_config=config["vision_config"])
    assert describe_backbone(str(folder)).pooled_size == 24
    assert same(all_tokens(folder), all_tokens(models("clip")))


def test_hiera_of_a_masked_autoencoder_has_no_pooled_vector(models: Callable[[str], Path], tmp_path: Path) -> None:
    folder = renamed(models("hiera"), tmp_path / "mae", lambda name: None if "pooler" in name else name)
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**document, "architectures": ["HieraForPreTraining"]}))
    found, expected = all_tokens(folder), all_tokens(models("hiera"))
    assert "pooled" not in found
    del expected["pooled"]
    assert same(found, expected)


def test_siglip_without_its_head(models: Callable[[str], Path], tmp_path: Path) -> None:
    folder = renamed(
        models("siglip_vision_model"), tmp_path / "headless", lambda name: None if name.startswith("head.") else name
    )
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**document, "vision_use_head": False}))
    assert describe_backbone(str(folder)).kinds == ("patch_mean", "patch_tokens")
    assert "pooled" not in all_tokens(folder)


@pytest.mark.parametrize("family", ["clip", "swin", "sam", "resnet", "hiera"])
def test_weights_with_a_hole_are_refused(models: Callable[[str], Path], family: str, tmp_path: Path) -> None:
    names = list(load_file(models(family) / "model.safetensors"))
    lost = next(
        n for n in names if ("vision" in n or family not in ("clip", "sam")) and n.endswith("weight") and ".0." in n
    )
    folder = renamed(models(family), tmp_path / "holes", lambda name: None if name == lost else name)
    with pytest.raises(InputError, match=r"do not fit its config\.json: 1 parameters absent"):
        load_backbone(describe_backbone(str(folder)))


# --- what an architecture can not take --------------------------------------------------------------


def test_sam_takes_its_own_size_only(models: Callable[[str], Path]) -> None:
    backbone = load_backbone(describe_backbone(str(models("sam"))))
    with pytest.raises(InputError, match=r"takes 64x64 only\. Got 32x32"):
        backbone.tokens(torch.zeros(1, 3, 32, 32), everything(backbone.info, (64, 64)))


def test_swin_takes_nothing_smaller_than_its_window(models: Callable[[str], Path]) -> None:
    info = describe_backbone(str(models("swin")))
    assert info.smallest_side == 48
    with pytest.raises(InputError, match=r"takes no side below 48 pixels\. Got 32x64; use 48 or more"):
        info.grid((32, 64))
    assert info.grid((48, 64)) == (3, 4)


def test_swins_tokens_do_not_depend_on_what_it_saw_before(models: Callable[[str], Path]) -> None:
    """transformers' Swin keeps the window that it clamps to a small image; ours gives it back."""
    fresh, used = (load_backbone(describe_backbone(str(models("swin")))) for _ in range(2))
    tokens_of(used, (48, 48))
    assert same(tokens_of(fresh, (96, 96)), tokens_of(used, (96, 96)))
    assert isinstance(used, CapturedBackbone)
    for stage in used.model.get_submodule("encoder.layers").children():
        for block in stage.get_submodule("blocks").children():
            block._forward_pre_hooks.clear()
    tokens_of(used, (48, 48))
    assert not same(tokens_of(fresh, (96, 96)), tokens_of(used, (96, 96)))


@pytest.mark.parametrize(
    ("family", "changes", "line"),
    [
        ("swinv2", {"use_absolute_embeddings": True}, "has absolute position embeddings"),
        ("hiera", {"num_query_pool": 2}, "is a Hiera whose stages do not each halve"),
        ("hiera", {"masked_unit_size": [4, 4]}, "is a Hiera whose stages do not each halve"),
        ("convnext", {"num_channels": 1}, "takes 1 channels"),
        ("dinov3_vit", {"patch_size": [8, 16]}, "only square ones are supported"),
    ],
)
def test_architectures_that_are_not_supported(
    models: Callable[[str], Path], tmp_path: Path, family: str, changes: dict[str, Any], line: str
) -> None:
    with pytest.raises(InputError, match=line):
        describe_backbone(str(edited(models(family), tmp_path / "odd", **changes)))


def test_an_architecture_that_this_transformers_lacks(
    models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    info = describe_backbone(str(models("swin")))
    monkeypatch.setattr(transformers.SwinModel, "_supports_sdpa", False)
    with pytest.raises(InputError, match="has no sdpa for SwinModel; use --attention eager"):
        load_backbone(info)
    with pytest.raises(InputError, match=r"has no NoSuchModel, which .* needs; install a later version"):
        load_captured(info, Structure("NoSuchModel", blocks=("layers",)), "cpu")
    with pytest.raises(InputError, match="builds IJepaModel without blocks or stages; install a version that"):
        load_captured(
            describe_backbone(str(models("ijepa"))), Structure("IJepaModel", blocks=("blocks", "stages")), "cpu"
        )


# --- orders of tokens -------------------------------------------------------------------------------


def test_hieras_order_is_that_of_transformers_unroll() -> None:
    from transformers.models.hiera.modeling_hiera import unroll

    y, x = 24, 40
    numbers = torch.arange(2 * y * x * 3.0).reshape(2, y * x, 3)
    mixed = unroll(numbers, (4 * y, 4 * x), (4, 4), [[2, 2]] * 3)
    assert not torch.equal(mixed, numbers)
    assert torch.equal(rolled(mixed, (y // 8, x // 8)), numbers.reshape(2, y, x, 3))
    last = torch.arange(2 * 15 * 3.0).reshape(2, 15, 3)
    assert torch.equal(rolled(last, (3, 5)), last.reshape(2, 3, 5, 3))


def test_naflex_patches_are_cut_as_transformers_cuts_them() -> None:
    from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

    x = torch.randn(2, 3, 32, 48)
    cut = cut_into_patches(x, 16)
    expected = torch.stack([torch.from_numpy(convert_image_to_patches(image.numpy(), 16)) for image in x])
    assert torch.equal(cut["pixel_values"], expected)
    assert cut["spatial_shapes"].tolist() == [[2, 3], [2, 3]]


@pytest.mark.parametrize("family", ["clip", "dinov3_vit", "sam", "siglip", "swin"])
def test_sdpa_and_eager_agree_within_the_promised_bounds(models: Callable[[str], Path], family: str) -> None:
    sdpa, eager = (
        tokens_of(load_backbone(describe_backbone(str(models(family)), attention=attention)))
        for attention in ("sdpa", "eager")
    )
    assert sdpa.keys() == eager.keys()
    for path in sdpa:
        assert relative_l2(sdpa[path], eager[path]) <= (1e-4 if path.endswith("patch_tokens") else 1e-5)


# --- the maker of tiny models -----------------------------------------------------------------------


def test_tiny_models_follow_their_seed(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> bytes:
        return (Path(make_tiny_backbone("resnet", tmp_path / name, seed)) / "model.safetensors").read_bytes()

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = weights("a", 3)
    assert torch.equal(torch.rand(3), expected), "the random state is left alone"
    assert first == weights("b", 3)
    assert first != weights("c", 4)
    with pytest.raises(UnknownNameError, match="did you mean 'resnet'"):
        make_tiny_backbone("resnets", tmp_path / "d")


def test_every_family_of_transformers_can_be_made_tiny() -> None:
    """What is registered besides has no files (the floors), or its own makers (`tiny_timm`, `tiny_monai`)."""
    others = {"pixels", "patches", "timm", "open_clip", "monai_vit", "monai_swin_unetr"}
    assert set(tiny_families()) == set(FAMILIES.builtin) - others

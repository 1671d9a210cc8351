"""Parity with timm's own forward passes, on a tiny model of each kind of architecture, loaded by timm's own loader."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from embedcache.backbones import describe_backbone, load_backbone
from embedcache.backbones.timm_torch import TimmBackbone
from embedcache.errors import InputError
from embedcache.testing.backbone_contract import check_backbone
from embedcache.testing.backbone_subject import relative_l2
from embedcache.testing.tiny_timm import make_tiny_timm, tiny_timm_kinds
from embedcache.types import ArraySpec, TokenKind

timm = pytest.importorskip("timm", reason="pip install --no-deps timm torchvision")

CLS_BOUND, PATCH_BOUND = 1e-5, 1e-4
"""Relative L2 per token between two ways of computing the same float32 tokens: what the project promises."""
WITH_CLASS_TOKEN = ("vit", "vit-registers", "dinov3", "beit")
VITS = (*WITH_CLASS_TOKEN, "siglip")
OF_FIXED_SIZE = ("beit", "hiera", "swin")
SIZED_AT_BIRTH = ("vit", "vit-registers", "siglip", "dinov3")
"""Their reference at another size is built for it by timm, which fits the positions when it loads the weights."""
OTHER = {"vit": (32, 72), "vit-registers": (32, 72), "siglip": (32, 72), "dinov3": (32, 72), "sam": (48, 80)}
"""Another size that is no square; (96, 64) elsewhere."""


IN_THE_CONTRACT = [kind for kind in tiny_timm_kinds() if kind != "efficientnet-lite"]
"""Without the random EfficientNet, whose sixteen blocks lose where a square was; test_trained_cnn.py has the trained one."""


def marks_of(kind: str) -> list[pytest.MarkDecorator]:
    """Half a minute each is for the slow suite; of those that are quick some are for the main one."""
    return [] if kind in ("convnext", "resnet", "siglip", "vit") else [pytest.mark.slow]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("timm")


@pytest.fixture(params=tiny_timm_kinds())
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@functools.cache  # nothing changes a folder or a loaded backbone
def made(folders: Path, kind: str) -> str:
    return make_tiny_timm(kind, folders / kind)


@functools.cache
def load(folder: str, attention: str = "sdpa") -> TimmBackbone:
    backbone = load_backbone(describe_backbone(folder, attention=attention))
    assert isinstance(backbone, TimmBackbone)
    return backbone


def reference(folder: str, kind: str, size: tuple[int, int]) -> Any:
    """By timm's own loader of local folders, at `size`."""
    options = {"img_size": size} if kind in SIZED_AT_BIRTH else {}
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **options).eval()


def sizes(backbone: TimmBackbone, kind: str) -> list[tuple[int, int]]:
    native = backbone.info.size
    return [native] if kind in OF_FIXED_SIZE else [native, OTHER.get(kind, (96, 64))]


def pictures(n: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn((n, 3, *size), generator=torch.Generator().manual_seed(seed))


def tokens(backbone: TimmBackbone, x: torch.Tensor, *wanted: tuple[int, TokenKind]) -> list[torch.Tensor]:
    arrays = [ArraySpec(layer, kind, "float32", (1,)) for layer, kind in wanted]
    found = backbone.tokens(x, arrays)
    return [found[spec.path] for spec in arrays]


def as_rows(output: torch.Tensor, kind: str, patches: int) -> torch.Tensor:
    """(n, patches, E) of what a module of timm's returns."""
    if output.ndim == 4:
        channels_last = kind == "swin" or (kind == "sam" and output.shape[1] != 24)
        output = output.flatten(1, 2) if channels_last else output.flatten(2).transpose(1, 2)
    return output[:, -patches:]


# --- parity -----------------------------------------------------------------------------------------


@torch.inference_mode()
def test_the_last_layer_is_timms_forward_features(folders: Path, kind: str) -> None:
    backbone = load(made(folders, kind))
    last = backbone.info.layers
    for size in sizes(backbone, kind):
        x = pictures(2, size)
        expected = reference(made(folders, kind), kind, size).forward_features(x)
        y, x_patches = backbone.info.grid(size)
        (found,) = tokens(backbone, x, (last, "patch_tokens"))
        assert found.shape[1:3] == (y, x_patches)
        assert relative_l2(found.flatten(1, 2), as_rows(expected, kind, y * x_patches)) <= PATCH_BOUND
        if kind in WITH_CLASS_TOKEN:
            (cls,) = tokens(backbone, x, (last, "cls_token"))
            assert relative_l2(cls, expected[:, 0]) <= CLS_BOUND
            assert expected.shape[1] == 1 + backbone.info.registers + y * x_patches


@torch.inference_mode()
def test_each_layer_is_what_leaves_its_module_through_the_final_norm(folders: Path, kind: str) -> None:
    """The modules that timm names as the ends of its stages, watched while timm's own forward pass runs."""
    backbone = load(made(folders, kind))
    for size in sizes(backbone, kind):
        model, x = reference(made(folders, kind), kind, size), pictures(2, size)
        info, seen = model.feature_info, {}
        for number, stage in enumerate(info, start=1):
            model.get_submodule(stage["module"]).register_forward_hook(
                lambda _m, _i, out, number=number, seen=seen: seen.__setitem__(number, out)
            )
        model.forward_features(x)
        layers = range(1, backbone.info.layers)
        assert len(info) - len(layers) in (0, 1)  # without the last, unless that is no module of timm's list
        found = tokens(backbone, x, *((layer, "patch_tokens") for layer in layers))
        for layer, patches in zip(layers, found, strict=True):
            y, x_patches = backbone.info.grid(size, layer)
            expected = model.norm(seen[layer]) if kind in VITS else seen[layer]
            if kind == "hiera":  # its blocks run in the order of its windows
                expected = model.reroll(expected, model.stage_ends[layer - 1]).permute(0, 3, 1, 2)
            assert patches.shape[1:3] == (y, x_patches)
            assert relative_l2(patches.flatten(1, 2), as_rows(expected, kind, y * x_patches)) <= PATCH_BOUND
        if kind in WITH_CLASS_TOKEN:
            for layer, cls in zip(layers, tokens(backbone, x, *((i, "cls_token") for i in layers)), strict=True):
                assert relative_l2(cls, model.norm(seen[layer])[:, 0]) <= CLS_BOUND


@torch.inference_mode()
def test_what_the_classifier_sees_is_stored_under_one_name(folders: Path, kind: str) -> None:
    """`pooled` where it is a vector of its own, else the class token or the mean patch of the last layer."""
    backbone = load(made(folders, kind))
    last, info = backbone.info.layers, backbone.info
    for size in sizes(backbone, kind):
        model, x = reference(made(folders, kind), kind, size), pictures(2, size)
        expected = model.forward_head(model.forward_features(x), pre_logits=True)
        if "pooled" in info.kinds:
            (found,) = tokens(backbone, x, (0, "pooled"))
            assert found.shape == (2, info.pooled_size)
        else:
            has_token = kind in ("vit", "vit-registers")
            (found,) = tokens(backbone, x, (last, "cls_token" if has_token else "patch_mean"))
        assert relative_l2(found, expected) <= CLS_BOUND


def test_which_kinds_there_are(folders: Path) -> None:
    kinds = {kind: load(made(folders, kind)).info.kinds for kind in tiny_timm_kinds()}
    assert {kind for kind, found in kinds.items() if "cls_token" in found} == set(WITH_CLASS_TOKEN)
    # attention pooling, a norm behind the mean, a penultimate layer: what no token is
    assert {kind for kind, found in kinds.items() if "pooled" in found} == {
        "beit",
        "convnext",
        "hiera",
        "siglip",
        "vgg",
    }
    assert load(made(folders, "vgg")).info.pooled_size == 4096
    assert {kind: load(made(folders, kind)).info.registers for kind in ("vit", "vit-registers", "dinov3")} == {
        "vit": 0,
        "vit-registers": 4,
        "dinov3": 4,
    }


def test_layers_differ_in_width_and_stride(folders: Path) -> None:
    def stages(kind: str) -> list[tuple[int, int]]:
        return [(stage.width, stage.stride) for stage in load(made(folders, kind)).info.stages]

    assert stages("resnet") == [(64, 2), (8, 4), (16, 8), (24, 16), (32, 32)]
    assert stages("efficientnet-lite") == [(16, 2), (24, 4), (40, 8), (112, 16), (320, 32), (1280, 32)]
    assert stages("sam") == [(32, 8), (32, 8), (32, 8), (24, 8)]  # its neck is one more
    assert stages("vit") == [(32, 8)] * 3


def test_a_model_of_fixed_size_refuses_another(folders: Path) -> None:
    for kind in OF_FIXED_SIZE:
        backbone = load(made(folders, kind))
        assert backbone.info.fixed_size
        height, width = backbone.info.size
        with pytest.raises(InputError, match=rf"takes {height}x{width} only\. Got 448x448"):
            tokens(backbone, pictures(1, (448, 448)), (1, "patch_mean"))
    assert not load(made(folders, "vit")).info.fixed_size


def test_positions_are_named_in_the_recipe(folders: Path) -> None:
    named = {kind: load(made(folders, kind)).info.model.position_interpolation for kind in tiny_timm_kinds()}
    assert {kind: name for kind, name in named.items() if name != "none"} == {
        "vit": "timm-bicubic-antialias",
        "vit-registers": "timm-bicubic-antialias",
        "siglip": "timm-bicubic-antialias",
        "dinov3": "timm-rope",
        "sam": "timm-bicubic-antialias-linear-relative",
    }


def test_attention_is_fused_or_not_as_asked(folders: Path) -> None:
    folder = made(folders, "vit")
    fused, plain = load(folder), load(folder, "eager")
    assert (fused.info.model.attention, plain.info.model.attention) == ("sdpa", "eager")
    assert {module.fused_attn for module in plain.model.modules() if hasattr(module, "fused_attn")} == {False}
    x, wanted = pictures(2, (48, 48)), ((3, "cls_token"), (3, "patch_tokens"))
    first, second = tokens(fused, x, *wanted), tokens(plain, x, *wanted)
    assert relative_l2(first[0], second[0]) <= CLS_BOUND
    assert relative_l2(first[1], second[1]) <= PATCH_BOUND
    # a model without attention has one recipe, whatever is asked
    assert describe_backbone(made(folders, "resnet"), attention="eager").model.attention == "built-in"


@pytest.mark.parametrize("compute_dtype", ["bfloat16", "bfloat16-cast"])
def test_a_16_bit_run_is_near_and_comes_back_in_float32(folders: Path, compute_dtype: str) -> None:
    folder, wanted = made(folders, "vit"), ((3, "cls_token"), (3, "patch_mean"))
    x = pictures(2, (48, 48))
    rounded = load_backbone(describe_backbone(folder, compute_dtype=compute_dtype))
    assert isinstance(rounded, TimmBackbone)
    for a, b in zip(tokens(rounded, x, *wanted), tokens(load(folder), x, *wanted), strict=True):
        assert a.dtype == torch.float32
        assert 0 < relative_l2(a, b) < 0.1  # bfloat16 keeps 8 bits, a relative step of 0.004, through three blocks


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=marks_of(kind)) for kind in IN_THE_CONTRACT])
def test_every_kind_holds_to_the_contract_of_backbones(folders: Path, kind: str) -> None:
    check_backbone(made(folders, kind))

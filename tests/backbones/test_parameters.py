"""The parameters of table 2's eleven backbones, and of SAM's encoder: counted on models without memory.

The table prints millions, some of them as published elsewhere and not as counted; where it is not what a count of this
architecture rounds to, the reason is written beside it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers

pytestmark = pytest.mark.usefixtures("one_thread")

DINOV2 = {"image_size": 518, "patch_size": 14}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
HUGE = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "intermediate_size": 5120}


@dataclass(frozen=True)
class Row:
    """A row of the table: what the study prints, in millions, and what there is."""

    printed: int | None
    """None for SAM's encoder, which the study uses without a count."""
    unit: int
    """The last place of `printed` that is not rounded away, in millions: 300M speaks of hundreds."""
    counted: int
    """Parameters of the model as embedcache builds it: without classifiers, decoders and text towers."""
    build: Callable[[], torch.nn.Module]
    whole: Callable[[], torch.nn.Module] | None = None
    """The model with its classifier, where the table counts that."""
    why_not: str = ""
    """Why the printed figure is not what the count rounds to; "" where it is."""


def of_transformers(
    model: str, config: str, build: Mapping[str, Any] | None = None, **numbers: Any
) -> Callable[[], Any]:
    made = getattr(transformers, config)(**numbers)
    return lambda: getattr(transformers, model)(made, **(build or {}))


def of_timm(name: str, num_classes: int = 0) -> Callable[[], Any]:
    def build() -> Any:
        return pytest.importorskip("timm").create_model(name, pretrained=False, num_classes=num_classes)

    return build


def dinov2(width: int, depth: int, heads: int, swiglu: bool = False) -> Callable[[], Any]:
    numbers = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "use_swiglu_ffn": swiglu}
    return of_transformers("Dinov2Model", "Dinov2Config", **numbers, **DINOV2)


BARE = {"add_pooling_layer": False}
CLIP_L = {**LARGE, "patch_size": 14, "projection_dim": 768}
CLIP_H = {**HUGE, "patch_size": 14, "projection_dim": 1024}
SAM_L = {**{k: v for k, v in LARGE.items() if k != "intermediate_size"}, "global_attn_indexes": [5, 11, 17, 23]}
AT_224 = "printed as DINOv2's own list of models has it; the checkpoints' position embeddings are of 518 pixels, at 224 it is "
TABLE = {
    "ViT-L/16 IN-21k": Row(300, 100, 303_301_632, of_transformers("ViTModel", "ViTConfig", BARE, **LARGE)),
    # timm keeps the two hidden layers of VGG's classifier when it takes the last one off
    "VGG19": Row(144, 1, 139_570_240, of_timm("vgg19.tv_in1k"), of_timm("vgg19.tv_in1k", 1000)),
    "ResNet152": Row(60, 1, 58_143_808, of_timm("resnet152.tv_in1k"), of_timm("resnet152.tv_in1k", 1000)),
    "DenseNet201": Row(20, 1, 18_092_928, of_timm("densenet201.tv_in1k"), of_timm("densenet201.tv_in1k", 1000)),
    "CLIP ViT-L/14": Row(
        300, 100, 303_966_208, of_transformers("CLIPVisionModelWithProjection", "CLIPVisionConfig", **CLIP_L)
    ),
    "OpenCLIP ViT-H/14": Row(
        632, 1, 632_076_800, of_transformers("CLIPVisionModelWithProjection", "CLIPVisionConfig", **CLIP_H)
    ),
    "MAE ViT-L/16": Row(300, 100, 303_301_632, of_transformers("ViTModel", "ViTConfig", BARE, **LARGE)),
    "DINOv2 ViT-S/14": Row(21, 1, 22_056_576, dinov2(384, 12, 6), why_not=AT_224 + "21.6M, rounded down"),
    "DINOv2 ViT-B/14": Row(86, 1, 86_580_480, dinov2(768, 12, 12), why_not=AT_224 + "85.7M"),
    "DINOv2 ViT-L/14": Row(300, 100, 304_368_640, dinov2(1024, 24, 16)),
    "DINOv2 ViT-g/14": Row(1100, 100, 1_136_480_768, dinov2(1536, 40, 24, swiglu=True)),
    "SAM ViT-L/16": Row(None, 1, 308_278_272, of_transformers("SamVisionModel", "SamVisionConfig", **SAM_L)),
}


def count(build: Callable[[], torch.nn.Module]) -> int:
    with torch.device("meta"):
        return sum(values.numel() for values in build().parameters())


def rounded(number: int, unit: int) -> int:
    """In millions, to a multiple of `unit`."""
    return round(number / 1e6 / unit) * unit


@pytest.mark.parametrize("name", TABLE)
def test_the_parameters_of_table_2(name: str) -> None:
    row = TABLE[name]
    assert count(row.build) == row.counted
    if row.printed is not None:
        tabled = row.counted if row.whole is None else count(row.whole)
        assert (rounded(tabled, row.unit) == row.printed) == (row.why_not == "")


@pytest.mark.parametrize(
    ("name", "width", "millions"), [("DINOv2 ViT-S/14", 384, 21.6), ("DINOv2 ViT-B/14", 768, 85.7)]
)
def test_dinov2s_own_figures_are_those_of_224_pixels(name: str, width: int, millions: float) -> None:
    row = TABLE[name]
    positions = ((518 // 14) ** 2 - (224 // 14) ** 2) * width
    assert round((row.counted - positions) / 1e6, 1) == millions
    assert f"{millions}M" in row.why_not
    assert row.printed in (int(millions), round(millions))


def test_there_are_eleven_backbones_and_sam() -> None:
    assert len(TABLE) == 12
    assert [name for name, row in TABLE.items() if row.printed is None] == ["SAM ViT-L/16"]

"""The catalogue of known checkpoints, held against timm's registry and transformers' classes."""

import subprocess
import sys
from typing import Any

import pytest
import timm
import torch
import transformers

from embedcache.backbones import list_backbones
from embedcache.backbones.catalogue import describe_backbones
from embedcache.backbones.known import KNOWN, KnownBackbone, find_known

SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
BASE: dict[str, Any] = {}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
HUGE = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16}
GIANT = {"hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "use_swiglu_ffn": True}
SO400M = {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304}
WIDE, WIDER = {"intermediate_size": 4096}, {"intermediate_size": 5120}
AT_518 = {"patch_size": 14, "image_size": 518}
PLAIN = {"add_pooling_layer": False}
CONVNEXT_L = {"hidden_sizes": [192, 384, 768, 1536], "depths": [3, 3, 27, 3]}

CLASSES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    # name: (model, configuration, what differs from its defaults, arguments of the constructor)
    **{
        f"facebook/dinov2-{size}": ("Dinov2Model", "Dinov2Config", {**numbers, **AT_518}, {})
        for size, numbers in (("small", SMALL), ("base", BASE), ("large", LARGE), ("giant", GIANT))
    },
    **{
        f"facebook/dinov2-with-registers-{size}": (
            "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", {**numbers, **AT_518}, {},
        )
        for size, numbers in (("small", SMALL), ("base", BASE), ("large", LARGE), ("giant", GIANT))
    },
    "microsoft/rad-dino": ("Dinov2Model", "Dinov2Config", AT_518, {}),
    "google/vit-large-patch16-224-in21k": ("ViTModel", "ViTConfig", {**LARGE, **WIDE}, PLAIN),
    "google/vit-large-patch16-224": ("ViTModel", "ViTConfig", {**LARGE, **WIDE}, PLAIN),
    "facebook/vit-mae-large": ("ViTModel", "ViTConfig", {**LARGE, **WIDE}, PLAIN),
    "facebook/vit-mae-base": ("ViTModel", "ViTConfig", BASE, PLAIN),
    "facebook/vit-msn-base": ("ViTMSNModel", "ViTMSNConfig", BASE, {}),
    "facebook/vit-msn-large": ("ViTMSNModel", "ViTMSNConfig", {**LARGE, **WIDE}, {}),
    "facebook/ijepa_vith14_1k": ("IJepaModel", "IJepaConfig", {**HUGE, **WIDER, "patch_size": 14}, PLAIN),
    "openai/clip-vit-large-patch14": ("CLIPVisionModel", "CLIPVisionConfig", {**LARGE, **WIDE, "patch_size": 14}, {}),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": (
        "CLIPVisionModel", "CLIPVisionConfig", {**HUGE, **WIDER, "patch_size": 14}, {},
    ),
    "facebook/sam-vit-large": ("SamVisionModel", "SamVisionConfig", {**LARGE, "global_attn_indexes": [5, 11, 17, 23]}, {}),
    **{
        f"facebook/dinov3-vit{size}16-pretrain-lvd1689m": (
            "DINOv3ViTModel", "DINOv3ViTConfig",
            {**numbers, "intermediate_size": 4 * numbers["hidden_size"], "num_register_tokens": 4, "patch_size": 16}, {},
        )
        for size, numbers in (("s", SMALL), ("b", {**SMALL, "hidden_size": 768, "num_attention_heads": 12}), ("l", LARGE))
    },
    "facebook/dinov3-convnext-tiny-pretrain-lvd1689m": ("DINOv3ConvNextModel", "DINOv3ConvNextConfig", {}, {}),
    "facebook/dinov3-convnext-large-pretrain-lvd1689m": ("DINOv3ConvNextModel", "DINOv3ConvNextConfig", CONVNEXT_L, {}),
    "google/siglip-base-patch16-224": ("SiglipVisionModel", "SiglipVisionConfig", {}, {}),
    "google/siglip2-base-patch16-224": ("SiglipVisionModel", "SiglipVisionConfig", {}, {}),
    **{
        f"google/siglip{two}-so400m-patch14-384": (
            "SiglipVisionModel", "SiglipVisionConfig", {**SO400M, "patch_size": 14, "image_size": 384}, {},
        )
        for two in ("", "2")
    },
    "google/siglip2-base-patch16-naflex": ("Siglip2VisionModel", "Siglip2VisionConfig", {}, {}),
    "microsoft/swin-tiny-patch4-window7-224": ("SwinModel", "SwinConfig", {}, PLAIN),
    "microsoft/swinv2-tiny-patch4-window8-256": (
        "Swinv2Model", "Swinv2Config", {"window_size": 8, "image_size": 256}, PLAIN,
    ),
    "facebook/hiera-base-224-hf": ("HieraModel", "HieraConfig", {}, PLAIN),
    "facebook/convnext-tiny-224": ("ConvNextModel", "ConvNextConfig", {}, {}),
    "facebook/convnextv2-tiny-1k-224": ("ConvNextV2Model", "ConvNextV2Config", {}, {}),
    "microsoft/resnet-50": ("ResNetModel", "ResNetConfig", {}, {}),
}  # fmt: skip
OF_TIMM = [known for known in KNOWN if known.family == "timm"]
TWINS = {
    "facebook/dinov2-small": "vit_small_patch14_dinov2.lvd142m",
    "facebook/dinov2-base": "vit_base_patch14_dinov2.lvd142m",
    "facebook/dinov2-large": "vit_large_patch14_dinov2.lvd142m",
    "facebook/dinov2-giant": "vit_giant_patch14_dinov2.lvd142m",
    "google/vit-large-patch16-224-in21k": "vit_large_patch16_224.augreg_in21k",
    "facebook/vit-mae-large": "vit_large_patch16_224.mae",
    "facebook/sam-vit-large": "samvit_large_patch16.sa1b",
    "facebook/dinov3-vits16-pretrain-lvd1689m": "vit_small_patch16_dinov3.lvd1689m",
    "google/siglip-so400m-patch14-384": "vit_so400m_patch14_siglip_384.webli",
    "facebook/hiera-base-224-hf": "hiera_base_224.mae_in1k_ft_in1k",
    "facebook/ijepa_vith14_1k": "vit_huge_patch14_gap_224.in1k_ijepa",
}
"""The same weights in timm's registry, which states a licence."""


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_every_family_of_a_known_checkpoint_is_registered() -> None:
    assert {known.family for known in KNOWN} <= set(list_backbones())


def test_each_is_named_once_and_by_a_name_that_backbone_takes() -> None:
    names = [known.name for known in KNOWN]
    assert len(names) == len(set(names))
    assert all(name.startswith("timm:") == (known.family == "timm") for name, known in zip(names, KNOWN, strict=True))
    assert all(name.count("/") == 1 or name.startswith("timm:") for name in names)


def test_the_studys_backbones_are_there() -> None:
    """Table 2: four DINOv2 and seven others; SAM joins in table 9."""
    study = [known for known in KNOWN if known.study]
    assert len(study) == 12
    assert sum(known.family == "dinov2" for known in study) == 4
    assert [known.name for known in study if known.family == "sam"] == ["facebook/sam-vit-large"]
    assert all(known.parameters and known.size and known.citation for known in study)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_parameters_and_layers_of_transformers_class(name: str) -> None:
    model_class, config_class, numbers, build = CLASSES[name]
    config = getattr(transformers, config_class)(**numbers)
    with torch.device("meta"):
        model = getattr(transformers, model_class)(config, **build)
    known = find_known(name)
    assert known is not None
    assert parameters(model) == known.parameters
    layers = getattr(config, "num_hidden_layers", None) or len(config.depths)
    assert known.layers == layers + (known.family == "sam")  # whose neck is one more


@pytest.mark.parametrize("known", OF_TIMM, ids=lambda known: known.name)
def test_parameters_size_and_licence_of_timms_registry(known: KnownBackbone) -> None:
    name = known.name.removeprefix("timm:")
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    assert config.hf_hub_id == f"timm/{name}"
    assert known.size == config.input_size[1]
    assert known.licence.lower() == config.license
    with torch.device("meta"):
        assert parameters(timm.create_model(name, num_classes=0)) == known.parameters


@pytest.mark.parametrize("name", sorted(TWINS))
def test_the_licence_is_the_one_that_timm_states(name: str) -> None:
    known, config = find_known(name), timm.get_pretrained_cfg(TWINS[name])
    assert known is not None
    assert config is not None
    assert known.licence.lower().replace(" ", "-") == config.license


def test_only_what_can_not_be_counted_here_is_uncounted() -> None:
    uncounted = {known.name for known in KNOWN if known.parameters is None}
    assert uncounted == {known.name for known in KNOWN} - set(CLASSES) - {known.name for known in OF_TIMM}
    assert uncounted == {"google/medsiglip-448", "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"}


def test_the_catalogue_has_every_family_and_imports_no_torch() -> None:
    found = describe_backbones()
    assert [family.name for family in found.families] == list_backbones()
    assert found.known == KNOWN
    by_name = {family.name: family for family in found.families}
    assert by_name["pixels"].named == "pixels:32"
    assert by_name["timm"].named == "timm:NAME"
    assert "microsoft/rad-dino" in by_name["dinov2"].known
    code = "import sys, embedcache; embedcache.describe_backbones(); print({'torch', 'timm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

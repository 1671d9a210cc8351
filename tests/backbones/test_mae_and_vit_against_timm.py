"""MAE's encoder and the supervised ViT against timm's: the same weights in both, the same tokens out of both.

The architectures are timm's own entries of the study's models, narrowed and shortened; a masked autoencoder of
transformers shuffles its patches and is no reference for where a patch lies.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedcache.backbones import describe_backbone, load_backbone
from embedcache.backbones.captured import load_captured
from embedcache.backbones.structure import Structure
from embedcache.testing import make_tiny_backbone
from embedcache.testing.backbone_subject import Subject, everything, relative_l2
from embedcache.testing.contract_of_places import of_places
from embedcache.testing.tiny_backbones import draw_all

timm = pytest.importorskip("timm", reason="timm is an extra of its own")
pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"embed_dim": 32, "depth": 3, "num_heads": 4, "mlp_ratio": 1.5, "img_size": 32, "patch_size": 8}
NAMES = {
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "norm": "vit.layernorm",
}
IN_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def as_published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's parameters under the names that the hub's checkpoints of both families have."""
    found: dict[str, torch.Tensor] = {}
    for key, values in state.items():
        name, _, end = key.rpartition(".")
        if not name.startswith("blocks."):
            found[f"{NAMES[name]}.{end}" if name in NAMES else NAMES[key]] = values.clone()
            continue
        _, number, part = name.split(".", 2)
        block = f"vit.encoder.layer.{number}"
        if part == "attn.qkv":
            for third, which in zip(values.chunk(3), ("query", "key", "value"), strict=True):
                found[f"{block}.attention.attention.{which}.{end}"] = third.clone()
        else:
            found[f"{block}.{IN_BLOCK[part]}.{end}"] = values.clone()
    return found


@pytest.fixture(params=[("vit_mae", "vit_large_patch16_224.mae"), ("vit", "vit_large_patch16_224.augreg_in21k")])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """timm's model, and a checkpoint of ours with its weights beside whatever else the family's checkpoints hold."""
    family, name = request.param
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = timm.create_model(name, pretrained=False, num_classes=0, **SMALL).eval()
        draw_all(model)
    folder = Path(make_tiny_backbone(family, tmp_path / family))
    weights = load_file(folder / "model.safetensors")
    published = as_published(model.state_dict())
    assert published.keys() == {key for key in weights if key.startswith("vit.")}
    save_file({**weights, **published}, folder / "model.safetensors", {"format": "pt"})
    return model, folder


@torch.inference_mode()
def test_every_layer_is_timms(pair: tuple[Any, Path]) -> None:
    """Intermediate layers through the final norm are timm's `forward_intermediates(norm=True)`.

    Not to the bit: the hub's configurations say 1e-12 as the norms' epsilon, where timm's models have 1e-6.
    """
    model, folder = pair
    backbone = load_backbone(describe_backbone(str(folder)))
    x = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    found = backbone.tokens(x, everything(backbone.info, (32, 32)))
    last, layers = model.forward_intermediates(x, norm=True, return_prefix_tokens=True, output_fmt="NLC")
    assert len(layers) == backbone.info.layers == 3
    for number, (patches, prefix) in enumerate(layers, start=1):
        assert relative_l2(found[f"layer_{number}/cls_token"], prefix[:, 0]) <= 1e-5
        assert relative_l2(found[f"layer_{number}/patch_tokens"].flatten(1, 2), patches) <= 1e-4
    assert relative_l2(found["layer_3/patch_tokens"].flatten(1, 2), last[:, 1:]) <= 1e-4


def test_a_bright_square_is_followed_in_a_masked_autoencoder_and_not_in_its_own_class(
    models: Callable[[str], Path],
) -> None:
    """Even with nothing masked, transformers' ViTMAEModel shuffles the patches of each image anew."""
    info = describe_backbone(str(models("vit_mae")))
    assert not list(of_places(Subject(load_backbone(info), torch.device("cpu"))))
    structure = Structure(
        "ViTMAEModel",
        blocks=("layers", "encoder.layer"),
        norm=("layernorm",),
        options={"interpolate_pos_encoding": True},
        build={"mask_ratio": 0.0},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shuffled = Subject(load_captured(info, structure, "cpu"), torch.device("cpu"))
        lost = {line.partition(":")[0] for line in of_places(shuffled) if "do not show where they are" in line}
    assert lost == {f"layer_{number}/patch_tokens" for number in (1, 2, 3)}

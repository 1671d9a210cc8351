"""Every family against transformers' own forward pass: all layers and kinds, at the native size and one other.

The reference is the checkpoint's own class (the whole CLIP, SigLIP or SAM, the masked autoencoder itself) with
`output_hidden_states`; it never goes through our hooks. What it does not norm is normed here by its own module.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

from embedcache.backbones import describe_backbone, load_backbone
from embedcache.backbones.captured import CapturedBackbone
from embedcache.backbones.quiet import quiet_transformers
from embedcache.testing.backbone_subject import everything, relative_l2
from embedcache.testing.tiny_backbones import FAMILIES

pytestmark = pytest.mark.usefixtures("one_thread")

CLS_BOUND, PATCH_BOUND = 1e-5, 1e-4
"""Relative L2 per token between two ways of computing the same float32 tokens: what the project promises."""


@dataclass(frozen=True)
class Expected:
    """What the reference computes, layer 1 first."""

    layers: Sequence[torch.Tensor]
    """Each (n, prefix + patches, E), or a map (n, E, y, x)."""
    pooled: torch.Tensor | None = None


Reference = Callable[[Any, torch.Tensor], Expected]


def vit(norm: str = "layernorm", pooled: str = "", **options: Any) -> Reference:
    """A plain transformer: every block's output through the final norm."""

    def run(model: Any, x: torch.Tensor) -> Expected:
        out = model(x, output_hidden_states=True, **options)
        layers = [model.get_submodule(norm)(state) for state in out.hidden_states[1:]]
        assert torch.equal(layers[-1], out.last_hidden_state)
        return Expected(layers, out[pooled] if pooled else None)

    return run


def masked_autoencoder(model: Any, x: torch.Tensor) -> Expected:
    """Of which nothing is masked, and nothing shuffled: the noise that it sorts by is in order."""
    model.config.mask_ratio = model.vit.embeddings.config.mask_ratio = 0.0
    n, side = len(x), model.config.patch_size
    noise = torch.arange((x.shape[-2] // side) * (x.shape[-1] // side)).expand(n, -1).float()
    out = model.vit(x, noise=noise, output_hidden_states=True, interpolate_pos_encoding=True)
    return Expected([model.vit.layernorm(state) for state in out.hidden_states[1:]])


def clip(model: Any, x: torch.Tensor) -> Expected:
    """The image tower; with both towers there is a projection."""
    whole = hasattr(model, "vision_model")
    tower = model.vision_model if whole else model
    out = tower(x, output_hidden_states=True, interpolate_pos_encoding=True)
    layers = [tower.post_layernorm(state) for state in out.hidden_states[1:]]
    torch.testing.assert_close(layers[-1][:, 0], out.pooler_output, rtol=0, atol=1e-6)
    if not whole:
        return Expected(layers)
    features = model.get_image_features(x, interpolate_pos_encoding=True)
    return Expected(layers, features if isinstance(features, torch.Tensor) else features.pooler_output)


def siglip(model: Any, x: torch.Tensor) -> Expected:
    """The image tower with its attention pooling head."""
    return vit("post_layernorm", "pooler_output", interpolate_pos_encoding=True)(
        getattr(model, "vision_model", model), x
    )


def naflex(model: Any, x: torch.Tensor) -> Expected:
    """The image tower on patches that transformers' own image processor has cut."""
    tower = getattr(model, "vision_model", model)
    side = tower.config.patch_size
    patches = torch.stack([torch.from_numpy(convert_image_to_patches(image.numpy(), side)) for image in x])
    grid = torch.tensor([[x.shape[-2] // side, x.shape[-1] // side]] * len(x))
    out = tower(patches, torch.ones(patches.shape[:2]).long(), grid, output_hidden_states=True)
    return Expected([tower.post_layernorm(state) for state in out.hidden_states[1:]], out.pooler_output)


def sam(model: Any, x: torch.Tensor) -> Expected:
    """Blocks as they are, then the neck."""
    out = model.vision_encoder(x, output_hidden_states=True)
    blocks = [state.movedim(-1, 1) for state in out.hidden_states[1:]]
    neck = model.get_image_embeddings(x) if hasattr(model, "get_image_embeddings") else out.last_hidden_state
    return Expected([*blocks, neck])


def convnext(model: Any, x: torch.Tensor) -> Expected:
    """Maps as they are; the norm is applied to the mean alone."""
    out = model(x, output_hidden_states=True)
    return Expected(out.hidden_states[-4:], out.pooler_output)


def dinov3_convnext(model: Any, x: torch.Tensor) -> Expected:
    """The last map is normed, as is its mean, the class token."""
    out = model(x, output_hidden_states=True)
    return Expected([*out.hidden_states[-4:-1], out.last_hidden_state[:, 1:]], out.pooler_output)


def resnet(model: Any, x: torch.Tensor) -> Expected:
    """Maps as they are."""
    return Expected(model(x, output_hidden_states=True).hidden_states[1:])


def swin(model: Any, x: torch.Tensor) -> Expected:
    """Stages before their patches are merged; the last one is normed."""
    embedded = model.embeddings(x, interpolate_pos_encoding=True)
    told = {"output_hidden_states": True, "output_hidden_states_before_downsampling": True}
    maps = model.encoder(*embedded, **told).reshaped_hidden_states[1:]
    return Expected([*maps[:-1], model(x, interpolate_pos_encoding=True).last_hidden_state])


def hiera(model: Any, x: torch.Tensor) -> Expected:
    """Maps in rolled order; the class knows the order at its native size, so it is told of this one."""
    encoder = model.encoder
    for stage, (schedule, _) in dict(encoder.schedule).items():
        encoder.schedule[stage] = (schedule, [x.shape[-2] >> (2 + stage), x.shape[-1] >> (2 + stage)])
    out = model(x, output_hidden_states=True, interpolate_pos_encoding=True)
    return Expected([state.movedim(-1, 1) for state in out.reshaped_hidden_states[1:]], out.pooler_output)


REFERENCES: dict[str, Reference] = {
    "clip": clip,
    "clip_vision_model": clip,
    "convnext": convnext,
    "convnextv2": convnext,
    "dinov2": vit(),
    "dinov2_with_registers": vit(),
    "dinov3_convnext": dinov3_convnext,
    "dinov3_vit": vit("norm"),
    "hiera": hiera,
    "ijepa": vit(interpolate_pos_encoding=True),
    "resnet": resnet,
    "sam": sam,
    "sam_vision_model": sam,
    "siglip": siglip,
    "siglip2": naflex,
    "siglip2_vision_model": naflex,
    "siglip_vision_model": siglip,
    "swin": swin,
    "swinv2": swin,
    "vit": vit(interpolate_pos_encoding=True),
    "vit_mae": masked_autoencoder,
    "vit_msn": vit(interpolate_pos_encoding=True),
}
CHANNELS_LAST = {"convnext", "convnextv2", "dinov3_convnext", "resnet"}
"""Run in another layout of memory than the reference, so that sums are taken in another order."""


@functools.cache  # nothing changes a loaded backbone, and loading is most of these tests' time
def load(folder: Path) -> CapturedBackbone:
    backbone = load_backbone(describe_backbone(str(folder)))
    assert isinstance(backbone, CapturedBackbone)
    return backbone


@functools.cache
def reference_model(folder: Path, family: str) -> Any:
    """The class that the checkpoint was saved for, or its base where that is one of a task."""
    name = "ViTMAEForPreTraining" if family == "vit_mae" else "AutoModel"
    attention = load(folder).info.model.attention
    with quiet_transformers():
        model = getattr(transformers, name).from_pretrained(
            folder, attn_implementation=attention.replace("none", "eager")
        )
    # torch's own multi-head attention, in SigLIP's head, takes another path for weights that need no gradient
    return model.eval().requires_grad_(False)


def test_every_family_of_ours_has_its_reference() -> None:
    assert REFERENCES.keys() == FAMILIES.keys()


def other_size(backbone: CapturedBackbone) -> tuple[int, int]:
    """No square, and another number of patches."""
    step = max(stage.stride for stage in backbone.info.stages)
    return backbone.info.size[0] + step, backbone.info.size[1] + 3 * step


@pytest.mark.parametrize("where", ["native", "other"])
@pytest.mark.parametrize("family", sorted(REFERENCES))
@torch.inference_mode()
def test_all_that_a_family_has_is_what_transformers_computes(
    models: Callable[[str], Path], family: str, where: str
) -> None:
    folder = models(family)
    backbone = load(folder)
    info = backbone.info
    if where == "other" and info.fixed_size:
        pytest.skip("its position embeddings are of one size; test_families holds that any other is refused")
    size = info.size if where == "native" else other_size(backbone)
    x = torch.randn((2, 3, *size), generator=torch.Generator().manual_seed(1))
    expected = REFERENCES[family](reference_model(folder, family), x)
    found = backbone.tokens(x, everything(info, size))
    assert len(expected.layers) == info.layers
    for layer, values in enumerate(expected.layers, start=1):
        grid, width = info.grid(size, layer), info.stages[layer - 1].width
        flat = values.flatten(2).transpose(1, 2) if values.ndim == 4 else values
        prefix = ("cls_token" in info.kinds) + info.registers
        assert flat.shape == (2, prefix + grid[0] * grid[1], width)
        patches = flat[:, prefix:].reshape(2, *grid, width)
        agree(found[f"layer_{layer}/patch_tokens"], patches, PATCH_BOUND, family)
        # a mean of the same numbers in another order
        torch.testing.assert_close(found[f"layer_{layer}/patch_mean"], patches.mean((1, 2)), rtol=1e-5, atol=1e-5)
        if "cls_token" in info.kinds:
            agree(found[f"layer_{layer}/cls_token"], flat[:, 0], CLS_BOUND, family)
    assert ("pooled" in info.kinds) == (expected.pooled is not None)
    if expected.pooled is not None:
        agree(found["pooled"], expected.pooled, CLS_BOUND, family)


def agree(found: torch.Tensor, expected: torch.Tensor, bound: float, family: str) -> None:
    """Bit for bit where both run the same operations on the same layout of memory, else within what is promised."""
    assert found.shape == expected.shape
    assert relative_l2(found, expected) <= bound
    if family not in CHANNELS_LAST:
        assert torch.equal(found, expected)


@pytest.mark.parametrize("family", sorted(REFERENCES))
def test_one_forward_pass_gives_every_layer_and_kind(models: Callable[[str], Path], family: str) -> None:
    backbone = load(models(family))
    calls: list[str] = []
    watched = {"the model": backbone.model, **{f"layer {i}": m for i, m in enumerate(backbone.layers, start=1)}}
    hooks = [m.register_forward_pre_hook(lambda *_, name=name: calls.append(name)) for name, m in watched.items()]
    backbone.tokens(torch.zeros(1, 3, *backbone.info.size), everything(backbone.info, backbone.info.size))
    for hook in hooks:
        hook.remove()
    assert sorted(calls) == sorted(watched)

"""Running a model of timm. Imports torch and timm."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from embedcache.backbones.precision import precision
from embedcache.backbones.state_dict import misfit, read_state_dict
from embedcache.backbones.timm_models import request_of, shape_for
from embedcache.backbones.timm_tower import TimmTower, build
from embedcache.backbones.tokens import check_asked, select
from embedcache.backbones.weights import find_weights
from embedcache.types import ArraySpec, BackboneInfo


@dataclass(frozen=True)
class TimmBackbone:
    """A loaded model of timm."""

    info: BackboneInfo
    model: TimmTower
    """In evaluation mode, without gradients."""

    @property
    def layers(self) -> list[torch.nn.Module]:
        """The modules that timm names as the ends of its stages."""
        trunk = self.model.trunk
        known = dict(trunk.named_modules())
        return [known[stage["module"]] for stage in trunk.feature_info if stage["module"] in known]  # type: ignore[union-attr]

    @torch.inference_mode()
    def tokens(self, x: torch.Tensor, arrays: Sequence[ArraySpec]) -> dict[str, torch.Tensor]:
        """The asked tokens of `x` (n, 3, H, W), float32, on the model's device; keyed by ArraySpec.path.

        Shapes: (n, E) for cls_token and patch_mean, (n, y, x, E) for patch_tokens, (n, P) for pooled. Layers count from 1, and
        the last one is what timm's classifier sees. Raises InputError for a size, a layer or a kind that the model has not.
        """
        size = (int(x.shape[-2]), int(x.shape[-1]))
        check_asked(self.info, arrays, size)
        if self.model.shape.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with precision(self.info, x.device):
            found = self.model(x, {spec.layer for spec in arrays})
        return {
            spec.path: found[0].float() if spec.kind == "pooled" else select(found[spec.layer], spec, self.info, size)
            for spec in arrays
        }


def load(info: BackboneInfo, device: str = "cpu") -> TimmBackbone:
    """The model of `info` on `device`, in evaluation mode.

    Raises InputError where the weights do not fill the architecture, or hold what it has no place for.
    """
    weights = replace(find_weights(info.folder), name=info.name)
    request = request_of(weights)
    shape = shape_for(request)
    tensors = read_state_dict(weights.folder, info.name)
    try:
        trunk = build(request, shape.free_size, tensors)
    except (RuntimeError, KeyError) as e:
        raise misfit(info.name, e) from None
    return placed(info, TimmTower(trunk, shape), device)


def placed(info: BackboneInfo, tower: TimmTower, device: str) -> TimmBackbone:
    """The tower as a backbone on `device`, with the attention and the memory layout that it is to have."""
    for module in tower.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = info.model.attention != "eager"  # type: ignore[assignment]  # a flag, which torch's stubs do not expect
    layout = torch.channels_last if tower.shape.channels_last else torch.preserve_format
    tower = tower.to(torch.device(device), memory_format=layout)  # type: ignore[call-overload]
    return TimmBackbone(info, tower.eval().requires_grad_(False))

"""DINOv2 run through transformers' own modules, block by block, no further than the deepest layer asked for."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModel

from embedcache.backbones.quiet import quiet_transformers
from embedcache.errors import InputError
from embedcache.types import ArraySpec, BackboneInfo

UNUSED = "mask_token"
"""The only parameter that may be absent: it stands for masked patches in training, and no patch is masked here."""


@dataclass(frozen=True)
class Dinov2Backbone:
    """A loaded Dinov2Model or Dinov2WithRegistersModel."""

    info: BackboneInfo
    model: Any
    """In evaluation mode, float32, without gradients."""

    @torch.inference_mode()
    def tokens(self, x: torch.Tensor, arrays: Sequence[ArraySpec]) -> dict[str, torch.Tensor]:
        """The asked tokens of `x` (n, 3, H, W), float32, on the model's device; keyed by ArraySpec.path.

        Shapes: (n, E) for cls_token and patch_mean, (n, H / patch, W / patch, E) for patch_tokens. Every layer, counted
        from 1, passes through the model's own final layer norm; register tokens are left out. At a size that is not the
        native one transformers interpolates the position embeddings. Raises InputError for a size that the patches do
        not divide, and for a layer or kind that the model has not.
        """
        height, width = x.shape[-2:]
        grid = self.info.grid((height, width))
        for spec in arrays:
            _check(spec, self.info)
        with self._precision(x.device):
            normed = self._layers(x, {spec.layer for spec in arrays})
        return {spec.path: self._select(normed[spec.layer], spec, grid) for spec in arrays}

    def _layers(self, x: torch.Tensor, wanted: set[int]) -> dict[int, torch.Tensor]:
        """Layer → its normed tokens (n, 1 + registers + patches, E)."""
        normed = {}
        hidden = self.model.embeddings(x)
        for number, block in enumerate(self.model.encoder.layer[: max(wanted, default=0)], start=1):
            hidden = block(hidden)
            if number in wanted:
                normed[number] = self.model.layernorm(hidden)
        return normed

    def _select(self, tokens: torch.Tensor, spec: ArraySpec, grid: tuple[int, int]) -> torch.Tensor:
        tokens = tokens.float()  # a 16-bit run's norm may yield 16 bits; means are always taken in float32
        if spec.kind == "cls_token":
            return tokens[:, 0]
        patches = tokens[:, 1 + self.info.registers :]
        if spec.kind == "patch_mean":
            return patches.mean(dim=1)
        return patches.reshape(len(patches), *grid, -1)

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager[None]:
        dtype = getattr(torch, self.info.model.compute_dtype)
        if dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=dtype)


def load(info: BackboneInfo, device: str = "cpu") -> Dinov2Backbone:
    """The model of `info` on `device`. Weights stay float32; a 16-bit compute dtype is autocast at the products.

    Raises InputError where the weights do not fill the architecture: transformers would draw the rest at random.
    """
    with quiet_transformers():
        model, loading = AutoModel.from_pretrained(
            info.folder,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation=info.model.attention,
            dtype=torch.float32,
            output_loading_info=True,
        )
    absent = sorted(key for key in loading["missing_keys"] if not key.endswith(UNUSED))
    wrong = sorted(str(key) for key in loading["mismatched_keys"])
    if absent or wrong:
        raise InputError(
            f"the weights of {info.name} do not fit its config.json: {len(absent)} parameters absent, {len(wrong)} of "
            f"another shape, the first {(absent + wrong)[0]}; fetch the files again."
        )
    return Dinov2Backbone(info, model.to(torch.device(device)).eval().requires_grad_(False))


def _check(spec: ArraySpec, info: BackboneInfo) -> None:
    if spec.kind not in info.kinds:
        raise InputError(f"{info.name} has no {spec.kind}; it has {', '.join(info.kinds)}.")
    if not 1 <= spec.layer <= info.layers:
        raise InputError(f"{info.name} has layers 1 to {info.layers}. Got {spec.layer}.")

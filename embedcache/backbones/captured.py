"""A transformers model run by its own forward pass, while hooks keep what leaves the layers that are asked for.

The model's own code does all that is particular to it (position embeddings, windows, rotary angles); nothing of it is
written a second time here. It is stopped behind the deepest layer.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from embedcache.backbones.precision import precision
from embedcache.backbones.quiet import quiet_transformers
from embedcache.backbones.structure import Layout, Structure
from embedcache.backbones.tokens import check_asked, select
from embedcache.backbones.torchvision_pair import complete_torchvision
from embedcache.errors import InputError
from embedcache.types import ArraySpec, BackboneInfo

complete_torchvision()
import transformers  # noqa: E402 its models import torchvision where it is installed


class _DeepEnoughError(Exception):
    """Raised by the hook of the deepest layer, to end the forward pass there."""


@dataclass(frozen=True)
class CapturedBackbone:
    """A loaded transformers model of one family."""

    info: BackboneInfo
    model: torch.nn.Module
    """In evaluation mode, without gradients."""
    structure: Structure
    layers: Sequence[torch.nn.Module] = field(init=False)
    """Layer i + 1 is what leaves module i."""
    norm: torch.nn.Module = field(init=False)

    def __post_init__(self) -> None:
        extra = [found_module(self.model, self.structure.extra)] if self.structure.extra else []
        blocks = list(found_module(self.model, self.structure.blocks).children())
        if self.structure.last_of:
            blocks = [list(block.get_submodule(self.structure.last_of).children())[-1] for block in blocks]
        norm = found_module(self.model, self.structure.norm) if self.structure.norm else torch.nn.Identity()
        object.__setattr__(self, "layers", (*blocks, *extra))
        object.__setattr__(self, "norm", norm)

    @torch.inference_mode()
    def tokens(self, x: torch.Tensor, arrays: Sequence[ArraySpec]) -> dict[str, torch.Tensor]:
        """The asked tokens of `x` (n, 3, H, W), float32, on the model's device; keyed by ArraySpec.path.

        Shapes: (n, E) for cls_token, patch_mean and pooled, (n, y, x, E) for patch_tokens. Layers count from 1; each of the
        last one's width has passed through the model's own final norm. Register tokens are left out. Raises InputError
        for a size that the patches do not divide, and for a layer or kind that the model has not.
        """
        size = (int(x.shape[-2]), int(x.shape[-1]))
        check_asked(self.info, arrays, size)
        if self.structure.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with precision(self.info, x.device):
            outputs, pooled = self._run(x, {spec.layer for spec in arrays})
            normed = {layer: self._normed(layer, output, size) for layer, output in outputs.items()}
        return {
            spec.path: pooled.float() if spec.kind == "pooled" else select(normed[spec.layer], spec, self.info, size)
            for spec in arrays
        }

    def _run(self, x: torch.Tensor, wanted: set[int]) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
        """What leaves each wanted layer, and the pooled vector if layer 0, which holds it, is wanted: by one forward pass."""
        inputs = {"pixel_values": x} if self.structure.inputs is None else self.structure.inputs(x)
        outputs: dict[int, torch.Tensor] = {}
        deepest = 0 if 0 in wanted else max(wanted)  # the pooled vector needs all of the model

        def keep(number: int, output: Any) -> None:
            outputs[number] = output if isinstance(output, torch.Tensor) else output[self.structure.output]
            if number == deepest:
                raise _DeepEnoughError

        with contextlib.ExitStack() as hooks:
            for number in wanted - {0}:
                hook = self.layers[number - 1].register_forward_hook(lambda _m, _i, out, n=number: keep(n, out))
                hooks.callback(hook.remove)
            with contextlib.suppress(_DeepEnoughError):
                whole = self.model(**inputs, **self.structure.options)
                return outputs, getattr(whole, self.structure.pooled) if deepest == 0 else x.new_empty(0)
        return outputs, x.new_empty(0)

    def _normed(self, layer: int, output: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """A layer's output as (n, prefix + patches, E), through the final norm where that has its width."""
        if self.structure.arrange is not None:
            output = self.structure.arrange(output, size)
        is_extra = bool(self.structure.extra) and layer == len(self.layers)
        tokens = flattened(output, "map" if is_extra else self.structure.layout)
        fits = not is_extra and self.info.stages[layer - 1].width == self.info.hidden_size
        return self.norm(tokens) if fits else tokens


def flattened(output: torch.Tensor, layout: Layout) -> torch.Tensor:
    """(n, prefix + patches, E), patches row by row."""
    if layout == "map":
        return output.flatten(2).transpose(1, 2)
    return output.flatten(1, 2) if layout == "grid" else output


def load_captured(info: BackboneInfo, structure: Structure, device: str) -> CapturedBackbone:
    """The model of `info` on `device`, in evaluation mode.

    Raises InputError where the weights do not fill the architecture: transformers would draw the rest at random.
    """
    architecture = getattr(transformers, structure.architecture, None)
    if architecture is None:
        raise InputError(
            f"transformers {transformers.__version__} has no {structure.architecture}, which {info.name} needs; "
            "install a later version."
        )
    attention = "eager" if info.model.attention == "none" else info.model.attention
    if attention == "sdpa" and not architecture._supports_sdpa:
        raise InputError(
            f"transformers {transformers.__version__} has no sdpa for {structure.architecture}; use --attention eager, or "
            "a later version."
        )
    with quiet_transformers():
        model, loading = architecture.from_pretrained(
            info.folder,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation=attention,
            dtype=torch.float32,
            output_loading_info=True,
            **structure.build,
        )
    absent = sorted(key for key in loading["missing_keys"] if not key.endswith(structure.may_be_absent))
    wrong = sorted(str(key) for key in loading["mismatched_keys"])
    if absent or wrong:
        raise InputError(
            f"the weights of {info.name} do not fit its config.json: {len(absent)} parameters absent, {len(wrong)} of "
            f"another shape, the first {(absent + wrong)[0]}; fetch the files again."
        )
    memory_format = torch.channels_last if structure.channels_last else torch.preserve_format
    model = model.to(torch.device(device), memory_format=memory_format).eval().requires_grad_(False)
    return CapturedBackbone(info, model, structure)


def found_module(model: torch.nn.Module, names: Sequence[str]) -> torch.nn.Module:
    """The first of `names` that the model has."""
    for name in names:
        with contextlib.suppress(AttributeError):
            return model.get_submodule(name)
    raise InputError(
        f"transformers {transformers.__version__} builds {type(model).__name__} without {' or '.join(names)}; "
        "install a version that pyproject.toml names."
    )

"""Weights into MONAI's encoders: from safetensors, or a `.pt` of a bundle or a training, alone or in a network. Imports torch."""

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

import torch

from embedcache.backbones.monai_config import axes_of
from embedcache.backbones.monai_encoder import Layers, MonaiEncoder
from embedcache.backbones.torchvision_pair import complete_torchvision
from embedcache.backbones.weights import BUNDLE_WEIGHTS, Weights, weight_files
from embedcache.errors import InputError, MissingPackageError
from embedcache.types import BackboneInfo

NESTED = ("state_dict", "model")
"""Under which keys training scripts keep the parameters, beside the optimiser's state and more."""


def load_encoder(
    info: BackboneInfo,
    weights: Weights,
    architecture: tuple[str, str],
    arguments: Mapping[str, Any],
    outputs: Layers,
    may_be_absent: tuple[str, ...],
    device: str,
) -> MonaiEncoder:
    """MONAI's class `architecture` (module, name) with the weights of `info`, in evaluation mode on `device`.

    Raises MissingPackageError without MONAI, InputError where the weights do not fill the architecture.
    """
    model = build(info.name, architecture, arguments)
    state = encoder_state(read_state(weights), model, info.name)
    own = model.state_dict()
    absent = sorted(key for key in own if key not in state and not key.endswith(may_be_absent))
    wrong = sorted(key for key in own if key in state and state[key].shape != own[key].shape)
    if absent or wrong:
        raise InputError(
            f"the weights of {info.name} do not fit its config.json: {len(absent)} parameters absent, {len(wrong)} of "
            f"another shape, the first {(absent + wrong)[0]}; see the sizes in config.json, or fetch the files again."
        )
    model.load_state_dict({key: state[key] for key in own if key in state}, strict=False)
    model = model.to(torch.device(device)).eval().requires_grad_(False)
    blocks = tuple(model.blocks) if info.family == "monai_vit" else tuple(m[0] for m in _stages(model))
    return MonaiEncoder(info, model, axes_of(weights), outputs, blocks)


def _stages(model: Any) -> list[Any]:
    return [model.layers1, model.layers2, model.layers3, model.layers4]


def build(name: str, architecture: tuple[str, str], arguments: Mapping[str, Any]) -> Any:
    """An instance with random weights. Raises MissingPackageError, and InputError for arguments that it does not take."""
    if absent := [package for package in ("monai", "einops") if importlib.util.find_spec(package) is None]:
        raise MissingPackageError(
            f"an encoder of volumes needs {' and '.join(absent)}: pip install 'embedcache[monai]' (MONAI 1.4 or newer)."
        )
    complete_torchvision()  # MONAI imports it where it is installed
    kind = getattr(importlib.import_module(architecture[0]), architecture[1])
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: MONAI can not build its {architecture[1]} of config.json: {error}") from error


def read_state(weights: Weights) -> dict[str, torch.Tensor]:
    """The parameters that a checkpoint holds, by name; never a pickled object. Raises InputError."""
    state: dict[str, Any] = {}
    for file in weight_files(weights.folder, weights.name, BUNDLE_WEIGHTS):
        if file.endswith(".json"):
            continue  # an index: its shards follow
        path = weights.folder / file
        if file.endswith(".safetensors"):
            from safetensors.torch import load_file

            state |= load_file(path)
            continue
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged or pickled file makes of torch
            raise InputError(
                f"{weights.name}: {file} holds more than tensors, or is damaged ({type(error).__name__}); save its state_dict, "
                "best as model.safetensors."
            ) from error
        while isinstance(found, dict) and (inner := next((key for key in NESTED if key in found), "")):
            found = found[inner]
        state |= found if isinstance(found, dict) else {}
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}


def encoder_state(state: Mapping[str, torch.Tensor], model: torch.nn.Module, name: str) -> dict[str, torch.Tensor]:
    """Of a checkpoint the encoder's own parameters, named as `model` names them.

    A whole network has them below a prefix (`swinViT.`, `vit.`), training in parallel adds `module.`, and self-supervised
    checkpoints call the MLP's layers `fc1` and `fc2`. Raises InputError where there is none, or more than one.
    """
    anchor = "patch_embed.proj.weight" if hasattr(model, "patch_embed") else "patch_embedding.position_embeddings"
    prefixes = sorted(key.removesuffix(anchor) for key in state if key.endswith(anchor))
    prefixes = [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]
    if len(prefixes) != 1:
        what = f"holds {len(prefixes)} encoders ({', '.join(prefixes)})" if prefixes else f"has no {anchor}"
        raise InputError(f"the checkpoint of {name} {what}; give one with the weights of one {type(model).__name__}.")
    found = {key.removeprefix(prefixes[0]): value for key, value in state.items() if key.startswith(prefixes[0])}
    renamed = {".mlp.fc1.": ".mlp.linear1.", ".mlp.fc2.": ".mlp.linear2."}
    for old, new in renamed.items():
        found = {key.replace(old, new): value for key, value in found.items()}
    return found

"""Running the image model of an open_clip checkpoint. Imports torch and timm."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from embedcache.backbones.open_clip import Tower
from embedcache.backbones.state_dict import misfit, read_state_dict
from embedcache.backbones.timm_models import shape_for
from embedcache.backbones.timm_torch import TimmBackbone, placed
from embedcache.backbones.timm_tower import TimmTower, build
from embedcache.backbones.weights import find_weights
from embedcache.types import BackboneInfo

PREFIX = "visual."


def load_tower(info: BackboneInfo, tower: Tower, device: str) -> TimmBackbone:
    """The image model of `info` on `device`, in evaluation mode.

    Raises InputError where the weights do not fill it, or hold parts of an image model that it has no place for.
    """
    weights = replace(find_weights(info.folder), name=info.name)
    tensors = read_state_dict(weights.folder, info.name)
    visual = {key.removeprefix(PREFIX): value for key, value in tensors.items() if key.startswith(PREFIX)}
    shape = shape_for(tower.request)
    trunk = build(tower.request, shape.free_size)
    found = torch.nn.Module()
    found.trunk = trunk
    found.head = projection_of(tower, int(trunk.num_features), visual)  # type: ignore[arg-type]
    try:
        found.load_state_dict(visual, strict=True)
    except RuntimeError as e:
        raise misfit(info.name, e) from None
    return placed(info, TimmTower(trunk, shape, found.head), device)


def projection_of(tower: Tower, inputs: int, visual: Mapping[str, torch.Tensor]) -> torch.nn.Sequential:
    """open_clip's head behind timm's pooling, under its names, of the sizes that the weights have."""

    def linear(name: str) -> torch.nn.Linear:
        weight = visual.get(f"head.{name}.weight", torch.empty(tower.embed_dim, inputs))
        return torch.nn.Linear(weight.shape[1], weight.shape[0], bias=f"head.{name}.bias" in visual)

    head = torch.nn.Sequential()
    if tower.projection == "linear":
        head.add_module("proj", linear("proj"))
    elif tower.projection == "mlp":
        mlp = torch.nn.Sequential()
        mlp.add_module("fc1", linear("mlp.fc1"))
        mlp.add_module("act", torch.nn.GELU())
        mlp.add_module("fc2", linear("mlp.fc2"))
        head.add_module("mlp", mlp)
    return head

"""The vision tower of a checkpoint of open_clip whose image model is timm's: BiomedCLIP is one.

Ilharco et al., "OpenCLIP", 2021, https://github.com/mlfoundations/open_clip; Zhang et al., "BiomedCLIP: a multimodal
biomedical foundation model pretrained from fifteen million scientific image-text pairs", 2023. Such a folder has
`open_clip_config.json` and no `config.json`; the text tower stays on the disk. `pooled` is the embedding that is compared with
a text's, not normalised.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedcache.backbones.timm_models import Request, described, shape_for
from embedcache.backbones.weights import Weights, find_weights
from embedcache.errors import InputError
from embedcache.types import BackboneInfo

if TYPE_CHECKING:
    from embedcache.backbones import Backbone

OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CROP_MODES = {"shortest": "center", "squash": "squash", "longest": "border"}
"""timm's names of open_clip's ways to resize."""
PROJECTIONS = ("linear", "mlp", "")
PUBLISHED = {
    "microsoft/BiomedCLIP": {
        "license": "mit",
        "paper_name": "Zhang et al., BiomedCLIP: a multimodal biomedical foundation model pretrained from fifteen million "
        "scientific image-text pairs, 2023",
        "paper_ids": "arXiv:2303.00915",
    }
}


@dataclass(frozen=True)
class Tower:
    """What `model_cfg` says of the image model."""

    request: Request
    projection: str
    embed_dim: int


def describe(weights: Weights, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What `open_clip_config.json` and timm say of the image model.

    Raises InputError for an image model that is not timm's, or is pooled in a way that open_clip adds to it.
    """
    tower = tower_of(weights)
    published = next((v for prefix, v in PUBLISHED.items() if weights.source.startswith(prefix)), {})
    shape = shape_for(tower.request)
    loader = "embedcache.backbones.open_clip:load"
    return described(
        weights, "open_clip", shape, compute_dtype, attention, loader, published, pooled_size=tower.embed_dim
    )


def load(info: BackboneInfo, device: str = "cpu") -> "Backbone":
    """The image model of `info` and its projection; the text model is not read into memory for longer than it takes."""
    from embedcache.backbones.open_clip_torch import load_tower  # torch, which describing does without

    return load_tower(info, tower_of(find_weights(info.folder)), device)


def tower_of(weights: Weights) -> Tower:
    """The image model of a configuration, as timm's factory would be asked for it."""
    model, preprocess = weights.config.get("model_cfg") or {}, weights.config.get("preprocess_cfg") or {}
    vision = model.get("vision_cfg") or {}
    architecture, pool = vision.get("timm_model_name"), vision.get("timm_pool", "avg") or ""
    if not isinstance(architecture, str):
        raise InputError(
            f"{weights.name}: the image model of open_clip_config.json is not timm's; use the same weights from a "
            "transformers or timm repository."
        )
    projection = vision.get("timm_proj", "linear") or ""
    projection = "" if projection == "none" else projection
    if pool in ("abs_attn", "rot_attn") or projection not in PROJECTIONS:
        raise InputError(
            f"{weights.name}: its image model ends in open_clip's own pooling or projection (timm_pool {pool!r}, timm_proj "
            f"{projection!r}); only {', '.join(map(repr, PROJECTIONS))} behind timm's pooling are supported."
        )
    size = vision.get("image_size", 224)
    side = [int(v) for v in size] if isinstance(size, list) else [int(size)] * 2
    args: dict[str, Any] = {"global_pool": pool} if pool else {}
    overlay = {
        "num_classes": 0,  # open_clip's projection stands in the classifier's place
        "input_size": [3, *side],
        "mean": list(preprocess.get("mean") or OPENAI_MEAN),
        "std": list(preprocess.get("std") or OPENAI_STD),
        "interpolation": preprocess.get("interpolation") or "bicubic",
        "crop_mode": CROP_MODES.get(preprocess.get("resize_mode") or "shortest", "border"),
        "crop_pct": 1.0,
    }
    return Tower(Request(architecture, args, {}, overlay), projection, int(model.get("embed_dim", 0)))

"""Any model of timm: `timm:NAME`, or a folder with timm's `config.json` and weights. No torch and no timm.

Wightman, "PyTorch Image Models", 2019, https://github.com/huggingface/pytorch-image-models. A configuration names an
architecture and says nothing of its layers; what timm's code makes of it is found once (`timm_shape`, in a process of its
own) and remembered in the user's cache directory, under the configuration and timm's version.
"""

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import platformdirs

from embedcache.backbones.description import model_recipe
from embedcache.backbones.weights import Weights
from embedcache.errors import InputError, MissingPackageError
from embedcache.types import BackboneInfo, ModelRecipe, Stage, TokenKind

SHAPE_VERSION = 2
"""Of what `timm_shape` finds: another one is not read from memory."""
RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
"""PIL's numbers of timm's names."""
LICENCES = {"apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause"}
NOT_THE_CHECKPOINTS = (
    "checkpoint_path",
    "cache_dir",
    "features_only",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
)
"""Arguments of timm's factory that would load other weights, or make something that is no classifier."""


@dataclass(frozen=True)
class Request:
    """What is asked of timm's factory: the parts of a configuration that decide the architecture and its input."""

    architecture: str
    model_args: Mapping[str, Any]
    pretrained_cfg: Mapping[str, Any]
    """The checkpoint's own; empty where it has none, and timm's default for the architecture counts."""
    overlay: Mapping[str, Any]
    """What replaces single entries of that default."""


@dataclass(frozen=True)
class Shape:
    """What timm's code makes of a request."""

    stages: tuple[tuple[int, int], ...]
    """(width, stride) of each layer."""
    extra: bool
    """The last layer is no intermediate of timm's, but what its classifier sees behind them: EfficientNet's head convolution."""
    norm: bool
    """The intermediates can pass through the model's final norm."""
    norm_words: str
    class_token: bool
    registers: int
    """Prefix tokens that are no class token."""
    pooled_size: int
    """Length of what the classifier's last layer sees; 0 where that is the class token or the mean patch."""
    free_size: Mapping[str, Any] | None
    """Arguments with which the model takes other sizes than its own; None: it does not."""
    smallest_side: int
    """Pixels below which it takes no input."""
    positions: str
    """How position embeddings are fitted to another grid."""
    fused_attention: bool
    """Its attention can be fused (SDPA) or not."""
    channels_last: bool
    """Convolutions throughout, whose maps are (n, E, y, x)."""
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    crop_mode: str
    interpolation: str
    parameters: int

    @property
    def prefix(self) -> int:
        """Tokens before the patches, in every layer."""
        return self.class_token + self.registers


def describe(weights: Weights, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What timm says of the model that `weights.config` (with `architecture`, without model_type) names.

    Raises MissingPackageError where timm is absent, InputError for what it can not build or does not show the layers of.
    """
    shape = shape_for(request_of(weights))
    cfg = weights.config.get("pretrained_cfg", weights.config)
    return described(weights, "timm", shape, compute_dtype, attention, "embedcache.backbones.timm_torch:load", cfg)


def described(
    weights: Weights,
    family: str,
    shape: Shape,
    compute_dtype: str,
    attention: str,
    loader: str,
    published: Mapping[str, Any],
    pooled_size: int | None = None,
) -> BackboneInfo:
    """A model of timm as the rest of the house sees it.

    published: may have `license`, `paper_name` and `paper_ids`, as timm's configurations do. pooled_size: of a head behind
    the model; None is its own.
    """
    pooled = shape.pooled_size if pooled_size is None else pooled_size
    kinds: tuple[TokenKind, ...] = ("patch_mean", "patch_tokens")
    kinds = ("cls_token", *kinds) if shape.class_token else kinds
    return BackboneInfo(
        name=weights.name,
        folder=str(weights.folder),
        family=family,
        model=recipe_of(weights, family, shape, compute_dtype, attention),
        stages=tuple(Stage(width, stride) for width, stride in shape.stages),
        registers=shape.registers,
        size=shape.size,
        mean=shape.mean,
        std=shape.std,
        processor=processor_of(shape),
        kinds=(*kinds, "pooled") if pooled else kinds,
        loader=loader,
        licence=licence_of(published),
        citation=citation_of(weights, published),
        norm=shape.norm_words,
        pooled_size=pooled,
        fixed_size=shape.free_size is None,
        smallest_side=shape.smallest_side,
    )


def recipe_of(weights: Weights, family: str, shape: Shape, compute_dtype: str, attention: str) -> ModelRecipe:
    """The model's part of a recipe; a model without a choice of attention has the same one whatever is asked."""
    attention = attention if shape.fused_attention else "built-in"
    return model_recipe(weights, family, compute_dtype, attention, shape.positions)


# --- the configuration ----------------------------------------------------------------------------


def request_of(weights: Weights) -> Request:
    """The request that a timm configuration stands for: nested, or flat as older ones are.

    Raises InputError for one that names no architecture, or would load other weights than its own.
    """
    config = weights.config
    name, args = config.get("architecture"), config.get("model_args") or {}
    cfg = config.get("pretrained_cfg")
    if cfg is None:
        cfg = {key: value for key, value in config.items() if key not in ("architecture", "model_args")}
    if not isinstance(name, str) or not name.replace("_", "").replace(".", "").isalnum():
        raise InputError(f"{weights.name}: config.json must name an architecture of timm. Got {name!r}.")
    if not isinstance(args, dict) or not isinstance(cfg, dict):
        raise InputError(f"{weights.name}: model_args and pretrained_cfg of config.json must be JSON objects.")
    foreign = [key for key in args if key in NOT_THE_CHECKPOINTS]
    if foreign:
        raise InputError(f"{weights.name}: model_args of config.json must not have {', '.join(foreign)}.")
    if "num_classes" in config:
        cfg = {**cfg, "num_classes": config["num_classes"]}
    places = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load")
    words = ("label_names", "label_descriptions", "labels", "description", "notes")
    cfg = {key: value for key, value in cfg.items() if key not in (*places, *words)}
    request = Request(name, args, cfg if "input_size" in cfg else {}, {} if "input_size" in cfg else _known(cfg))
    channels = (args.get("in_chans") or (request.pretrained_cfg.get("input_size") or [3])[0],)
    if channels != (3,):
        raise InputError(f"{weights.name} takes {channels[0]} channels; only 3 are supported.")
    return request


def _known(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Of a configuration without an input size, the entries that change timm's default."""
    return {
        key: cfg[key] for key in ("num_classes", "mean", "std", "crop_pct", "crop_mode", "interpolation") if key in cfg
    }


def processor_of(shape: Shape) -> dict[str, Any]:
    """timm's evaluation transform, as `description.processor_geometry` spells a processor out; {} for one that pads.

    Resize to floor(size / crop_pct), the short side or, squashed, both; then the centre crop, whose corner timm (through
    torchvision) rounds half to even.
    """
    height, width = shape.size
    if shape.crop_mode == "border" or (shape.crop_mode == "center" and height != width):
        return {}
    scaled = [math.floor(side / shape.crop_pct) for side in shape.size]
    squashed = {"height": scaled[0], "width": scaled[1]}
    return {
        "do_resize": True,
        "size": squashed if shape.crop_mode == "squash" else {"shortest_edge": scaled[0]},
        "resample": RESAMPLE.get(shape.interpolation, RESAMPLE["bicubic"]),
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "crop_corner": "half-to-even",
    }


def licence_of(published: Mapping[str, Any]) -> str:
    """The configuration's own `license`, by its SPDX name."""
    found = str(published.get("license") or "")
    return LICENCES.get(found, found.upper() if found.startswith("cc") else found)


def citation_of(weights: Weights, published: Mapping[str, Any]) -> str:
    """The configuration's own paper, else its architecture."""
    papers = published.get("paper_ids") or ()
    papers = (papers,) if isinstance(papers, str) else papers
    found = ", ".join(str(part) for part in (published.get("paper_name"), *papers) if part)
    return found or f"weights of an unstated origin; architecture: timm's {weights.config.get('architecture', 'own')}"


# --- what timm makes of it ------------------------------------------------------------------------


def shape_for(request: Request) -> Shape:
    """What timm's code makes of a request: remembered, or asked of timm."""
    if importlib.util.find_spec("timm") is None or importlib.util.find_spec("torch") is None:
        raise MissingPackageError(
            f"{request.architecture} is a model of timm, which is absent: pip install 'embedcache[timm]' "
            "(beside a torch for the CPU: pip install --no-deps timm torchvision)."
        )
    question = {"shape_version": SHAPE_VERSION, "timm": version("timm"), **dataclasses.asdict(request)}
    text = json.dumps(question, sort_keys=True)
    note = (
        Path(platformdirs.user_cache_dir("embedcache")) / "timm" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    )
    known = _remembered(note)
    if known is None:
        known = _ask(request)
        _remember(note, known)
    return known


def _ask(request: Request) -> Shape:
    """In this process where torch is loaded anyway, else in a child: describing must leave its caller light."""
    unable = f"timm could not be asked about {request.architecture}"
    if "torch" in sys.modules:
        try:
            from embedcache.backbones.timm_shape import shape_of
        except ImportError as e:
            raise InputError(f"{unable}: {e}; see `embedcache doctor`.") from e
        return shape_of(request)
    done = subprocess.run(
        [sys.executable, "-m", "embedcache.backbones.timm_shape"],
        input=json.dumps(dataclasses.asdict(request)),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        check=False,
    )
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["it said nothing"]
    if done.returncode != 0:
        raise InputError(f"{unable}: {lines[-1]}; see `embedcache doctor`.")
    answer = json.loads(lines[-1])
    if "refused" in answer:
        raise InputError(answer["refused"])
    return shape_from(answer)


def shape_from(document: Mapping[str, Any]) -> Shape:
    """A shape out of its JSON document. Raises TypeError or KeyError for another document."""
    pairs = tuple((int(width), int(stride)) for width, stride in document["stages"])
    lists = {key: tuple(document[key]) for key in ("size", "mean", "std")}
    return Shape(**{**document, **lists, "stages": pairs})


def _remembered(note: Path) -> Shape | None:
    """What a note says; None where it is absent or damaged: timm is the truth."""
    try:
        return shape_from(json.loads(note.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _remember(note: Path, shape: Shape) -> None:
    """Nothing is kept where the user's cache directory can not be written: the next run asks again."""
    partial = note.with_name(f"{note.name}.{os.getpid()}")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(dataclasses.asdict(shape)), encoding="utf-8")
        os.replace(partial, note)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)

"""Preset `paper`: what the study did to its images and models, where that is not what embedcache does. No torch.

No antialias filter and no clamp in the resize, then each image stretched from its lowest to its highest value, the mean and
standard deviation of ImageNet for every backbone, and DINOv2's own way to fit position embeddings, which adds .1 to the
grid's sides. Each of it stands in the recipe.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from embedcache.backbones.description import IMAGENET_MEAN, IMAGENET_STD
from embedcache.errors import InputError
from embedcache.types import BackboneInfo, ImageRecipe

PRESETS = ("default", "paper")
RESIZE = "torch-bicubic-min-max"
OFFSET = "dinov2-bicubic-offset-0.1"
WINDOWS: Mapping[str, str] = MappingProxyType(
    {"amos22": "-212/1624", "msd-heart": "percentile:5,95", "brain-tumor": "percentile:5,95"}
)
"""Dataset → the study's window, where it had one: HU from -1024 to 600, and each slice's 5th to 95th percentile."""
ASKED_OF = {"google/vit-large-patch16-224-in21k": "google/vit-large-patch16-224"}
"""Backbone → the one that the study most likely loaded under that name."""


def as_in_paper(info: BackboneInfo) -> BackboneInfo:
    """The backbone with what the study gave it. Raises InputError for an encoder of volumes; a floor stays as it is."""
    if info.volume is not None:
        raise InputError(f"preset paper is of slices, and {info.name} takes whole volumes; leave --preset out.")
    if not info.model.weights_digest:
        return replace(info, resize=RESIZE)
    fitted = OFFSET if info.family == "dinov2" else info.model.position_interpolation
    model = replace(info.model, position_interpolation=fitted)
    return replace(info, resize=RESIZE, mean=IMAGENET_MEAN, std=IMAGENET_STD, model=model)


def preset_of(image: ImageRecipe) -> str:
    """The preset that a recorded recipe was made under."""
    return "paper" if image.resize == RESIZE else "default"


def window_in(preset: str, dataset: str, asked: str) -> str:
    """The window of an extraction: what was asked, else what the preset has for the dataset."""
    return WINDOWS.get(dataset, asked) if preset == "paper" and asked == "auto" else asked


def what_paper_changes(info: BackboneInfo, window: str, asked: str) -> Iterator[str]:
    """Lines for the user about one backbone under the preset, and the window if it is the preset's."""
    yield (
        f"preset paper, {info.name}: resize {info.resize}, mean {_short(info.mean)}, std {_short(info.std)}, positions "
        f"{info.model.position_interpolation}" + (f", window {window}" if window != asked else "")
    )
    if info.model.source in ASKED_OF:
        yield f"the study most likely ran {ASKED_OF[info.model.source]}, not {info.model.source}"


def _short(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3f}" for value in values)

"""What an extraction is asked to do: one frozen configuration, and its words parsed at the boundary."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from embedcache.backbones.paper import PRESETS
from embedcache.datasets.base import DatasetOptions
from embedcache.errors import InputError, suggest
from embedcache.fields import hold_fields
from embedcache.images.options import ImageOptions, Plane, VolumeOptions, parse_spacing, parse_voxels
from embedcache.images.views import parse_augmentation
from embedcache.store.quantise import int8_arrays
from embedcache.types import ArraySpec, Augmentation, BackboneInfo, Fit, ImageRecipe, StoredType, TokenKind, Unit

TOKEN_WORDS: dict[str, TokenKind] = {
    "cls": "cls_token",
    "mean": "patch_mean",
    "patch": "patch_tokens",
    "pooled": "pooled",
}
BATCH_SIZES: Mapping[Unit, Mapping[str, int]] = MappingProxyType(
    {"slice": {"cpu": 8, "cuda": 64}, "volume": {"cpu": 1, "cuda": 4}}
)
"""A constant per unit and device kind: batches are part of what makes the tokens of two stores equal byte for byte, so no timing
decides them."""
CPU_ROWS_PER_SHARD: Mapping[Unit, int] = MappingProxyType({"slice": 256, "volume": 16})
"""The most, unless asked for otherwise: a minute or two of a CPU's work, which is what a kill loses. A GPU fills the largest
shards in less."""


@dataclass(frozen=True)
class ExtractConfig:
    """One extraction: which images, which backbones, which tokens, and where they go."""

    dataset: str
    """`nih-cxr14`, `table`, `folder`, …: see `embedcache.list_datasets()`."""
    root: str
    """The dataset's folder, or the table."""
    backbones: tuple[str, ...]
    """Hub names or local folders; all of them share one reading of the images. `sync_labels` needs none."""
    cache: str = "cache"
    tokens: str = "cls,mean"
    """Of `cls`, `mean`, `patch`, `pooled` (a model's own pooled vector), with commas."""
    layers: str = "last"
    """`last`, `last:4`, `all`, or numbers with commas: blocks from 1, negative from the end."""
    dtype: StoredType = "float16"
    """Of what is stored. `int8` is for patch tokens, which get a scale each; vectors stay float16 beside them."""
    preset: str = "default"
    """`paper` for what the study did where that is something else: see `embedcache.backbones.paper`."""
    window: str = "auto"
    plane: Plane = "stored"
    """The slices as files store them, or `axial`, `coronal`, `sagittal`: a volume is turned by its affine, never resampled."""
    time: int = 0
    """Which time point of a series of volumes, from 0."""
    strict: bool = False
    """Set a sample aside for whatever would only be a warning about its file."""
    fit: Fit = "squash"
    size: int | tuple[int, int] | None = None
    """Input size in pixels (height, width); None is each backbone's own."""
    spacing: str = "own"
    """Of encoders of whole volumes: `own`, `none` (a volume is stretched to the input), or mm as `1.5` or `3,1,1` (z, y, x)."""
    volume_size: str | None = None
    """Of the same: voxels of the input as `96` or `64,96,96` (z, y, x); None is each one's own."""
    sliding: float | None = None
    """Of the same: windows of its own size over the input, which share so much with the next; None shows it all at once."""
    revision: str | None = None
    weights: str | None = None
    """A folder of carried weights, where hub names are looked for first (`embedcache weights pull`)."""
    compute_dtype: str = "float32"
    """`float32`, `bfloat16`, `float16` (autocast) or `bfloat16-cast`, `float16-cast`; `fp32`, `bf16`, `fp16` for short."""
    attention: str = "sdpa"
    tf32: bool = False
    """On a GPU: float32 products with 10 bits of mantissa."""
    compiled: bool = False
    """`torch.compile` of each block: faster where there is a compiler, with the last bits its own."""
    views: int = 0
    """How many augmented views there are of each slice besides view 0, each a store of its own."""
    view_preset: str = "medical"
    """How they are drawn: see `embedcache.images.views`."""
    view_seed: int = 0
    view: int | None = None
    """Only this view, and not 0 to `views`: what `config_like` asks for."""
    limit: int | None = None
    where: str | None = None
    sample_list: str | None = None
    options: DatasetOptions = field(default_factory=DatasetOptions)
    ids: Literal["pseudonym", "keep"] = "pseudonym"
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`."""
    batch_size: int | None = None
    """None is 8 on a CPU and 64 on a GPU, of whole volumes 1 and 4. Fixed for a pass once it is planned."""
    threads: int | None = None
    """CPU threads of the forward pass; None is all cores. Fixed for a pass once it is planned."""
    rows_per_shard: int | None = None
    """A power of two; None is the largest that FORMAT.md allows, on a CPU 256 slices or 16 volumes at most. Smaller shards lose
    less work to a kill."""
    workers: int | None = None
    """Decode processes; None is half the cores on a CPU, one core less than all but 32 at most on a GPU."""
    decode_timeout: float = 120.0
    """Seconds after which a decoder that gives no answer is replaced and its sample set aside."""
    mixed: bool = False
    """Allow one pass to hold shards of several device kinds or library versions."""
    devices: str | None = None
    """Several devices, each with a process of its own: `cuda:0,cuda:1`, `all`, or `cpu:2` for two processes on the CPU."""
    allow_bad: str = "0"
    """How many samples may be set aside, as a number or as `2%` of those asked for, before `exit_code` is 1."""
    retry_quarantined: bool = False
    """Try samples again that were set aside, after their files were mended."""

    like: str | None = None
    """A store whose recorded configuration this one repeats: each field that differs is told (`config_like` makes it)."""

    def __post_init__(self) -> None:
        hold_fields(self)
        if min(self.views, self.view or 0, self.view_seed) < 0:
            raise InputError(f"views and their seed must be at least 0. Got {self.views}, {self.view_seed}.")
        parse_augmentation(self.view_preset, self.view_seed)
        for name in ("limit", "batch_size", "threads", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1. Got {value}.")
        if self.rows_per_shard is not None and (
            self.rows_per_shard < 1 or self.rows_per_shard & (self.rows_per_shard - 1)
        ):
            raise InputError(f"rows_per_shard must be a power of two. Got {self.rows_per_shard}.")
        if self.dtype == "int8" and "patch" not in [word.strip() for word in self.tokens.split(",")]:
            raise InputError(
                f"dtype int8 is for patch tokens, and tokens {self.tokens} names none; add patch to --tokens, or use float16."
            )
        if self.preset not in PRESETS:
            raise suggest("preset", self.preset, PRESETS)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise InputError(f"device must be auto, cpu, cuda or cuda:N. Got {self.device!r}.")
        if self.input_size is not None and min(self.input_size) < 1:
            raise InputError(f"size must be at least 1 pixel. Got {self.size}.")
        self.allowed_bad(0)
        ImageOptions(self.plane, self.time, self.strict)  # it refuses an unknown plane and a negative time point
        _ = self.volume_options
        if self.decode_timeout <= 0:
            raise InputError(f"decode_timeout must be above 0 seconds. Got {self.decode_timeout}.")

    @property
    def cache_folder(self) -> Path:
        """The cache as an absolute path."""
        return Path(self.cache).expanduser().resolve()

    @property
    def view_numbers(self) -> tuple[int, ...]:
        """The views that are extracted."""
        return tuple(range(self.views + 1)) if self.view is None else (self.view,)

    @property
    def augmentation(self) -> Augmentation:
        """How all but view 0 are drawn."""
        return parse_augmentation(self.view_preset, self.view_seed)

    @property
    def image_options(self) -> ImageOptions:
        """How images are read."""
        return ImageOptions(self.plane, self.time, self.strict)

    def options_for(self, image: ImageRecipe) -> ImageOptions:
        """How images are read for one recipe: planes are of slices, and a whole volume is turned as it is read."""
        return self.image_options if image.volume is None else replace(self.image_options, plane="stored")

    @property
    def volume_options(self) -> VolumeOptions:
        """How encoders of whole volumes see them."""
        size = None if self.volume_size is None else parse_voxels(self.volume_size)
        return VolumeOptions(parse_spacing(self.spacing), size, self.sliding)

    def allowed_bad(self, samples: int) -> int:
        """How many of `samples` may be set aside. Raises InputError if `allow_bad` is neither a number nor a share."""
        number = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", self.allow_bad.strip())
        if number is None or (not number[2] and "." in number[1]):
            raise InputError(
                f"allow_bad must be a number of samples or a share of them like 2%. Got {self.allow_bad!r}."
            )
        return int(float(number[1]) / 100 * samples) if number[2] else int(number[1])

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(height, width)."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


def asked_arrays(config: ExtractConfig, info: BackboneInfo, size: tuple[int, ...]) -> tuple[ArraySpec, ...]:
    """The arrays that the configuration asks of one backbone at an input of `size`, in canonical order."""
    kinds = parse_tokens(config.tokens, info)
    vector: StoredType = "float16" if config.dtype == "int8" else config.dtype
    found = [ArraySpec(0, "pooled", vector, (info.pooled_size,))] if "pooled" in kinds else []
    for layer in parse_layers(config.layers, info):
        width = info.stages[layer - 1].width
        for kind in (kind for kind in kinds if kind != "pooled"):
            shape = (*info.grid(size, layer), width) if kind == "patch_tokens" else (width,)
            if config.dtype != "int8":
                found.append(ArraySpec(layer, kind, vector, shape))
            elif kind == "patch_tokens":
                found += int8_arrays(layer, shape)
            else:
                found.append(ArraySpec(layer, kind, vector, shape))
    return tuple(sorted(found, key=lambda a: (a.layer, a.kind)))


def parse_tokens(text: str, info: BackboneInfo) -> list[TokenKind]:
    """The token kinds that `text` names and the backbone has: one run may serve several, not all with a CLS token.

    Raises InputError if it has none of them.
    """
    words = [w.strip() for w in text.split(",")]
    for word in words:
        if word not in TOKEN_WORDS:
            raise suggest("token kind", word, TOKEN_WORDS)
    kinds = {TOKEN_WORDS[word] for word in words} & set(info.kinds)
    if not kinds:
        has = [word for word, kind in TOKEN_WORDS.items() if kind in info.kinds]
        raise InputError(
            f"{info.name} has none of --tokens {text}; it has {', '.join(info.kinds)}: give --tokens {' or '.join(has)}."
        )
    return sorted(kinds)


def tokens_missing(config: ExtractConfig, info: BackboneInfo) -> str:
    """What is said of a backbone that has only some of the tokens that were asked for; "" where it has all, or none was asked:
    the usual tokens of a run with several backbones are no wish."""
    words = list(dict.fromkeys(w.strip() for w in config.tokens.split(",")))
    absent = [word for word in words if TOKEN_WORDS.get(word) not in info.kinds]
    if config.tokens == ExtractConfig.tokens or not absent or len(absent) == len(words):
        return ""
    stored = ", ".join(word for word in words if word not in absent)
    return f"{info.name} has no {' or '.join(absent)} tokens: of --tokens {config.tokens} it stores {stored}"


def parse_layers(text: str, info: BackboneInfo) -> list[int]:
    """The layers that `text` names, counted from 1, ascending. Raises InputError for one that is not there."""
    depth = info.layers
    if text == "all":
        return list(range(1, depth + 1))
    if text == "last":
        text = "last:1"
    try:
        last = text.startswith("last:")
        asked = [-i for i in range(1, int(text[5:]) + 1)] if last else [int(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"layers must be like `last`, `last:4`, `all` or `-1,-4`. Got {text!r}.") from None
    for number in asked:
        if number == 0 or abs(number) > depth:
            raise InputError(f"{info.name} has layers 1 to {depth} (or -1 to -{depth}). Got {number}.")
    if not asked:
        raise InputError(f"layers names none. Got {text!r}.")
    return sorted({n if n > 0 else depth + 1 + n for n in asked})

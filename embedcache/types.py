"""The frozen nouns. A Dataset lists Samples; images reads each as a Volume; a Backbone yields Tokens; a
writer commits Shards of a Plan under a Recipe; a FeatureCache is opened, joined with a Task's Labels, and
a Probe fitted on a Split writes a Result.

Nothing here reads a file or computes a feature. A noun that was constructed is valid.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args, overload

import numpy as np
import numpy.typing as npt

from embedcache.coded import CodedTexts
from embedcache.errors import InputError, suggest

StringArray: TypeAlias = npt.NDArray[Any]
"""Of dtype numpy.dtypes.StringDType; numpy's stubs can not name it usefully."""
Texts: TypeAlias = StringArray | CodedTexts
"""A long column of texts, however it is held."""
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
IntArray: TypeAlias = npt.NDArray[np.int64]

TaskKind = Literal["binary", "multilabel", "multiclass", "numeric", "segmentation"]
Level = Literal["patient", "study", "sample", "slice"]
Part = Literal["train", "validation", "test"]
Scope = Literal["slice", "volume"]
Unit = Literal["slice", "volume"]
"""What a backbone sees at once, and so what a row of a store is."""
Voxels: TypeAlias = tuple[int, int, int]
"""Along (z, y, x): from feet to head, from anterior to posterior, from the patient's right to the left."""
Fit = Literal["squash", "pad", "processor"]
TokenKind = Literal["cls_token", "patch_mean", "patch_tokens", "patch_tokens_int8", "patch_scale", "pooled"]
StoredType = Literal["float16", "float32", "int8"]

PARTS: tuple[Part, ...] = get_args(Part)
TOKEN_KINDS: tuple[TokenKind, ...] = get_args(TokenKind)


def strings(values: Any) -> StringArray:
    """`values` as a compact numpy string array (16 bytes a value and the text once, not a Python object each)."""
    return np.asarray(values, dtype=np.dtypes.StringDType())


# --- what there is to look at ---------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A radiograph or a volume."""

    id: str
    """The store's id: a public dataset's own, or a pseudonym."""
    patient_id: str
    path: str
    """A file, or a folder that holds one series. Private: no store, log or message may carry it."""
    split: str
    """What the dataset says: `train`, `validation`, `test`, or "" where it says nothing."""
    where: str
    """How a message names it to the user without a path: `row 12 of cases.csv`."""


@dataclass(frozen=True)
class Samples:
    """Many samples by column, in the dataset's order: 10^7 of them fit in memory."""

    id: StringArray
    patient_id: StringArray
    path: StringArray
    split: StringArray
    row: IntArray
    """Position in the user's list, counted as the user would (a table's first data row is 1)."""
    listing: str
    """What `row` counts in, for messages: the base name of the table, or `the folder`."""

    def __post_init__(self) -> None:
        lengths = {len(self.id), len(self.patient_id), len(self.path), len(self.split), len(self.row)}
        if len(lengths) != 1:
            raise InputError(f"the columns of a sample list must be equally long. Got lengths {sorted(lengths)}.")

    def __len__(self) -> int:
        return len(self.id)

    def __getitem__(self, i: int) -> Sample:
        return Sample(str(self.id[i]), str(self.patient_id[i]), str(self.path[i]), str(self.split[i]), self.where(i))

    def where(self, i: int) -> str:
        """How a message names sample `i`: by its row, never by its path."""
        return f"row {int(self.row[i])} of {self.listing}"

    def take(self, index: npt.ArrayLike) -> "Samples":
        """The samples at `index` (integers or a mask), in that order."""
        i = np.asarray(index)
        return Samples(self.id[i], self.patient_id[i], self.path[i], self.split[i], self.row[i], self.listing)


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset is, for the store's attributes and for the user."""

    name: str
    version: str = ""
    licence: str = ""
    citation: str = ""
    homepage: str = ""
    public_ids: bool = False
    """True for the adapter of a public dataset: its ids and order enter the store as they are."""


# --- pixels ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """A named intensity mapping to [0, 1], in the file's physical units (HU for CT) after rescale.

    `auto` decides per file: its own display (VOI) if a DICOM file has one, else min-max of the slice; a raster's whole
    dtype range; percentile(0.5, 99.5) of a volume in any other format.
    """

    name: str
    """`auto`, `voi`, `min-max`, `percentile`, `range` (the dtype's own), or a width window such as `ct-lung`."""
    scope: Scope = "slice"
    numbers: tuple[tuple[float, float], ...] = ()
    """(centre, width) per channel for a width window; ((low, high),) in percent for `percentile`."""


@dataclass(frozen=True)
class VoiTable:
    """A VOI lookup table (DICOM PS3.3 C.11.2.1.1): the brightness of whole physical values; those before and after it
    are as bright as its first and last."""

    first: int
    """The physical value that its first entry is for."""
    entries: bytes
    """Native uint16."""
    white: int
    """The entry that displays as white; 0 is black."""


@dataclass(frozen=True)
class VoiSigmoid:
    """The VOI function SIGMOID (DICOM PS3.3 C.11.2.1.3.1): 1 / (1 + exp(-4 (value - centre) / width)) of white."""

    centre: float
    width: float


Voi: TypeAlias = tuple[float, float] | VoiTable | VoiSigmoid
"""How a file wants a slice displayed: a window (centre, width), centre -+ width / 2 being black and white; or a curve."""


@dataclass(frozen=True)
class Calibration:
    """How stored values become physical ones and then display ones, a number per slice (shape (n_slices,))."""

    slope: FloatArray
    intercept: FloatArray
    invert: bool = False
    """MONOCHROME1: low values are bright, so the windowed image is turned over."""
    voi: tuple[Voi | None, ...] = ()
    """The file's own display of each slice. None where it has none; () if no slice has one."""
    padding: tuple[float, float] | None = None
    """Stored values in this closed range are padding (PixelPaddingValue, PixelPaddingRangeLimit), kept out of statistics."""


@dataclass(frozen=True)
class Volume:
    """One sample's pixels: array (slice, y, x) or (slice, y, x, 3) in the stored dtype, slices in anatomical order."""

    pixels: npt.NDArray[Any]
    calibration: Calibration
    kind: Literal["raster", "dicom", "nifti", "volume", "array"]
    modality: str = ""
    """DICOM Modality (`CT`, `MR`, `DX`, …), "" where the file does not say."""
    spacing: tuple[float, float, float] | None = None
    """(between slices, row, column) in mm; None where the file does not say or it is no true distance."""
    affine: npt.NDArray[np.float64] | None = None
    """4x4, voxel (slice, y, x) to RAS mm; None where unknown."""
    time_point: int = 0
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.ndim not in (3, 4) or (self.pixels.ndim == 4 and self.pixels.shape[3] != 3):
            raise InputError(f"a volume must have shape (slice, y, x) or (slice, y, x, 3). Got {self.pixels.shape}.")


@dataclass(frozen=True)
class Mask:
    """A segmentation: array (slice, y, x) of class numbers on its image's own grid; 0 is background."""

    values: npt.NDArray[np.integer[Any]]
    classes: tuple[str, ...]
    """Names of classes 1, 2, …"""


# --- what decides a value -------------------------------------------------------------------------


@dataclass(frozen=True)
class Augmentation:
    """How the views of a slice other than view 0 are drawn: a random crop that is resized, and a random flip."""

    scale: tuple[float, float]
    """The crop's area as a share of the slice's: drawn evenly between these two."""
    ratio: tuple[float, float]
    """Its width over its height as a multiple of the slice's own: the logarithm is drawn evenly between these two."""
    flip: float
    """The probability that left and right are swapped."""
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"a view's scale must be 0 < low <= high <= 1. Got {self.scale}.")
        if not (0 < self.ratio[0] <= self.ratio[1] and math.isfinite(self.ratio[1])):
            raise InputError(f"a view's ratio must be 0 < low <= high. Got {self.ratio}.")
        if not 0 <= self.flip <= 1:
            raise InputError(f"a view's probability of a flip must be from 0 to 1. Got {self.flip}.")


@dataclass(frozen=True)
class VolumeInput:
    """How a whole volume becomes the input of an encoder of volumes (FORMAT.md, section 2)."""

    slices: int
    """Voxels of the input along z."""
    spacing: tuple[float, float, float] | None = None
    """mm between the input's voxels along (z, y, x): the volume is resampled to it, then cropped or bordered with black about its
    centre. None: all of it is stretched to the input, whatever its own spacing."""
    roi: Voxels | None = None
    """Sliding: what the model sees at once, in windows over the input. None, patched: all of the input."""
    overlap: float = 0.0
    """Sliding: the share of a window that the next one shows again, at least."""

    def __post_init__(self) -> None:
        sizes = (self.slices, *(self.roi or ()))
        if min(sizes) < 1 or not 0 <= self.overlap < 1 or (self.overlap > 0 and self.roi is None):
            raise InputError(
                f"a volume's input is at least one voxel, windows overlap by 0 to less than 1. Got {self}."
            )
        if self.spacing is not None and not all(0 < mm < math.inf for mm in self.spacing):
            raise InputError(f"the spacing of a volume's input must be above 0 mm. Got {self.spacing}.")


@dataclass(frozen=True)
class ImageRecipe:
    """From stored pixels to a backbone's input."""

    window: Window
    size: tuple[int, int]
    """(height, width) of the input in pixels; of a volume's input those of its slices."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit = "squash"
    resize: str = "torch-bicubic-antialias-clamp"
    processor: Mapping[str, Any] = field(default_factory=dict)
    """Under `fit=processor`: the numbers of the processor's own resize and crop; else empty."""
    plane: str = "stored"
    """As the file stores its slices, or `axial`, `coronal`, `sagittal` by its affine: see `images.planes`."""
    view: int = 0
    channels: int = 3
    time: int = 0
    """Which time point of a series of volumes, from 0. A later field: left out of the canonical document where it is 0."""
    augmentation: Augmentation | None = None
    """How a view other than 0 is drawn; None for view 0. A later field."""
    volume: VolumeInput | None = None
    """How a whole volume becomes one input; None where a slice does. A later field."""

    def __post_init__(self) -> None:
        if self.view < 0 or (self.view == 0) != (self.augmentation is None):
            raise InputError(f"view 0 has no augmentation, and every other one has. Got view {self.view}.")

    @property
    def unit(self) -> Unit:
        """What a row of its store is."""
        return "slice" if self.volume is None else "volume"

    @property
    def shape(self) -> tuple[int, int] | Voxels:
        """(height, width) of the input, or (z, y, x)."""
        return self.size if self.volume is None else (self.volume.slices, *self.size)


@dataclass(frozen=True)
class ModelRecipe:
    """From a backbone's input to its tokens."""

    family: str
    source: str
    """A hub name, or the base name of a local folder (never its path)."""
    revision: str
    weights_digest: str
    """SHA-256 over names and bytes of the weight files and of the model configuration."""
    adapter_digest: str | None = None
    compute_dtype: str = "float32"
    tf32: bool = False
    attention: str = "sdpa"
    position_interpolation: str = "transformers-bicubic"
    compiled: bool = False
    """Its blocks were compiled by torch.compile, whose fused kernels round elsewhere. A later field."""


@dataclass(frozen=True)
class Recipe:
    """All that decides a token's value before it is rounded for storage; its fingerprint names the store."""

    image: ImageRecipe
    model: ModelRecipe


@dataclass(frozen=True)
class Stage:
    """One layer of a backbone."""

    width: int
    """Numbers in a token."""
    stride: int
    """Pixels of the input per patch and axis."""
    strides: tuple[int, ...] = ()
    """Of an encoder of volumes whose patches are no cubes: voxels per patch along (z, y, x)."""

    def along(self, axes: int) -> tuple[int, ...]:
        """Pixels or voxels per patch along each of so many axes."""
        return self.strides or (self.stride,) * axes


@dataclass(frozen=True)
class BackboneInfo:
    """What is known of a backbone before its weights are loaded (from its configuration files alone, no torch)."""

    name: str
    """As the user gave it: a hub name or a folder."""
    folder: str
    """Where its files lie on this machine. Private."""
    family: str
    model: ModelRecipe
    stages: tuple[Stage, ...]
    """Its blocks (of a hierarchical model or a CNN: its stages), layer 1 first."""
    registers: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    processor: Mapping[str, Any]
    """The processor's resize and crop, as `backbones.description.processor_geometry` spells them out."""
    kinds: tuple[TokenKind, ...]
    loader: str
    """`package.module:function`; called with (info, device) it returns the loaded Backbone."""
    licence: str = ""
    citation: str = ""
    norm: str = ""
    """What a stored layer has passed through, in words for the user."""
    pooled_size: int = 0
    """Length of the model's own pooled vector, where `kinds` has `pooled`."""
    fixed_size: bool = False
    """The architecture takes its own input size only."""
    volume: VolumeInput | None = None
    """Of an encoder of whole volumes: how it takes them, its own way until a recipe has chosen another. None: it sees slices."""
    window: str = ""
    """The intensity window of its training, as a user would name it; taken in place of `auto`. "" where nothing says one."""
    resize: str = "torch-bicubic-antialias-clamp"
    """How slices are brought to its size: of its recipes."""
    smallest_side: int = 0
    """Pixels below which the architecture takes no input: the windows of Swin must fit into its coarsest layer."""

    @property
    def store_name(self) -> str:
        """The folder of its stores: the hub name with `--` for `/`, or the local folder's base name."""
        return self.model.source.replace("/", "--")

    @property
    def layers(self) -> int:
        """How many layers there are; they count from 1."""
        return len(self.stages)

    @property
    def hidden_size(self) -> int:
        """Width of the last layer."""
        return self.stages[-1].width

    @property
    def patch_size(self) -> int:
        """Pixels per patch and axis of the last layer."""
        return self.stages[-1].stride

    @property
    def shape(self) -> tuple[int, int] | Voxels:
        """Its own input: (height, width), or (z, y, x)."""
        return self.size if self.volume is None else (self.volume.slices, *self.size)

    @overload
    def grid(self, size: tuple[int, int], layer: int = -1) -> tuple[int, int]: ...
    @overload
    def grid(self, size: Voxels, layer: int = -1) -> Voxels: ...
    @overload
    def grid(self, size: tuple[int, ...], layer: int = -1) -> tuple[int, ...]: ...
    def grid(self, size: tuple[int, ...], layer: int = -1) -> tuple[int, ...]:
        """Patches (y, x), or (z, y, x), of a layer at an input of `size`; layers count from 1, -1 is the last.

        Raises InputError for a size that the coarsest layer's patches do not divide, or that is below `smallest_side`.
        """
        axes = len(size)
        if min(size) < self.smallest_side:
            raise InputError(
                f"{self.name} takes no side below {self.smallest_side} pixels. Got {_by(size)}; use {self.smallest_side} or more."
            )
        steps = [max(strides) for strides in zip(*(stage.along(axes) for stage in self.stages), strict=True)]
        if any(n % step or n < step for n, step in zip(size, steps, strict=True)):
            told = steps[0] if len(set(steps)) == 1 else _by(steps)
            fitting = [max(1, n // step) * step for n, step in zip(size, steps, strict=True)]
            raise InputError(
                f"input size {_by(size)} is no multiple of {self.name}'s patch size {told}; "
                f"use {fitting[0] if axes == 2 else _by(fitting)}."
            )
        strides = self.stages[layer - 1 if layer > 0 else layer].along(axes)
        return tuple(n // stride for n, stride in zip(size, strides, strict=True))


def _by(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))


# --- what is stored -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArraySpec:
    """One array of tokens: its layer (0 = the root group, for `pooled`), kind, stored dtype and shape of one row."""

    layer: int
    kind: TokenKind
    dtype: StoredType
    shape: tuple[int, ...]

    @property
    def path(self) -> str:
        """Its path in the store: `layer_12/cls_token`."""
        return f"layer_{self.layer}/{self.kind}" if self.layer else self.kind

    @property
    def row_bytes(self) -> int:
        """Bytes of one row (one slice)."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Pass:
    """One extraction's set of arrays over the plan, and all that decides how its rows are batched."""

    id: str
    """`p` and 8 hex digits of its canonical content (everything below)."""
    arrays: tuple[ArraySpec, ...]
    rows_per_shard: int
    batch_size: int
    threads: int
    device_kind: str
    """`cpu` or `cuda`: a shard made on another kind is refused unless asked for."""
    dropped: tuple[tuple[int, int], ...] = ()
    """Ranges [first, stop) of shards that held superseded rows only, and that `gc` removed. No part of what it is."""

    def is_dropped(self, shard: int) -> bool:
        """Whether `gc` removed a shard."""
        return any(first <= shard < stop for first, stop in self.dropped)


@dataclass(frozen=True)
class Shard:
    """The unit of work, of writing and of resuming: rows [start, stop) of the slice axis."""

    index: int
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """Rows in order, frozen before extraction starts.

    Sample i owns rows slice_start[i] : slice_start[i] + slice_count[i]; a row that no sample owns is padding.
    """

    sample_id: StringArray
    patient_id: StringArray
    slice_start: IntArray
    slice_count: IntArray
    slice_index: npt.NDArray[np.int32]
    """Shape (rows,): position in the source volume, -1 in a padding row."""
    quantum: int
    """Q: a power of two; the row count is a multiple of it and no shard is longer."""

    @property
    def rows(self) -> int:
        """Length of the slice axis, padding included."""
        return len(self.slice_index)

    def owner(self) -> IntArray:
        """Shape (rows,): the sample that owns each row, -1 for padding."""
        owner = np.full(self.rows, -1, dtype=np.int64)
        owned = np.repeat(np.arange(len(self.slice_start)), self.slice_count)
        first = np.repeat(self.slice_start, self.slice_count)
        offset = np.arange(len(owned)) - np.repeat(np.cumsum(self.slice_count) - self.slice_count, self.slice_count)
        owner[first + offset] = owned
        return owner

    def rows_of(self, which: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Shape (rows,): whether a row is owned by a sample of `which`, shape (samples,)."""
        found = np.zeros(self.rows, dtype=np.bool_)
        found[self.slice_index >= 0] = np.repeat(which, self.slice_count)
        return found

    def shards(self, rows_per_shard: int) -> Iterator[Shard]:
        """The shards that own at least one row; padding alone is neither planned nor written."""
        owned = (self.slice_index >= 0).reshape(-1, rows_per_shard).any(axis=1)
        for k in np.flatnonzero(owned).tolist():
            yield Shard(k, k * rows_per_shard, (k + 1) * rows_per_shard)

    def shards_of(self, p: Pass) -> Iterator[Shard]:
        """The shards that a pass must have: those that own a row and were not dropped."""
        for shard in self.shards(p.rows_per_shard):
            if not p.is_dropped(shard.index):
                yield shard


@dataclass(frozen=True)
class Quarantined:
    """One row that holds zeros because its source could not be read."""

    row: int
    stage: str
    """`open`, `decode`, `preprocess` or `forward`."""
    reason: str
    """No path and no identifier in it."""


@dataclass(frozen=True)
class Commit:
    """What a commit says of one shard of one pass. It is written last, and ends with its own SHA-256."""

    shard: int
    rows: tuple[int, int]
    quarantined: tuple[Quarantined, ...]
    batch_size: int
    device: str
    versions: Mapping[str, str]
    objects: Mapping[str, str]
    """Array path → SHA-256 of the shard object's bytes."""
    host: str
    """Host and pid of the writer; free to differ between two equal stores, as the times are."""
    started: str
    finished: str


# --- what is asked --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A question with labels."""

    name: str
    kind: TaskKind
    classes: tuple[str, ...]
    """Binary: (the positive's name,). Multilabel: one per finding. Multiclass: all. Numeric: ()."""
    level: Level = "sample"
    positive: str | None = None
    """Binary: which value of the column counts as 1."""
    missing: tuple[str, ...] = ("",)
    """Values of the column that mean: not known."""
    column: str = ""
    """Where it came from, for `labels show`."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(TaskKind):
            raise InputError(f"task {self.name!r}: kind must be one of {get_args(TaskKind)}. Got {self.kind!r}.")
        if self.kind == "binary" and len(self.classes) != 1:
            raise InputError(f"task {self.name!r}: a binary task has one class, its positive. Got {self.classes}.")
        if self.kind == "multiclass" and len(self.classes) < 2:
            raise InputError(f"task {self.name!r}: a multiclass task needs two classes. Got {self.classes}.")


@dataclass(frozen=True)
class Labels:
    """What a dataset says of its samples, one row per (task, sample or slice or patient, class).

    `value`: 1 or 0 for binary and multilabel, NaN for missing; 1 on the row of the true class for multiclass; the
    number itself for numeric. A sample without any label has one row whose task is "", for its split.
    """

    tasks: tuple[Task, ...]
    task: Texts
    sample: Texts
    """Store ids; "" in the rows of a patient-level task."""
    patient: Texts
    slice: npt.NDArray[np.int32]
    """slice_index for a slice-level task, -1 elsewhere."""
    klass: Texts
    value: npt.NDArray[np.float64]
    split: Texts

    def get(self, name: str) -> Task:
        """The task called `name`."""
        for task in self.tasks:
            if task.name == name:
                return task
        raise suggest("task", name, [t.name for t in self.tasks])


@dataclass(frozen=True)
class Split:
    """Which samples train, validate and test. A patient is in one part only."""

    sample: StringArray
    patient: StringArray
    part: StringArray
    draw: int = 0
    seed: int | None = None
    name: str = ""


@dataclass(frozen=True)
class Metric:
    """One figure with its 95% interval."""

    name: str
    """`auroc`, `average_precision`, `accuracy`."""
    label: str
    """The class it speaks of, or `macro`."""
    value: float | None
    """None where undefined (a class without both labels), which is left out of the macro average by name."""
    low: float | None
    high: float | None
    method: str
    """How the interval was made: `logit, clustered by patient`, `BCa over patients`."""
    n: int
    positives: int
    patients: int
    note: str = ""
    """`few patients`, `undefined: no positive`, …"""


@dataclass(frozen=True)
class Result:
    """What a probe found, and all that is needed to find it again."""

    probe: str
    inputs: Mapping[str, Any]
    """Store fingerprint, passes, plan, labels, split, configuration, version: their digest names the result."""
    task: Task
    level: Level
    chosen: Mapping[str, Any]
    """Hyper-parameters that validation chose."""
    metrics: tuple[Metric, ...]
    counts: Mapping[str, int]
    """Samples and patients in each part, and what was left out."""
    timings: Mapping[str, float]
    software: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)
    """`dataset`, `backbone` and `store`, for tables; {} in a result of version 1."""
    selection: Mapping[str, Any] = field(default_factory=dict)
    """The path of the hyper-parameter, by choice of features and of the refit: values, what validation scored each at, and
    what the solver tells of each."""
    path: str = ""
    """Where it was written; not part of the file."""

    def metric(self, name: str, label: str = "macro") -> Metric:
        """The figure called `name` for `label`."""
        for m in self.metrics:
            if m.name == name and m.label == label:
                return m
        raise InputError(f"the result has no {name} for {label!r}.")

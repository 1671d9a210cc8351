"""The frozen nouns. A Dataset lists Samples; images reads each as a Volume; a Backbone yields Tokens; a
writer commits Shards of a Plan under a Recipe; a FeatureCache is opened, joined with a Task's Labels, and
a Probe fitted on a Split writes a Result.

Nothing here reads a file or computes a feature. A noun that was constructed is valid. Elsewhere they are imported from
here; a file each tells of `samples`, their `images`, the `recipes` and `backbones` that decide a token, the `tokens` and
`plans` of a store, and the `tasks` and `results` of a probe. `columns` has the array types that they share.
"""

from embedcache.types.backbones import BackboneInfo, Stage
from embedcache.types.columns import (
    FloatArray,
    IntArray,
    StringArray,
    Texts,
    ascii_bytes,
    can_be_laid_out,
    fixed_width,
    strings,
)
from embedcache.types.images import Calibration, Mask, Scope, Voi, VoiSigmoid, VoiTable, Volume, Window
from embedcache.types.plans import Commit, Pass, Plan, Quarantined, Shard
from embedcache.types.recipes import Augmentation, Fit, ImageRecipe, ModelRecipe, Recipe, Unit, VolumeInput, Voxels
from embedcache.types.results import Metric, Result
from embedcache.types.samples import DatasetInfo, Sample, Samples
from embedcache.types.tasks import PARTS, Labels, Level, Part, Split, Task, TaskKind, unknown_task
from embedcache.types.tokens import TOKEN_KINDS, ArraySpec, StoredType, TokenKind

__all__ = [
    "PARTS",
    "TOKEN_KINDS",
    "ArraySpec",
    "Augmentation",
    "BackboneInfo",
    "Calibration",
    "Commit",
    "DatasetInfo",
    "Fit",
    "FloatArray",
    "ImageRecipe",
    "IntArray",
    "Labels",
    "Level",
    "Mask",
    "Metric",
    "ModelRecipe",
    "Part",
    "Pass",
    "Plan",
    "Quarantined",
    "Recipe",
    "Result",
    "Sample",
    "Samples",
    "Scope",
    "Shard",
    "Split",
    "Stage",
    "StoredType",
    "StringArray",
    "Task",
    "TaskKind",
    "Texts",
    "TokenKind",
    "Unit",
    "Voi",
    "VoiSigmoid",
    "VoiTable",
    "Volume",
    "VolumeInput",
    "Voxels",
    "Window",
    "ascii_bytes",
    "can_be_laid_out",
    "fixed_width",
    "strings",
    "unknown_task",
]

"""embedcache: run a frozen vision backbone once over medical images, keep its tokens, probe them on a laptop.

Every public name is imported when it is first used: `import embedcache` costs milliseconds, and torch is only imported
by an extraction that has work to do.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Adapter": "embedcache.datasets.base",
    "ArraySpec": "embedcache.types",
    "Audit": "embedcache.datasets.audit",
    "Backbone": "embedcache.backbones",
    "BackboneInfo": "embedcache.types",
    "ComparedResults": "embedcache.evaluation.compare",
    "Dataset": "embedcache.datasets.base",
    "DatasetEntry": "embedcache.datasets.catalogue",
    "DatasetInfo": "embedcache.types",
    "DatasetOptions": "embedcache.datasets.base",
    "Diagnostics": "embedcache.probes.base",
    "EmbedcacheError": "embedcache.errors",
    "Embedded": "embedcache.extraction.embed",
    "ExtractConfig": "embedcache.extraction.config",
    "ExtractReport": "embedcache.extraction.report",
    "FeatureCache": "embedcache.store.reader",
    "Features": "embedcache.store.features",
    "FewShotConfig": "embedcache.evaluation.few_shot_config",
    "FewShotResult": "embedcache.evaluation.few_shot_result",
    "FittedPath": "embedcache.probes.base",
    "Grid": "embedcache.evaluation.grid",
    "GridConfig": "embedcache.evaluation.grid",
    "InputError": "embedcache.errors",
    "Labels": "embedcache.types",
    "Listener": "embedcache.extraction.progress",
    "LogisticPath": "embedcache.probes.estimators",
    "Masks": "embedcache.datasets.publishing",
    "Metric": "embedcache.types",
    "MissingPackageError": "embedcache.errors",
    "ModelRecipe": "embedcache.types",
    "OwnTask": "embedcache.datasets.publishing",
    "PatchProbeConfig": "embedcache.evaluation.patch_question",
    "Probe": "embedcache.probes.base",
    "ProbeConfig": "embedcache.evaluation.question",
    "Published": "embedcache.datasets.base",
    "Recipe": "embedcache.types",
    "Repetition": "embedcache.evaluation.repeat",
    "Result": "embedcache.types",
    "ResultTable": "embedcache.evaluation.result_table",
    "Sample": "embedcache.types",
    "Samples": "embedcache.types",
    "ShownSplit": "embedcache.evaluation.split_show",
    "Split": "embedcache.types",
    "Stage": "embedcache.types",
    "StoreError": "embedcache.errors",
    "SubgroupTable": "embedcache.evaluation.by_column",
    "Task": "embedcache.types",
    "TokenDataset": "embedcache.store.token_dataset",
    "Volume": "embedcache.types",
    "Weights": "embedcache.backbones.weights",
    "Window": "embedcache.types",
    "audit_dataset": "embedcache.datasets.audit",
    "check_figure": "embedcache.evaluation.figure_files",
    "check_file": "embedcache.evaluation.writable",
    "check_weights": "embedcache.backbones.carried",
    "collect_garbage": "embedcache.store.gc",
    "compare_results": "embedcache.evaluation.compare",
    "config_like": "embedcache.extraction.like",
    "describe_backbone": "embedcache.backbones",
    "describe_backbones": "embedcache.backbones.catalogue",
    "describe_datasets": "embedcache.datasets.catalogue",
    "describe_labels": "embedcache.datasets.describe",
    "describe_roles": "embedcache.datasets.describe",
    "doctor": "embedcache.extraction.doctor",
    "draw_few_shot": "embedcache.evaluation.few_shot_curve",
    "draw_grid": "embedcache.evaluation.grid_figure",
    "draw_pca": "embedcache.evaluation.pca_of_store",
    "draw_result": "embedcache.evaluation.figures",
    "embed": "embedcache.extraction.embed",
    "estimator_probe": "embedcache.probes.sklearn_probe",
    "explain_backbone": "embedcache.backbones.catalogue",
    "export_key": "embedcache.datasets.identifiers",
    "export_splits": "embedcache.evaluation.split_files",
    "extract": "embedcache.extraction.job",
    "few_shot": "embedcache.evaluation.few_shot",
    "few_shot_curves": "embedcache.evaluation.few_shot_stores",
    "find_leaks": "embedcache.evaluation.leaks",
    "find_shared": "embedcache.evaluation.shared",
    "import_key": "embedcache.datasets.identifiers",
    "import_splits": "embedcache.evaluation.split_files",
    "label_matrix": "embedcache.probes.base",
    "list_backbones": "embedcache.backbones",
    "list_datasets": "embedcache.datasets",
    "list_results": "embedcache.evaluation.results",
    "list_stores": "embedcache.store.catalog",
    "load_backbone": "embedcache.backbones",
    "make_splits": "embedcache.evaluation.split_files",
    "measure_subgroups": "embedcache.evaluation.by_column",
    "open_dataset": "embedcache.datasets",
    "parse_probe_options": "embedcache.evaluation.probe_options",
    "plan": "embedcache.extraction.plan",
    "probe": "embedcache.evaluation.probe:run_probe",
    "probe_all": "embedcache.evaluation.grid:run_grid",
    "probe_patches": "embedcache.evaluation.patch_probe:run_patch_probe",
    "published_dataset": "embedcache.datasets.publishing",
    "pull_weights": "embedcache.backbones.pull",
    "read_curve": "embedcache.evaluation.few_shot_result",
    "read_result": "embedcache.evaluation.results",
    "recompute": "embedcache.extraction.recompute",
    "relocate": "embedcache.datasets.relocate",
    "remove_store": "embedcache.store.catalog",
    "repair": "embedcache.extraction.repair:repair_store",
    "repeat_probe": "embedcache.evaluation.repeat",
    "reveal": "embedcache.datasets.reveal",
    "run_demo": "embedcache.testing.demo",
    "show_split": "embedcache.evaluation.split_show",
    "show_store": "embedcache.store.catalog",
    "strings": "embedcache.types",
    "sync_labels": "embedcache.extraction.sync",
    "tabulate_results": "embedcache.evaluation.result_table",
    "verify": "embedcache.store.verify:verify_store",
    "verify_labels": "embedcache.store.verify",
}

__all__ = [
    "Adapter",
    "ArraySpec",
    "Audit",
    "Backbone",
    "BackboneInfo",
    "ComparedResults",
    "Dataset",
    "DatasetEntry",
    "DatasetInfo",
    "DatasetOptions",
    "Diagnostics",
    "EmbedcacheError",
    "Embedded",
    "ExtractConfig",
    "ExtractReport",
    "FeatureCache",
    "Features",
    "FewShotConfig",
    "FewShotResult",
    "FittedPath",
    "Grid",
    "GridConfig",
    "InputError",
    "Labels",
    "Listener",
    "LogisticPath",
    "Masks",
    "Metric",
    "MissingPackageError",
    "ModelRecipe",
    "OwnTask",
    "PatchProbeConfig",
    "Probe",
    "ProbeConfig",
    "Published",
    "Recipe",
    "Repetition",
    "Result",
    "ResultTable",
    "Sample",
    "Samples",
    "ShownSplit",
    "Split",
    "Stage",
    "StoreError",
    "SubgroupTable",
    "Task",
    "TokenDataset",
    "Volume",
    "Weights",
    "Window",
    "__version__",
    "audit_dataset",
    "check_figure",
    "check_file",
    "check_weights",
    "collect_garbage",
    "compare_results",
    "config_like",
    "describe_backbone",
    "describe_backbones",
    "describe_datasets",
    "describe_labels",
    "describe_roles",
    "doctor",
    "draw_few_shot",
    "draw_grid",
    "draw_pca",
    "draw_result",
    "embed",
    "estimator_probe",
    "explain_backbone",
    "export_key",
    "export_splits",
    "extract",
    "few_shot",
    "few_shot_curves",
    "find_leaks",
    "find_shared",
    "import_key",
    "import_splits",
    "label_matrix",
    "list_backbones",
    "list_datasets",
    "list_results",
    "list_stores",
    "load_backbone",
    "make_splits",
    "measure_subgroups",
    "open_dataset",
    "parse_probe_options",
    "plan",
    "probe",
    "probe_all",
    "probe_patches",
    "published_dataset",
    "pull_weights",
    "read_curve",
    "read_result",
    "recompute",
    "relocate",
    "remove_store",
    "repair",
    "repeat_probe",
    "reveal",
    "run_demo",
    "show_split",
    "show_store",
    "strings",
    "sync_labels",
    "tabulate_results",
    "verify",
    "verify_labels",
]

if TYPE_CHECKING:
    from embedcache.backbones import Backbone, describe_backbone, list_backbones, load_backbone
    from embedcache.backbones.carried import check_weights
    from embedcache.backbones.catalogue import describe_backbones, explain_backbone
    from embedcache.backbones.pull import pull_weights
    from embedcache.backbones.weights import Weights
    from embedcache.datasets import list_datasets, open_dataset
    from embedcache.datasets.audit import Audit, audit_dataset
    from embedcache.datasets.base import Adapter, Dataset, DatasetOptions, Published
    from embedcache.datasets.catalogue import DatasetEntry, describe_datasets
    from embedcache.datasets.describe import describe_labels, describe_roles
    from embedcache.datasets.identifiers import export_key, import_key
    from embedcache.datasets.publishing import Masks, OwnTask, published_dataset
    from embedcache.datasets.relocate import relocate
    from embedcache.datasets.reveal import reveal
    from embedcache.errors import EmbedcacheError, InputError, MissingPackageError, StoreError
    from embedcache.evaluation.by_column import SubgroupTable, measure_subgroups
    from embedcache.evaluation.compare import ComparedResults, compare_results
    from embedcache.evaluation.few_shot import few_shot
    from embedcache.evaluation.few_shot_config import FewShotConfig
    from embedcache.evaluation.few_shot_curve import draw_few_shot
    from embedcache.evaluation.few_shot_result import FewShotResult, read_curve
    from embedcache.evaluation.few_shot_stores import few_shot_curves
    from embedcache.evaluation.figure_files import check_figure
    from embedcache.evaluation.figures import draw_result
    from embedcache.evaluation.grid import Grid, GridConfig
    from embedcache.evaluation.grid import run_grid as probe_all
    from embedcache.evaluation.grid_figure import draw_grid
    from embedcache.evaluation.leaks import find_leaks
    from embedcache.evaluation.patch_probe import run_patch_probe as probe_patches
    from embedcache.evaluation.patch_question import PatchProbeConfig
    from embedcache.evaluation.pca_of_store import draw_pca
    from embedcache.evaluation.probe import run_probe as probe
    from embedcache.evaluation.probe_options import parse_probe_options
    from embedcache.evaluation.question import ProbeConfig
    from embedcache.evaluation.repeat import Repetition, repeat_probe
    from embedcache.evaluation.result_table import ResultTable, tabulate_results
    from embedcache.evaluation.results import list_results, read_result
    from embedcache.evaluation.shared import find_shared
    from embedcache.evaluation.split_files import export_splits, import_splits, make_splits
    from embedcache.evaluation.split_show import ShownSplit, show_split
    from embedcache.evaluation.writable import check_file
    from embedcache.extraction.config import ExtractConfig
    from embedcache.extraction.doctor import doctor
    from embedcache.extraction.embed import Embedded, embed
    from embedcache.extraction.job import extract
    from embedcache.extraction.like import config_like
    from embedcache.extraction.plan import plan
    from embedcache.extraction.progress import Listener
    from embedcache.extraction.recompute import recompute
    from embedcache.extraction.repair import repair_store as repair
    from embedcache.extraction.report import ExtractReport
    from embedcache.extraction.sync import sync_labels
    from embedcache.probes.base import Diagnostics, FittedPath, Probe, label_matrix
    from embedcache.probes.estimators import LogisticPath
    from embedcache.probes.sklearn_probe import estimator_probe
    from embedcache.store.catalog import list_stores, remove_store, show_store
    from embedcache.store.features import Features
    from embedcache.store.gc import collect_garbage
    from embedcache.store.reader import FeatureCache
    from embedcache.store.token_dataset import TokenDataset
    from embedcache.store.verify import verify_labels
    from embedcache.store.verify import verify_store as verify
    from embedcache.testing.demo import run_demo
    from embedcache.types import (
        ArraySpec,
        BackboneInfo,
        DatasetInfo,
        Labels,
        Metric,
        ModelRecipe,
        Recipe,
        Result,
        Sample,
        Samples,
        Split,
        Stage,
        Task,
        Volume,
        Window,
        strings,
    )


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'embedcache' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    value = getattr(importlib.import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])

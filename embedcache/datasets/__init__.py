"""Datasets: what there is to look at, and what is known of it. One file per dataset, found by name or entry point."""

from embedcache.datasets.base import DEFAULT_OPTIONS, Adapter, Dataset, DatasetOptions
from embedcache.errors import InputError
from embedcache.registry import Registry
from embedcache.types import DatasetInfo

REGISTRY = Registry(
    "dataset",
    "embedcache.datasets",
    {
        "table": "embedcache.datasets.table:open_table",
        "folder": "embedcache.datasets.folder:open_folder",
        "dicom-tree": "embedcache.datasets.dicom_tree:open_dicom_tree",
        "nnunet": "embedcache.datasets.nnunet:open_nnunet",
        "medmnist": "embedcache.datasets.medmnist:open_medmnist",
        "nih-cxr14": "embedcache.datasets.nih_cxr14:open_nih_cxr14",
        "chexpert": "embedcache.datasets.chexpert:open_chexpert",
        "montgomery": "embedcache.datasets.montgomery:open_montgomery",
        "shenzhen": "embedcache.datasets.shenzhen:open_shenzhen",
        "sars-cov-2-ct": "embedcache.datasets.sars_cov_2_ct:open_sars_cov_2_ct",
        "amos22": "embedcache.datasets.amos22:open_amos22",
        "msd-heart": "embedcache.datasets.msd_heart:open_msd_heart",
        "brain-tumor": "embedcache.datasets.brain_tumor:open_brain_tumor",
    },
)


def list_datasets() -> list[DatasetInfo]:
    """What every registered dataset says of itself, sorted by name."""
    return [find_adapter(name).info for name in REGISTRY.names()]


def open_dataset(name: str, root: str, options: DatasetOptions = DEFAULT_OPTIONS) -> Dataset:
    """The dataset `name` at `root`: a table's file, or the folder that a dataset lies in.

    Raises UnknownNameError for a name that is not registered, InputError for whatever is wrong with the data.
    """
    return find_adapter(name)(root, options)


def find_adapter(name: str) -> Adapter:
    """The adapter of the dataset `name`. Raises UnknownNameError."""
    found = REGISTRY.load(name)
    if not isinstance(found, Adapter):
        raise InputError(
            f"dataset {name!r} is registered as something else than an Adapter; its package must mend that."
        )
    return found


__all__ = ["REGISTRY", "Adapter", "Dataset", "DatasetOptions", "find_adapter", "list_datasets", "open_dataset"]

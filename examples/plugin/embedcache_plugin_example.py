"""A backbone, a dataset and a probe that `pyproject.toml` names as entry points; nothing here imports torch.

Its tests are three lines: `check_backbone("tiles:8")`, `check_dataset(named_files, FOLDER)`, `check_probe("ridge-classifier")`,
all of `embedcache.testing`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import RidgeClassifier

import embedcache
from embedcache import (
    Adapter,
    BackboneInfo,
    Dataset,
    DatasetInfo,
    DatasetOptions,
    InputError,
    ModelRecipe,
    Stage,
    strings,
)

FILES = DatasetInfo("named-files", homepage="a folder of <patient>_<number>_<ill or well>.png")
RidgeClassifierProbe = embedcache.estimator_probe(
    RidgeClassifier, parameter="alpha", grid=(100.0, 1.0, 0.01), smoothest="largest"
)


def describe_tiles(side: str, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """`tiles:8`: the mean colour of each tile of 8x8 pixels. It has no weights, and both settings decide nothing here."""
    if not side.isdigit() or not 1 <= int(side) <= 64:
        raise InputError(f"tiles takes a side from 1 to 64, as in tiles:8. Got tiles:{side}.")
    model = ModelRecipe("tiles", f"tiles-{side}", "", "", attention="none", position_interpolation="none")
    return BackboneInfo(
        f"tiles:{side}", "", "tiles", model, (Stage(width=3, stride=int(side)),), registers=0, size=(8 * int(side),) * 2,
        mean=(0.0,) * 3, std=(1.0,) * 3, processor={}, kinds=("patch_tokens",), loader="embedcache_plugin_example:Tiles",
        norm="none: they are colours",
    )  # fmt: skip


@dataclass(frozen=True)
class Tiles:
    """The loaded backbone; `device` is where its input lies anyway."""

    info: BackboneInfo
    device: str = "cpu"

    def tokens(self, x, arrays):
        """Of images x (n, 3, y, x): the means of their tiles (n, tiles along y, tiles along x, 3)."""
        (rows, columns), side = self.info.grid(tuple(x.shape[2:])), self.info.patch_size
        tiles = x.reshape(len(x), 3, rows, side, columns, side).mean((3, 5)).permute(0, 2, 3, 1)
        return {array.path: tiles for array in arrays}


def list_files(root: Path, options: DatasetOptions) -> Dataset:
    """The files in the order of their names, which say whose they are and what was found."""
    options.only(FILES.name, "name")
    files = sorted(root.glob("*_*_*.png"))  # a file system lists them in any order
    if not files:
        raise InputError(f"{root.name} holds no <patient>_<number>_<ill or well>.png; give the folder that does.")
    patients, _, findings = zip(*(file.stem.split("_", 2) for file in files), strict=True)
    samples = embedcache.Samples(
        id=strings([file.name for file in files]),
        patient_id=strings(patients),
        path=strings([str(file) for file in files]),
        split=strings([""] * len(files)),
        row=np.arange(1, len(files) + 1),
        listing="the folder",
    )
    task = embedcache.Task("ill", "binary", ("ill",))
    values = np.array([[float(finding == "ill")] for finding in findings])
    return embedcache.published_dataset(FILES, None, options, samples, [embedcache.OwnTask(task, values)], columns={})


named_files = Adapter(FILES, list_files)

"""Masks stored in another order or direction than their images: through the store's masks, the patch head and the audit."""

import json
from pathlib import Path

import numpy as np
import pytest

import embedcache
from embedcache import DatasetOptions, ExtractConfig, PatchProbeConfig
from embedcache.datasets.audit import audit_dataset
from embedcache.errors import InputError
from embedcache.evaluation.mask_files import StoreMasks, open_masks
from embedcache.store.reader import FeatureCache
from embedcache.testing.files import write_nifti

OPTIONS = DatasetOptions(id_column="case")
PARTS = ("train", "train", "validation", "test")
AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
SHAPE = (16, 16, 3)


def box(i: int) -> np.ndarray:
    values = np.zeros(SHAPE, np.uint8)
    values[2 + i : 6 + i, 3:9, 1:] = 1
    return values


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for i in range(len(PARTS)):
        write_nifti(tmp_path / f"i{i}.nii", 20 + 200 * box(i), AFFINE)
    rows = [f"case{i},i{i}.nii,m{i}.nii,{part}" for i, part in enumerate(PARTS)]
    (tmp_path / "cases.csv").write_text("case,path,mask,split\n" + "\n".join(rows) + "\n")
    return tmp_path / "cases.csv"


def write_masks(table: Path, affine: np.ndarray) -> None:
    for i in range(len(PARTS)):
        write_nifti(table.with_name(f"m{i}.nii"), box(i), affine)


def extracted(table: Path, **changes: object) -> Path:
    embedcache.extract(
        ExtractConfig(
            dataset="table", root=str(table), backbones=("patches:4",), cache=str(table.parent / "cache"), tokens="patch",
            size=16, threads=1, workers=1, device="cpu", options=OPTIONS, **changes,
        )
    )  # fmt: skip
    (store,) = table.parent.glob("cache/*/*/*.zarr")
    return store


def opened(table: Path, store: Path) -> StoreMasks:
    return open_masks(FeatureCache.open(store), "table", str(table), OPTIONS)


@pytest.mark.parametrize("plane", ["stored", "coronal"])
def test_a_mask_without_a_geometry_is_laid_by_index_and_that_is_said(table: Path, plane: str) -> None:
    write_masks(table, np.eye(4))
    store = extracted(table, plane=plane)
    masks = opened(table, store)
    for i, place in enumerate(masks.where):
        case = int(place.split()[1]) - 1
        image = embedcache.images.open_image(str(table.with_name(f"i{case}.nii")), masks.image_options)
        np.testing.assert_array_equal(masks.values(i), image.read(0, image.n_slices).pixels == 220)
    config = PatchProbeConfig(store, "table", str(table), OPTIONS, C=(1.0,), resamples=50)
    assert any(
        "4 masks were laid on their images by voxel index" in w for w in embedcache.probe_patches(config).warnings
    )
    audit = audit_dataset("table", str(table), OPTIONS)
    assert not audit.problems
    assert any(notice.startswith("4 of the masks that were opened are laid") for notice in audit.notices)


def test_a_mask_on_another_grid_is_refused_by_its_row(table: Path) -> None:
    elsewhere = AFFINE.copy()
    elsewhere[0, 3] = 40
    write_masks(table, elsewhere)
    masks = opened(table, extracted(table))
    with pytest.raises(
        InputError, match=r"the mask of row \d of cases\.csv can not be used: its header lays it elsewhere"
    ):
        masks.values(0)
    problems = audit_dataset("table", str(table), OPTIONS).problems
    assert len(problems) == 4
    assert "lays it elsewhere" in problems[0]


def test_a_mask_that_says_how_it_lies_needs_its_image(table: Path) -> None:
    write_masks(table, AFFINE)
    masks = opened(table, extracted(table))
    for i in range(1, len(PARTS)):
        table.with_name(f"i{i}.nii").unlink()
    i = next(i for i, place in enumerate(masks.where) if place != "row 1 of cases.csv")
    with pytest.raises(InputError, match="lies on its image is not known, as that can not be read"):
        masks.values(i)


def test_a_sample_whose_image_changed_keeps_its_mask(table: Path) -> None:
    write_masks(table, AFFINE)
    extracted(table)
    write_nifti(table.with_name("i1.nii"), 30 + 200 * box(1), AFFINE)
    store = extracted(table)
    cache = FeatureCache.open(store)
    assert cache.samples().superseded.sum() == 1
    masks = opened(table, store)
    assert len(masks.sample) == 4
    assert not cache.samples().superseded[masks.sample].any()
    result = embedcache.probe_patches(PatchProbeConfig(store, "table", str(table), OPTIONS, C=(1.0,), resamples=50))
    assert json.loads(json.dumps(result.counts))["train_samples"] == 2

"""Masks as the datasets of the study have them, through the patch head: two files of one mask, names of values."""

from pathlib import Path

import numpy as np
import pytest

import embedcache
from embedcache import DatasetOptions, ExtractConfig, PatchProbeConfig
from embedcache.errors import InputError
from embedcache.evaluation.mask_files import MaskClasses, mask_classes, open_masks
from embedcache.store.reader import FeatureCache
from embedcache.testing import make_replica
from embedcache.testing.files import write_png


@pytest.fixture
def extracted(tmp_path: Path, tiny: Path) -> tuple[Path, Path]:
    """A replica of Montgomery and its store of patch tokens."""
    root = make_replica("montgomery", tmp_path / "data")
    embedcache.extract(
        ExtractConfig(
            dataset="montgomery", root=str(root), backbones=(str(tiny),), cache=str(tmp_path / "cache"), tokens="patch",
            size=28, batch_size=4, threads=1, workers=1, device="cpu",
        )
    )  # fmt: skip
    (store,) = (tmp_path / "cache").glob("montgomery/*/*.zarr")
    return root, store


def test_two_files_are_one_mask_of_two_lungs(extracted: tuple[Path, Path]) -> None:
    root, store = extracted
    masks = open_masks(FeatureCache.open(store), "montgomery", str(root), DatasetOptions())
    values = masks.values(0)
    assert values.shape == (1, 40, 48)
    assert np.unique(values).tolist() == [0, 1, 2]
    assert (values[0, 8:32, 26:40] == 1).all(), "the left lung is drawn on the right of the image"
    assert (values[0, 8:32, 6:20] == 2).all()
    assert mask_classes(masks, None) == MaskClasses((("left lung"), ("right lung")), ((0, 0), (1, 1), (2, 2)))
    assert mask_classes(masks, "1=lung,2=lung").names == ("lung",)


def test_the_patch_head_names_the_datasets_classes(extracted: tuple[Path, Path]) -> None:
    root, store = extracted
    result = embedcache.probe_patches(PatchProbeConfig(store=store, dataset="montgomery", root=str(root), C=(1.0,)))
    assert result.task.classes == ("left lung", "right lung")


def test_files_of_several_sizes_are_refused(extracted: tuple[Path, Path]) -> None:
    root, store = extracted
    write_png(root / "ManualMask/leftMask/MCUCXR_0001_1.png", np.zeros((40, 47), np.uint8))
    masks = open_masks(FeatureCache.open(store), "montgomery", str(root), DatasetOptions())
    with pytest.raises(InputError, match="the mask of row 1 of CXR_png is files of several sizes"):
        masks.values(0)

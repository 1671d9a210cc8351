"""One dataset cut along several planes and time points: stores apart, rows never mixed up, nothing read that is not asked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import embedcache
from embedcache import DatasetOptions, ExtractConfig, FeatureCache
from embedcache.errors import InputError
from embedcache.evaluation.mask_files import open_masks
from embedcache.testing.files import write_nifti

RNG = np.random.default_rng(4)
SHAPE = (4, 5, 6)
"""(right, anterior, superior), so each plane has its own number of slices."""


@pytest.fixture
def volumes(tmp_path: Path, tiny: Path) -> ExtractConfig:
    folder = tmp_path / "volumes"
    folder.mkdir()
    lines = ["path,case"]
    for i in range(3):
        write_nifti(folder / f"v{i}.nii.gz", RNG.integers(0, 99, (*SHAPE, 2)).astype(np.int16))
        lines.append(f"v{i}.nii.gz,case{i}")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    return ExtractConfig(
        dataset="table",
        root=str(folder / "cases.csv"),
        backbones=(str(tiny),),
        cache=str(tmp_path / "cache"),
        size=28,
        batch_size=4,
        threads=1,
        workers=1,
        options=DatasetOptions(id_column="case"),
        device="cpu",
    )


def stores(config: ExtractConfig) -> list[FeatureCache]:
    return [FeatureCache.open(path) for path in Path(config.cache).glob("*/*/*.zarr")]


def test_each_plane_and_time_point_is_a_store_with_its_own_rows(volumes: ExtractConfig) -> None:
    asked = [("stored", 0), ("coronal", 0), ("sagittal", 0), ("coronal", 1), ("axial", 0)]
    for plane, time in asked:
        embedcache.extract(replace(volumes, plane=plane, time=time))
    found = {(s.recipe.image.plane, s.recipe.image.time): s for s in stores(volumes)}
    assert sorted(found) == sorted(asked)
    slices = {"stored": 6, "axial": 6, "coronal": 5, "sagittal": 4}
    for (plane, _), store in found.items():
        assert store.samples().slices.tolist() == [slices[plane]] * 3
    tokens = {key: store.features("cls").X for key, store in found.items()}
    np.testing.assert_array_equal(tokens["stored", 0], tokens["axial", 0])  # NIfTI is axial as it is
    assert not np.array_equal(tokens["coronal", 0], tokens["coronal", 1])


def test_a_plane_asked_first_leaves_the_index_fit_for_the_stored_one(volumes: ExtractConfig) -> None:
    coronal = replace(volumes, plane="coronal")
    assert embedcache.extract(replace(coronal, limit=2)).decoded == 10
    assert embedcache.extract(volumes).decoded == 18
    assert embedcache.extract(coronal).decoded == 5, "the store grows by the one volume that it lacks"
    assert embedcache.extract(coronal).decoded == embedcache.extract(volumes).decoded == 0


def test_a_source_that_changed_is_found_whatever_plane_it_was_read_in(volumes: ExtractConfig) -> None:
    coronal = replace(volumes, plane="coronal")
    embedcache.extract(coronal)
    write_nifti(Path(volumes.root).with_name("v1.nii.gz"), RNG.integers(0, 99, (4, 7, 6, 2)).astype(np.int16))
    assert embedcache.extract(coronal).decoded == 7
    assert embedcache.extract(volumes).decoded == 18


def test_strict_sets_aside_what_has_a_warning(volumes: ExtractConfig) -> None:
    report = embedcache.extract(replace(volumes, strict=True, allow_bad="3", time=0, limit=1))
    assert report.exit_code == 0
    (store,) = stores(volumes)
    (p,) = store.passes
    reasons = {bad.reason for commit in store.commits(p.id) for bad in commit.quarantined}
    assert reasons == {"strict: only the first of 2 time points is read."}


def test_a_recorded_plane_is_repeated(volumes: ExtractConfig) -> None:
    embedcache.extract(replace(volumes, plane="sagittal", time=1))
    (store,) = stores(volumes)
    again = embedcache.config_like(store.path, "table", volumes.root, volumes.options, backbones=volumes.backbones)
    assert (again.plane, again.time) == ("sagittal", 1)
    assert embedcache.extract(again).decoded == 0


def test_a_wrong_plane_or_time_is_refused_at_once(volumes: ExtractConfig) -> None:
    with pytest.raises(InputError, match="did you mean 'coronal'"):
        replace(volumes, plane="corona")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="counted from 0"):
        replace(volumes, time=-1)


def test_a_mask_is_cut_as_its_image_was(volumes: ExtractConfig) -> None:
    table = Path(volumes.root)
    mask = RNG.integers(0, 3, SHAPE).astype(np.uint8)
    for i in range(3):
        write_nifti(table.with_name(f"m{i}.nii.gz"), mask)
    table.write_text("path,case,mask\n" + "".join(f"v{i}.nii.gz,case{i},m{i}.nii.gz\n" for i in range(3)))
    options = replace(volumes.options, mask_column="mask")
    embedcache.extract(replace(volumes, plane="coronal", options=options))
    (store,) = stores(volumes)
    masks = open_masks(store, "table", volumes.root, options)
    # slices to anterior, head at the top, the patient's right on the left
    np.testing.assert_array_equal(masks.values(0), mask[::-1, :, ::-1].transpose(1, 2, 0))


def test_labels_of_stored_slices_are_none_of_another_planes(volumes: ExtractConfig) -> None:
    labels = Path(volumes.root).with_name("slices.csv")
    labels.write_text("id,slice,lesion\n" + "".join(f"case{i},{k},{k % 2}\n" for i in range(3) for k in range(2)))
    options = replace(volumes.options, label_table=str(labels), level="slice")
    for plane in ("stored", "coronal"):
        embedcache.extract(replace(volumes, plane=plane, options=options))
    stored, coronal = sorted(stores(volumes), key=lambda cache: cache.recipe.image.plane != "stored")
    assert np.isfinite(stored.features("cls", task="lesion", pool=None).y).sum() == 6
    with pytest.raises(InputError, match=r"holds coronal ones; extract with --plane stored"):
        coronal.features("cls", task="lesion", pool=None)

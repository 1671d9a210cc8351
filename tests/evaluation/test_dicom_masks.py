"""DICOM segmentations as masks: by position whatever the order of frames, by name whatever the numbers of segments."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

import embedcache
from embedcache import DatasetOptions, ExtractConfig, PatchProbeConfig
from embedcache.errors import InputError
from embedcache.evaluation.mask_files import mask_classes, open_masks
from embedcache.store.reader import FeatureCache
from embedcache.testing.files import write_dicom, write_png, write_series
from tests.images.dicom_makers import write_segmentation

SHAPE = (3, 32, 32)
SPACING = (2.0, 0.7, 0.7)
PARTS = ("train", "train", "validation", "test")


@dataclass(frozen=True)
class World:
    table: Path
    liver: list[np.ndarray]
    """(slice, y, x) of 0 and 1 per case, feet to head."""
    kidney: list[np.ndarray]

    def write(self, i: int, labels: tuple[str, ...] = ("Liver", "Kidney"), kind: str = "BINARY") -> None:
        """The segmentation of case i, its frames shuffled, numbered as `labels` come."""
        found = {"Liver": self.liver[i], "Kidney": self.kidney[i]}
        full = 100 if kind == "FRACTIONAL" else 1
        frames = [(n, s) for n in range(len(labels)) for s in range(SHAPE[0])]
        frames = [frames[k] for k in np.random.default_rng(i).permutation(len(frames))]
        write_segmentation(
            self.table.with_name(f"m{i}.dcm"),
            [(n + 1, full * found[labels[n]][s]) for n, s in frames],
            kind=kind,
            labels=labels,
            spacing=SPACING,
            positions=[(0, 0, SPACING[0] * s) for _, s in frames],
        )

    def probe(self, store: Path, **changes: object) -> PatchProbeConfig:
        options = DatasetOptions(id_column="case")
        return PatchProbeConfig(store, "table", str(self.table), options, C=(1.0,), resamples=50, **changes)


@pytest.fixture
def world(tmp_path: Path) -> World:
    rng = np.random.default_rng(3)
    liver, kidney = [], []
    for i in range(len(PARTS)):
        one, two = np.zeros((2, *SHAPE), np.uint8)
        row, column = 4 * rng.integers(0, 4, 2)  # whole patches
        one[:, row : row + 12, column : column + 12] = 1
        two[:2, row + 12 : row + 16, column : column + 12] = 1
        volume = rng.integers(0, 60, SHAPE) + 400 * one.astype(int) + 900 * two.astype(int)
        write_series(tmp_path / f"s{i}", volume.astype(np.int16), spacing=SPACING, series=f"s{i}", seed=i)
        liver.append(one)
        kidney.append(two)
    table = tmp_path / "cases.csv"
    rows = [f"case{i},patient{i},s{i},m{i}.dcm,{part}" for i, part in enumerate(PARTS)]
    table.write_text("case,patient,path,mask,split\n" + "\n".join(rows) + "\n")
    made = World(table, liver, kidney)
    for i in range(len(PARTS)):
        made.write(i)
    return made


@pytest.fixture
def store(world: World, tmp_path: Path) -> Path:
    return extracted(world, tmp_path)


def extracted(world: World, folder: Path, **changes: object) -> Path:
    embedcache.extract(
        ExtractConfig(
            dataset="table", root=str(world.table), backbones=("patches:4",), cache=str(folder / "cache"), tokens="patch",
            size=32, threads=1, workers=1, device="cpu", options=DatasetOptions(id_column="case"), **changes,
        )
    )  # fmt: skip
    (found,) = (folder / "cache").glob("*/*/*.zarr")
    return found


def opened(world: World, store: Path):
    return open_masks(FeatureCache.open(store), "table", str(world.table), DatasetOptions(id_column="case"))


def test_values_lie_where_the_frames_say_and_classes_are_the_labels(world: World, store: Path) -> None:
    masks = opened(world, store)
    assert mask_classes(masks, None).names == ("Liver", "Kidney")
    order = [int(place.split()[1]) - 1 for place in masks.where]  # the store's samples come by their pseudonyms
    assert sorted(order) == [0, 1, 2, 3]
    for i, case in enumerate(order):
        np.testing.assert_array_equal(masks.values(i), world.liver[case] + 2 * world.kidney[case])


def test_the_patch_head_learns_from_them(world: World, store: Path) -> None:
    result = embedcache.probe_patches(world.probe(store))
    assert result.task.classes == ("Liver", "Kidney")
    dice = {m.label: m.value for m in result.metrics if m.name == "dice"}
    assert min(dice[name] for name in ("Liver", "Kidney")) > 0.6


def test_files_that_number_their_segments_differently_are_joined_by_name(world: World, store: Path) -> None:
    before = opened(world, store)
    plain = [before.values(i) for i in range(4)]
    world.write(2, labels=("Kidney", "Liver"))
    masks = opened(world, store)
    assert dict(masks.names) == {1: "Kidney", 2: "Liver"}
    for i in range(4):
        np.testing.assert_array_equal(masks.values(i), np.array([0, 2, 1])[plain[i]])


def test_segments_that_overlap_are_chosen_from(world: World, store: Path) -> None:
    world.kidney[1][:] = world.liver[1]
    world.write(1)
    with pytest.raises(InputError, match=r"row 2 of cases.csv can not be used: two segments .* share a pixel: choose"):
        embedcache.probe_patches(world.probe(store))
    masks = opened(world, store)
    assert mask_classes(masks, "2=kidney").names == ("kidney",)
    values = [masks.values(i) for i in range(4)]
    for i, place in enumerate(masks.where):
        np.testing.assert_array_equal(values[i], 2 * world.kidney[int(place.split()[1]) - 1])
    with pytest.raises(InputError, match="no value 5; they have 1=Liver, 2=Kidney"):
        mask_classes(opened(world, store), "5=spleen")


def test_fractions_count_from_a_half_on(world: World, store: Path) -> None:
    plain = opened(world, store)
    before = [plain.values(i) for i in range(4)]
    for i in range(4):
        world.write(i, kind="FRACTIONAL")
    masks = opened(world, store)
    for i in range(4):
        np.testing.assert_array_equal(masks.values(i), before[i])


def test_in_another_plane(world: World, tmp_path: Path) -> None:
    store = extracted(world, tmp_path, plane="coronal")
    masks = opened(world, store)
    case = int(masks.where[0].split()[1]) - 1
    stored = world.liver[case] + 2 * world.kidney[case]
    np.testing.assert_array_equal(masks.values(0), stored[::-1, ::-1].transpose(1, 0, 2))


@pytest.mark.parametrize("other", ["png", "image"])
def test_masks_of_several_forms_are_refused(world: World, store: Path, other: str) -> None:
    path = world.table.with_name("m3.dcm")
    if other == "png":
        write_png(path, np.zeros(SHAPE[1:], np.uint8))
    else:
        write_dicom(path, np.zeros(SHAPE[1:], np.uint8))
    with pytest.raises(
        InputError, match=r"3 of 4 masks are DICOM segmentations, and that of row 4 of cases.csv is not"
    ):
        opened(world, store)


def test_a_segmentation_of_another_series_names_the_row_and_no_path(world: World, store: Path) -> None:
    dataset = dcmread(world.table.with_name("m0.dcm"))
    for group in dataset.PerFrameFunctionalGroupsSequence:
        group.PlanePositionSequence[0].ImagePositionPatient[2] += 1
    dataset.save_as(world.table.with_name("m0.dcm"))
    with pytest.raises(
        InputError, match=r"the mask of row 1 of cases.csv can not be used: frame 1 .* lies on no slice"
    ) as e:
        embedcache.probe_patches(world.probe(store))
    assert str(world.table.parent) not in str(e.value)


def test_a_mask_that_is_gone_names_the_row(world: World, store: Path) -> None:
    world.table.with_name("m2.dcm").unlink()
    with pytest.raises(InputError, match=r"the mask of row 3 of cases.csv can not be read: there is no such file"):
        opened(world, store)

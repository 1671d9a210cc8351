"""The patch head on real stores of small images: bright discs anywhere, whose masks the pixels of a patch show."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from embedcache import DatasetOptions, ExtractConfig, extract
from embedcache.errors import InputError
from embedcache.evaluation.compare import compare_results
from embedcache.evaluation.patch_probe import MEAN_MASK, POSITION, PatchProbeConfig, label_pixels, run_patch_probe
from embedcache.evaluation.patch_question import ask_patches, draw_counts
from embedcache.evaluation.patch_sources import PositionSource, gather
from embedcache.evaluation.predictions import read_predictions
from embedcache.evaluation.results import read_result
from embedcache.images.geometry import place, upsample_to_source
from embedcache.store.writer import StoreFiles, load, regroup
from embedcache.testing.files import write_nifti, write_png
from embedcache.testing.homes import make_home
from embedcache.types import StoredType

GRID = (1e-4, 1e-2)
SHAPE = (40, 32)
"""Of the images: neither square nor the input's size."""
IMAGES = 20


@dataclass(frozen=True)
class World:
    """A table of images and masks, its store, and the home where its key lies."""

    table: Path
    store: Path
    home: Path

    def config(self, **changes: object) -> PatchProbeConfig:
        plain = PatchProbeConfig(
            self.store,
            "table",
            str(self.table),
            DatasetOptions(id_column="case"),
            mask_values="255=disc,127=ignore",
            C=GRID,
            resamples=50,
        )
        return replace(plain, **changes)

    def elsewhere(self, folder: Path, change: Callable[[str, np.ndarray], np.ndarray]) -> "World":
        """The same store, and a table whose masks are changed: `change(part, mask)`."""
        from PIL import Image

        folder.mkdir()
        with open(self.table, newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            mask = np.asarray(Image.open(self.table.parent / row["mask"]))
            write_png(folder / row["mask"], change(row["split"], mask))
        write_rows(folder / "cases.csv", [{**row, "path": str(self.table.parent / row["path"])} for row in rows])
        return replace(self, table=folder / "cases.csv")


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def disc(rng: np.random.Generator, shape: tuple[int, ...], radius: float) -> np.ndarray:
    """A ball, or a disc, wholly inside an array of `shape`."""
    centre = [rng.uniform(radius, n - radius) for n in shape]
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum((axis + 0.5 - c) ** 2 for axis, c in zip(axes, centre, strict=True)) < radius**2


def extracted(folder: Path, table: Path, size: int, dtype: StoredType = "float16", home: Path | None = None) -> World:
    home = home or make_home(folder / "home", "world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDCACHE_HOME", str(home))
        extract(
            ExtractConfig(
                dataset="table", root=str(table), backbones=("patches:4",), cache=str(folder / "cache"), tokens="patch",
                size=size, dtype=dtype, threads=1, workers=1, rows_per_shard=8,
                device="cpu", options=DatasetOptions(id_column="case"),
            )
        )  # fmt: skip
    (store,) = (folder / "cache").glob("*/*/*.zarr")
    return World(table, store, home)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """20 images of 20 patients: discs of unlike brightness in noise; in two a bar of the mask is ignored."""
    folder = tmp_path_factory.mktemp("discs")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(IMAGES):
        inside = disc(rng, SHAPE, rng.uniform(7, 11))
        write_png(folder / f"img{i:02}.png", (rng.integers(0, 80, SHAPE) + 120 * inside).astype(np.uint8))
        mask = np.where(inside, 255, 0).astype(np.uint8)
        if i % 10 == 0:
            mask[:10] = 127
        write_png(folder / f"mask{i:02}.png", mask)
        part = "test" if i % 4 == 0 else "validation" if i % 4 == 1 else "train"
        rows.append(
            {
                "case": f"case{i}",
                "patient": f"SECRET{i}",
                "path": f"img{i:02}.png",
                "mask": f"mask{i:02}.png",
                "split": part,
            }
        )
    write_rows(folder / "cases.csv", rows)
    return extracted(folder, folder / "cases.csv", 32)


@pytest.fixture
def world(made: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """On the machine that made it; results are gone afterwards."""
    monkeypatch.setenv("EMBEDCACHE_HOME", str(made.home))
    yield made
    shutil.rmtree(made.store.parents[2] / "results", ignore_errors=True)


def test_the_head_segments_what_patches_show_and_beats_both_floors(world: World) -> None:
    result = run_patch_probe(world.config())
    dice = result.metric("dice")
    assert dice.value > 0.85
    assert dice.low < dice.value < dice.high
    for floor in (MEAN_MASK, POSITION):
        assert result.metric(f"{floor}dice").value < dice.value - 0.05
    assert result.metric("jaccard").value < dice.value
    both = (dice.value + result.metric("jaccard").value) / 2
    assert result.metric("dice_jaccard_mean").value == pytest.approx(both)
    c = result.counts
    assert (c["train_samples"], c["validation_samples"], c["test_samples"]) == (10, 5, 5)
    assert result.task.classes == ("disc",)
    assert result.chosen["C"] in GRID


def test_patients_that_nobody_named_are_told_of(world: World, tmp_path: Path) -> None:
    config = world.config(results=tmp_path)
    assert not [line for line in run_patch_probe(config).warnings if "share a patient" in line]
    copy = shutil.copytree(world.store.parents[1], tmp_path / "cases") / world.store.parent.name / world.store.name
    files = StoreFiles(copy)
    root, index = load(files)
    regroup(files, root, index, index.plan.patient_id, assumed=True)
    told = run_patch_probe(replace(config, store=copy)).warnings
    assert [line for line in told if "if some share a patient, parts leak" in line]


def test_predictions_hold_the_dice_of_each_sample(world: World) -> None:
    result = run_patch_probe(world.config())
    rows = read_predictions(result)
    tested = rows.part == "test"
    assert (tested.sum(), (rows.part == "validation").sum()) == (5, 5)
    assert np.nanmean(rows.score[tested]) == pytest.approx(result.metric("dice").value)
    assert np.nanmean(rows.score[~tested]) == pytest.approx(result.chosen["validation_score"])


def test_two_segmentations_are_compared_by_the_dice_of_each_sample(world: World) -> None:
    a, b = run_patch_probe(world.config()), run_patch_probe(world.config(C=(1e-7,)))
    found = compare_results([a.path, b.path], resamples=400)
    assert (found.task, found.rows, found.patients) == ("masks", 5, 5)
    for metric in ("dice", "jaccard", "dice_jaccard_mean"):
        for label in ("macro", "disc"):
            column = found.column(metric, label)
            assert column.values == pytest.approx([r.metric(metric, label).value for r in (a, b)], rel=1e-9)
    (pair,) = found.column("dice", "disc").pairs
    assert pair.difference > 0.05
    assert pair.low < pair.difference < pair.high
    assert pair.note == "few patients"


def test_segmentations_of_other_masks_or_classes_are_not_compared(world: World, tmp_path: Path) -> None:
    a = run_patch_probe(world.config())
    shifted = world.elsewhere(tmp_path / "moved", lambda of, mask: mask[::-1])
    with pytest.raises(InputError, match="the masks of the same rows are not the same"):
        compare_results([a.path, run_patch_probe(shifted.config()).path], resamples=20)
    named = run_patch_probe(world.config(mask_values="255=lung,127=ignore"))
    with pytest.raises(InputError, match="their classes are disc and lung; --mask-values names them alike"):
        compare_results([a.path, named.path], resamples=20)


def test_test_masks_choose_nothing_and_validation_masks_do(world: World, tmp_path: Path) -> None:
    before = run_patch_probe(world.config())
    for part in ("test", "validation"):
        moved = world.elsewhere(tmp_path / part, lambda of, mask, part=part: mask[::-1] if of == part else mask)
        after = run_patch_probe(moved.config())
        assert after.path != before.path
        assert after.metric("dice").value != before.metric("dice").value
        assert (after.chosen == before.chosen) is (part == "test")


def test_masks_that_differ_within_patches_are_other_masks(world: World, tmp_path: Path) -> None:
    """Every patch of a test mask keeps its shares, so the old digest returned the old Dice."""

    def turned(part: str, mask: np.ndarray) -> np.ndarray:
        cells = mask.reshape(8, 5, 8, 4)[:, ::-1, :, ::-1]
        return cells.reshape(mask.shape) if part == "test" else mask

    before, after = (run_patch_probe(w.config()) for w in (world, world.elsewhere(tmp_path / "turned", turned)))
    assert after.inputs["masks"] != before.inputs["masks"]
    assert after.metric("dice").value != before.metric("dice").value


def test_a_rerun_returns_the_file_without_reading_tokens(world: World, tmp_path: Path) -> None:
    first = run_patch_probe(world.config())
    copy = tmp_path / "cache"
    shutil.copytree(world.store.parents[2], copy)
    store = copy.joinpath(*world.store.parts[-3:])
    for shard in store.glob("layer_1/patch_tokens/c/**/*"):
        if shard.is_file():
            shard.write_bytes(b"")  # whoever reads a token now fails
    assert replace(run_patch_probe(world.config(store=store)), path="") == replace(first, path="")
    assert read_result(Path(first.path)) == first
    forced = run_patch_probe(world.config(force=True))
    assert Path(forced.path).stem == f"{Path(first.path).stem}-2"
    assert forced.metrics == first.metrics


def test_no_path_and_no_identifier_is_in_the_result(world: World) -> None:
    path = Path(run_patch_probe(world.config()).path)
    text = path.read_text() + str(read_predictions(read_result(path)).sample)
    for secret in ("SECRET", "case0", "img0", "mask0", str(world.table.parent)):
        assert secret not in text
    json.loads(path.read_text())


def test_another_table_of_the_same_ids_will_do(world: World, tmp_path: Path) -> None:
    same = world.elsewhere(tmp_path / "more", lambda _, mask: mask)
    other = same.table.rename(same.table.with_name("only_masks.csv"))
    there = run_patch_probe(world.config())
    assert run_patch_probe(world.config(root=str(other))).path == there.path
    # where the images are not at hand, the masks stand in as the files that a table must list
    masks_only = DatasetOptions(id_column="case", path_column="mask")
    assert run_patch_probe(world.config(root=str(other), options=masks_only)).path == there.path


def test_without_the_key_the_masks_can_not_be_joined(made: World, empty_home: Path) -> None:
    with pytest.raises(InputError, match="no key"):
        run_patch_probe(made.config())


def test_drawn_patches_are_bounded_and_never_ignored(world: World) -> None:
    everything = ask_patches(world.config())
    # 15 slices of 8x8 patches; the two images with an ignored bar have 10 of 40 rows, or 2 rows of patches, under it
    in_fit = [i for i in range(0, IMAGES, 10) if i % 4 != 0]
    assert everything.counts["fitted_patches"] == 15 * 64 - 16 * len(in_fit)
    np.testing.assert_allclose(everything.targets.shares.sum(axis=1), 1, atol=1e-5)
    few = ask_patches(world.config(max_patches=100)).targets
    assert len(few.row) == 100
    assert set(np.unique(few.row, return_counts=True)[1]) == {6, 7}
    again = ask_patches(world.config(max_patches=100)).targets
    np.testing.assert_array_equal(few.patch, again.patch)
    assert not np.array_equal(few.patch, ask_patches(world.config(max_patches=100, seed=1)).targets.patch)


@pytest.mark.parametrize(("slices", "patches", "most"), [(3, 64, 1000), (5, 64, 7), (7, 64, 3), (4, 9, 36)])
def test_draws_are_even(slices: int, patches: int, most: int) -> None:
    counts = draw_counts(slices, patches, most, seed=0)
    assert counts.sum() == min(most, slices * patches)
    assert np.ptp(counts) <= 1


def test_the_mean_mask_is_the_mean_of_what_is_not_ignored(world: World) -> None:
    question = ask_patches(world.config())
    fit = question.slices.of("train", "validation")
    rows = [question.truth(m, k) for m, k in zip(fit.mask.tolist(), fit.index.tolist(), strict=True)]
    masks = np.stack(rows)  # (n, 40, 32) on a grid of 8x8: 5x4 pixels a patch
    cells = masks.reshape(len(rows), 8, 5, 8, 4)
    disc = (cells == 1).sum(axis=(0, 2, 4)) / (cells != question.classes.ignored).sum(axis=(0, 2, 4))
    np.testing.assert_allclose(question.targets.mean[..., 1], disc, atol=1e-6)


def test_values_are_classes_by_their_numbers_unless_they_are_named(world: World) -> None:
    result = run_patch_probe(world.config(mask_values=None))
    assert result.task.classes == ("127", "255")
    merged = run_patch_probe(world.config(mask_values="255=disc,127=disc"))
    assert merged.task.classes == ("disc",)
    assert merged.inputs["masks"] != run_patch_probe(world.config()).inputs["masks"]


def test_classes_only_in_test_masks_are_said_and_score_zero(world: World, tmp_path: Path) -> None:
    def only_in_test(part: str, mask: np.ndarray) -> np.ndarray:
        return np.where((mask == 255) & (np.arange(32) < 16), 9, mask).astype(np.uint8) if part == "test" else mask

    other = world.elsewhere(tmp_path / "other", only_in_test)
    result = run_patch_probe(other.config(mask_values="255=disc,127=ignore,9=half"))
    assert result.metric("dice", "half").value == 0
    assert any("no training mask holds it: half" in line for line in result.warnings)


def test_a_head_that_is_below_where_things_lie_is_warned_of(world: World, tmp_path: Path) -> None:
    def one_place(_: str, mask: np.ndarray) -> np.ndarray:
        return np.pad(np.full((20, 16), 255, np.uint8), ((10, 10), (8, 8)))

    same = world.elsewhere(tmp_path / "same", one_place)
    said = run_patch_probe(same.config(C=(1.0,))).warnings
    assert any("Dice of disc lies below the position floor: the tokens add nothing" in line for line in said)
    assert not any("mean mask" in line for line in said)
    assert not any("below the position floor" in line for line in run_patch_probe(world.config()).warnings)


def test_a_head_and_a_mean_mask_that_are_background_everywhere_are_said(world: World, tmp_path: Path) -> None:
    def first_rows(_: str, mask: np.ndarray) -> np.ndarray:
        inside = mask == 255
        return (255 * (inside & (inside.any(axis=1).cumsum() <= 6)[:, None])).astype(np.uint8)

    small = world.elsewhere(tmp_path / "small", first_rows)
    result = run_patch_probe(small.config(C=(1e-9,)))
    assert result.metric("dice").value == result.metric(f"{MEAN_MASK}dice").value == 0
    assert "the head predicted no disc anywhere in the test part, so its Dice there is 0." in result.warnings
    assert any("the mean mask is background everywhere" in line for line in result.warnings)
    assert not any("predicted no disc" in line for line in run_patch_probe(world.config()).warnings)


def colour(_: str, mask: np.ndarray) -> np.ndarray:
    return np.stack([mask, mask, 255 - mask], axis=-1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _, mask: mask // 2, "holds value 63, which --mask-values does not name"),
        (colour, "colour image"),
        (lambda part, mask: mask * (part != "validation"), "no validation mask holds any class"),
        (lambda part, mask: mask * (part == "test"), "hold 1 classes"),
    ],
)
def test_masks_that_are_none_are_refused_by_their_row(
    world: World, tmp_path: Path, change: Callable[[str, np.ndarray], np.ndarray], says: str
) -> None:
    with pytest.raises(InputError, match=says) as refused:
        run_patch_probe(world.elsewhere(tmp_path / "bad", change).config())
    assert "mask0" not in str(refused.value)
    assert "SECRET" not in str(refused.value)


def test_a_mask_that_is_missing_is_named_by_its_row(world: World, tmp_path: Path) -> None:
    other = world.elsewhere(tmp_path / "bad", lambda _, mask: mask)
    (other.table.parent / "mask03.png").unlink()
    with pytest.raises(InputError, match=r"the mask of row 4 of cases\.csv can not be read"):
        run_patch_probe(other.config())


def test_samples_without_a_mask_are_left_out_and_counted(world: World, tmp_path: Path) -> None:
    text = world.table.read_text().replace("mask02.png", "").replace("img", f"{world.table.parent}/img")
    table = tmp_path / "cases.csv"
    table.write_text(text)
    for mask in world.table.parent.glob("mask*.png"):
        shutil.copy(mask, tmp_path)
    assert run_patch_probe(world.config(root=str(table))).counts["left_out_no_mask"] == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("255", "VALUE=NAME"),
        ("lung=255", "VALUE=NAME"),
        ("255=", "VALUE=NAME"),
        ("255=a,255=b", "two names"),
        ("255=ignore", "no class"),
    ],
)
def test_mask_values_that_mean_nothing_are_refused(world: World, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        run_patch_probe(world.config(mask_values=text))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layers": (3,)}, "holds layers"),
        ({"options": DatasetOptions()}, "is in .* and has a mask"),
        ({"resamples": 3}, "resamples must be at least"),
        ({"max_patches": 0}, "max_patches must be at least 1"),
    ],
)
def test_wishes_that_can_not_be_met(world: World, changes: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        run_patch_probe(world.config(**changes))


def test_a_store_or_a_table_without_what_is_needed(world: World, tmp_path: Path, made: World) -> None:
    rows = world.table.read_text().replace("mask,", "drawing,").replace("img", f"{world.table.parent}/img")
    (tmp_path / "cases.csv").write_text(rows)
    with pytest.raises(InputError, match="--mask-column"):
        run_patch_probe(world.config(root=str(tmp_path / "cases.csv")))


def test_torch_is_never_imported(world: World) -> None:
    script = (
        "import sys, embedcache; from embedcache import DatasetOptions;"
        f"embedcache.probe_patches(embedcache.PatchProbeConfig({str(world.store)!r}, 'table', {str(world.table)!r},"
        " DatasetOptions(id_column='case'), mask_values='255=disc,127=ignore', C=(1e-2,), resamples=20));"
        "print([m for m in ('torch', 'transformers', 'sklearn', 'faiss') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- volumes ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Eight volumes of 12 slices with a bright ball each, their axes stored in an unusual order and direction."""
    folder = tmp_path_factory.mktemp("volumes")
    rng = np.random.default_rng(1)
    affine = np.array([[0, -1.0, 0, 30], [0, 0, 1, -5], [2, 0, 0, 0], [0, 0, 0, 1]])  # stored axes: S, L, A
    rows = []
    for i in range(8):
        inside = disc(rng, (12, 28, 24), 5.5)
        write_nifti(
            folder / f"img{i}.nii.gz", (rng.integers(0, 80, inside.shape) + 120 * inside).astype(np.int16), affine
        )
        write_nifti(folder / f"mask{i}.nii.gz", inside.astype(np.float32), affine)
        part = "test" if i < 2 else "validation" if i < 4 else "train"
        rows.append(
            {"case": f"c{i}", "patient": f"p{i}", "path": f"img{i}.nii.gz", "mask": f"mask{i}.nii.gz", "split": part}
        )
    write_rows(folder / "cases.csv", rows)
    return extracted(folder, folder / "cases.csv", 32)


def test_volumes_are_counted_whole_and_masks_follow_their_orientation(
    volumes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCACHE_HOME", str(volumes.home))
    result = run_patch_probe(volumes.config(mask_values="1=ball"))
    assert result.metric("dice").value > 0.75
    assert result.metric("dice").n == 2
    assert result.counts["test_rows"] == 24
    assert result.metric("position_dice").value < result.metric("dice").value - 0.05
    question = ask_patches(volumes.config(mask_values="1=ball"))
    assert question.truth(0, 0).shape == (24, 28), "slices run along the axis from feet to head"


def test_a_mask_of_another_length_is_refused(volumes: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMBEDCACHE_HOME", str(volumes.home))
    for path in volumes.table.parent.glob("mask*.nii.gz"):
        write_nifti(tmp_path / path.name, np.zeros((11, 28, 24), np.uint8))
    text = volumes.table.read_text().replace("img", f"{volumes.table.parent}/img")
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(InputError, match="has 11 slices, and its image 12"):
        run_patch_probe(volumes.config(root=str(tmp_path / "cases.csv"), mask_values="1=ball"))


# --- pieces -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 4])
def test_pixels_get_the_likeliest_class_of_interpolated_probabilities(n_classes: int) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(n_classes), (5, 4)).astype(np.float32)
    where = place(31, 22, (20, 16), "pad", {})
    naive = upsample_to_source(probabilities, where).argmax(axis=-1)
    assert (label_pixels(probabilities, where) == naive).mean() > 0.999  # float32 rows sum to 1 but for rounding


def test_a_position_says_nothing_of_the_image_but_where_it_is() -> None:
    flat = PositionSource((3, 5), {0: 0.5, 7: 0.5})
    (_, first), (_, second) = flat.slices(np.array([0, 7]))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (15, flat.width)
    assert len(np.unique(first.round(4), axis=0)) == 15
    deep = PositionSource((3, 5), {0: 0.0, 7: 1.0})
    assert deep.width > flat.width
    drawn = gather(deep, np.array([0, 0, 7]), np.array([2, 14, 2]))
    np.testing.assert_array_equal(drawn[1], next(deep.slices(np.array([0])))[1][14])
    assert not np.array_equal(drawn[0], drawn[2])


def test_tokens_stored_as_int8_segment_as_well(world: World, tmp_path: Path) -> None:
    """Their error is 1/254 of a token's greatest value: far below the noise of these pixels."""
    floats = run_patch_probe(world.config())
    int8 = extracted(tmp_path, world.table, 32, dtype="int8", home=world.home)
    assert [kind for kind in ("patch_tokens_int8", "patch_tokens") if (int8.store / "layer_1" / kind).exists()] == [
        "patch_tokens_int8"
    ]
    result = run_patch_probe(int8.config())
    assert result.inputs["passes"] != floats.inputs["passes"]
    assert result.metric("dice").value == pytest.approx(floats.metric("dice").value, abs=0.02)
    assert result.counts == floats.counts

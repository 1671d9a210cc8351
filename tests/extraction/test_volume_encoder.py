"""Encoders of whole volumes through the whole path: one row a sample, beside backbones of slices, resumed, verified, probed."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import embedcache
from embedcache import DatasetOptions, ExtractConfig, FeatureCache, ProbeConfig
from embedcache.errors import InputError, Interrupted, StoreError
from embedcache.evaluation.patch_question import PatchProbeConfig, ask_patches
from embedcache.evaluation.pca_of_store import draw_pca
from embedcache.extraction import worker
from embedcache.store.fingerprint import canonical
from embedcache.store.root import Root
from embedcache.store.verify import verify_store
from embedcache.testing.files import write_nifti, write_png
from embedcache.testing.stores import differences

from .conftest import elsewhere

RNG = np.random.default_rng(8)
AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])


@pytest.fixture
def volumes(tmp_path: Path, vit3d: Path) -> ExtractConfig:
    """Six small volumes, two a patient, bright or dark."""
    folder = tmp_path / "volumes"
    folder.mkdir()
    lines = ["path,case,patient,split,bright"]
    for i in range(6):
        voxels = RNG.integers(0, 300, (14 + i, 20, 30 - i)) + 150 * (i % 2)
        write_nifti(folder / f"v{i}.nii.gz", voxels.astype(np.int16), AFFINE)
        lines.append(f"v{i}.nii.gz,case{i},P{i // 2},{'test' if i >= 4 else 'train'},{i % 2}")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    return ExtractConfig(
        dataset="table",
        root=str(folder / "cases.csv"),
        backbones=(str(vit3d),),
        cache=str(tmp_path / "cache"),
        tokens="cls,mean,patch",
        batch_size=2,
        threads=1,
        workers=1,
        rows_per_shard=2,
        options=DatasetOptions(id_column="case", patient_column="patient", split_column="split"),
        ids="keep",
        device="cpu",
    )


def stores(config: ExtractConfig) -> dict[str, FeatureCache]:
    return {path.parent.name: FeatureCache.open(path) for path in Path(config.cache).glob("*/*/*.zarr")}


def test_a_volume_is_one_row_of_tokens_along_z_y_x(volumes: ExtractConfig) -> None:
    report = embedcache.extract(replace(volumes, layers="1,3"))
    assert (report.decoded, report.exit_code, report.stores[0].unit) == (6, 0, "volume")
    (store,) = stores(volumes).values()
    assert (store.unit, store.root.samples, store.root.slices, store.root.rows) == ("volume", 6, 6, 8)
    assert store.root.attributes()["unit"] == "volume"
    assert store.index.plan.slice_index.tolist() == [0] * 6 + [-1] * 2
    tokens = store.layer(3).patch_tokens
    assert tokens.shape == (8, 4, 3, 4, 24)
    read = tokens.read().astype(np.float32)
    assert np.abs(read[:6]).min(axis=(1, 2, 3, 4)).min() >= 0
    assert not read[6:].any()
    mean = store.layer(3).patch_mean.read()[:6].astype(np.float32)
    np.testing.assert_allclose(read[:6].mean(axis=(1, 2, 3)), mean, atol=2e-3)
    assert verify_store(store.path).intact
    assert embedcache.extract(replace(volumes, layers="1,3")).decoded == 0
    shown = embedcache.show_store(store.path)
    assert (shown.unit, shown.recipe["image"]["volume"]["spacing"]) == ("volume", [2.0, 1.5, 1.0])


def test_tokens_are_those_of_the_volume_resampled_and_windowed_by_hand(volumes: ExtractConfig, vit3d: Path) -> None:
    import torch

    from embedcache.backbones import describe_backbone, load_backbone
    from embedcache.types import ArraySpec

    embedcache.extract(replace(volumes, dtype="float32", limit=1))
    (store,) = stores(volumes).values()
    voxels = np.asarray(nib.load(Path(volumes.root).with_name("v0.nii.gz")).dataobj)
    seen = np.clip((voxels[::-1, ::-1].transpose(2, 1, 0) + 350.0) / 500, 0, 1)  # window -100/500; its own spacing
    assert seen.shape == (30, 20, 14)
    canvas = np.zeros((32, 24, 16), np.float32)
    canvas[1:31, 2:22, 1:15] = seen
    backbone = load_backbone(describe_backbone(str(vit3d)))
    spec = ArraySpec(3, "patch_tokens", "float32", (4, 3, 4, 24))
    expected = backbone.tokens(torch.from_numpy(canvas)[None, None], [spec])[spec.path].numpy()
    got = store.layer(3).patch_tokens.read()[:1]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_same_anatomy_stored_otherwise_has_the_same_tokens(volumes: ExtractConfig) -> None:
    folder = Path(volumes.root).parent
    image = nib.load(folder / "v0.nii.gz")
    lines = ["path,case"]
    for axes in ("RAS", "LPI", "ASR", "ILA"):
        turn = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(axes))
        )
        turned = image.as_reoriented(turn)
        write_nifti(folder / f"{axes}.nii", np.asarray(turned.dataobj), turned.affine)
        lines.append(f"{axes}.nii,{axes}")
    (folder / "turned.csv").write_text("\n".join(lines) + "\n")
    turned_config = replace(volumes, root=str(folder / "turned.csv"), options=DatasetOptions(id_column="case"))
    embedcache.extract(turned_config)
    (store,) = stores(volumes).values()
    tokens = store.layer(3).patch_tokens.read()[:4]
    assert np.ptp(tokens.astype(np.float32), axis=(1, 2, 3)).max() > 0
    for other in tokens[1:]:
        np.testing.assert_array_equal(other, tokens[0])


def test_slices_and_volumes_in_one_run_have_stores_of_their_own(
    volumes: ExtractConfig, tiny: Path, swin3d: Path
) -> None:
    both = replace(volumes, backbones=(*volumes.backbones, str(tiny), str(swin3d)), size=28, plane="coronal")
    plan = embedcache.plan(both)
    assert [(p.unit, p.pending_slices) for p in plan.passes] == [("volume", 6), ("slice", 120), ("volume", 6)]
    report = embedcache.extract(both)
    assert report.decoded == 6 + 120 + 6, "the two windows of volumes are decoded apart"
    found = stores(volumes)
    assert {name: cache.unit for name, cache in found.items()} == {
        "vit3d": "volume",
        "tiny": "slice",
        "swin3d": "volume",
    }
    assert found["tiny"].root.slices == 120
    alone = elsewhere(volumes, "alone")
    embedcache.extract(alone)
    assert differences(found["vit3d"].path, stores(alone)["vit3d"].path) == []
    assert embedcache.extract(both).decoded == 0


def test_what_is_no_volume_is_set_aside_beside_the_others(volumes: ExtractConfig, tiny: Path) -> None:
    table = Path(volumes.root)
    write_png(table.with_name("flat.png"), RNG.integers(0, 255, (20, 30)).astype(np.uint8))
    np.save(table.with_name("bare.npy"), RNG.integers(0, 99, (12, 20, 20)).astype(np.int16))
    table.write_text(table.read_text() + "flat.png,flat,P8,,0\nbare.npy,bare,P9,,0\n")
    report = embedcache.extract(replace(volumes, backbones=(*volumes.backbones, str(tiny)), size=28))
    assert (report.exit_code, report.bad_samples) == (1, 2)
    assert set(report.quarantined) == {
        "open: it is a single 2-D image, and this backbone takes whole volumes.",
        "open: its file does not say how far apart its voxels are, so it can not be resampled; --spacing none stretches volumes.",
    }
    found = stores(volumes)
    assert len(found["vit3d"].features("cls").X) == 6
    assert len(found["tiny"].features("cls").X) == 8, "a backbone of slices takes both"
    assert verify_store(found["vit3d"].path).intact
    stretched = elsewhere(volumes, "stretched")
    report = embedcache.extract(replace(stretched, spacing="none", allow_bad="1"))
    assert (report.exit_code, report.bad_samples) == (0, 1)
    (store,) = stores(stretched).values()
    assert (store.recipe.image.fit, store.recipe.image.volume.spacing) == ("squash", None)  # type: ignore[union-attr]


def test_a_mended_file_is_taken_up_again(volumes: ExtractConfig) -> None:
    broken = Path(volumes.root).with_name("v3.nii.gz")
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    assert embedcache.extract(volumes).bad_samples == 1
    broken.write_bytes(whole)
    report = embedcache.extract(replace(volumes, retry_quarantined=True))
    assert (report.bad_samples, report.decoded) == (0, 2), "one shard of two rows"
    clean = elsewhere(volumes, "clean")
    embedcache.extract(clean)
    np.testing.assert_array_equal(
        stores(volumes)["vit3d"].layer(3).patch_tokens.read(), stores(clean)["vit3d"].layer(3).patch_tokens.read()
    )


def test_a_run_that_was_stopped_ends_with_the_same_bits(
    volumes: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_at_the_third(*args: Any, **kwargs: Any) -> Any:
        taken.append(1)
        if len(taken) == 3:
            raise Interrupted("stopped", 2)
        return real(*args, **kwargs)

    taken: list[int] = []
    real = worker.finish_shard
    monkeypatch.setattr(worker, "finish_shard", stop_at_the_third)
    with pytest.raises(Interrupted):
        embedcache.extract(volumes)
    monkeypatch.setattr(worker, "finish_shard", real)
    assert embedcache.extract(volumes).decoded == 2
    unbroken = elsewhere(volumes, "unbroken")
    embedcache.extract(unbroken)
    assert differences(stores(volumes)["vit3d"].path, stores(unbroken)["vit3d"].path) == []


def test_a_store_grows_by_new_volumes(volumes: ExtractConfig) -> None:
    embedcache.extract(replace(volumes, limit=4))
    assert embedcache.extract(volumes).decoded == 2
    (store,) = stores(volumes).values()
    assert store.samples().slices.tolist() == [1] * 6
    assert store.root.slices == store.root.samples == 6
    assert verify_store(store.path).intact
    assert len(store.features("cls").X) == 6


def test_a_recorded_extraction_is_repeated_and_recomputed(volumes: ExtractConfig, vit3d: Path) -> None:
    asked = replace(volumes, spacing="1.5,1.5,1", volume_size="64,24,32", sliding=0.5, window="40/400", dtype="float32")
    embedcache.extract(asked)
    (store,) = stores(volumes).values()
    image = store.recipe.image
    assert (image.shape, image.volume.roi, image.volume.overlap) == ((64, 24, 32), (32, 24, 16), 0.5)  # type: ignore[union-attr]
    assert store.layer(3).patch_tokens.spec.shape == (8, 3, 8, 24)
    again = embedcache.config_like(store.path, "table", volumes.root, volumes.options, backbones=(str(vit3d),))
    assert (again.spacing, again.volume_size, again.sliding) == ("1.5,1.5,1.0", "64,24,32", 0.5)
    assert embedcache.extract(again).decoded == 0
    report = embedcache.recompute(store.path, again, "100%")
    assert report.trusted
    assert all(a.tokens == a.identical for a in report.arrays)


def test_a_lost_shard_is_made_again(volumes: ExtractConfig, vit3d: Path) -> None:
    embedcache.extract(volumes)
    (store,) = stores(volumes).values()
    before = store.layer(3).patch_tokens.read()
    (store.path / "layer_3" / "patch_tokens" / "c" / "1" / "0" / "0" / "0" / "0").unlink()
    assert not verify_store(store.path).intact
    sources = replace(volumes, cache="cache")
    report = embedcache.repair(store.path, sources)
    assert not report.left
    np.testing.assert_array_equal(FeatureCache.open(store.path).layer(3).patch_tokens.read(), before)


def test_int8_patch_tokens_of_volumes(volumes: ExtractConfig) -> None:
    embedcache.extract(replace(volumes, tokens="patch", dtype="int8"))
    exact = elsewhere(volumes, "exact")
    embedcache.extract(replace(exact, tokens="patch", dtype="float32"))
    tokens = stores(volumes)["vit3d"].layer(3).patch_tokens
    truth = stores(exact)["vit3d"].layer(3).patch_tokens.read()
    assert tokens.shape == (8, 4, 3, 4, 24)
    step = np.abs(truth).max(axis=-1, keepdims=True) / 127
    assert (np.abs(tokens.read() - truth) <= 0.6 * step).all()
    assert verify_store(stores(volumes)["vit3d"].path).intact


def test_readers_know_the_axes(volumes: ExtractConfig) -> None:
    xarray = pytest.importorskip("xarray", reason="to_xarray needs the extra `xarray`")
    zarr = pytest.importorskip("zarr")
    embedcache.extract(replace(volumes, layers="2,3"))
    (store,) = stores(volumes).values()
    whole = store.to_xarray()
    assert whole["layer_3_patch_tokens"].dims == ("volume", "z_3", "y_3", "x_3", "feature_3")
    assert whole["layer_3_cls_token"].dims == ("volume", "feature_3")
    assert whole.sample.values.tolist() == [f"case{i}" for i in range(6)]
    layer = xarray.open_zarr(store.path, group="layer_3", chunks=None)
    assert layer.patch_tokens.dims == ("volume", "z", "y", "x", "feature")
    np.testing.assert_array_equal(layer.patch_tokens.values, store.layer(3).patch_tokens.read())
    root = zarr.open_group(store.path, mode="r")
    assert root["row_status"].metadata.dimension_names == ("volume",)
    assert root["sample_id"].metadata.dimension_names == ("sample",)


def test_features_need_no_pooling(volumes: ExtractConfig) -> None:
    embedcache.extract(volumes)
    (store,) = stores(volumes).values()
    X, y, groups = store.features("cls+mean", task="bright")
    assert X.shape == (6, 48)
    assert y.tolist() == [0, 1, 0, 1, 0, 1]
    assert groups.tolist() == ["P0", "P0", "P1", "P1", "P2", "P2"]
    apart = store.features("cls+mean", pool=None)
    np.testing.assert_array_equal(apart.X, X)
    assert apart.slice_index.tolist() == [-1] * 6
    for pool in ("max", "mean+max", "middle"):
        with pytest.raises(InputError, match="no slices to pool"):
            store.features("cls", pool=pool)
    assert "6 volumes" in repr(store)


def test_what_is_meant_for_slices_is_refused(volumes: ExtractConfig, tmp_path: Path) -> None:
    embedcache.extract(volumes)
    (store,) = stores(volumes).values()
    with pytest.raises(InputError, match="patch-linear segments slices"):
        ask_patches(PatchProbeConfig(store.path, "table", volumes.root, volumes.options))
    with pytest.raises(InputError, match="the figure shows patches of slices"):
        draw_pca(store.path, tmp_path / "pca.png")
    with pytest.raises(InputError, match="have no views"):
        embedcache.plan(replace(volumes, views=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "slice"}, "unit 'slice' with a recipe of a volume"),
        ({"plan": {"slices": 7}}, "6 samples, 7 rows"),
    ],
)
def test_a_root_that_contradicts_itself_is_no_root(
    volumes: ExtractConfig, change: dict[str, Any], message: str
) -> None:
    embedcache.extract(replace(volumes, tokens="cls"))
    attributes = next(iter(stores(volumes).values())).root.attributes()
    attributes |= {k: {**attributes[k], **v} if isinstance(v, dict) else v for k, v in change.items()}
    with pytest.raises(StoreError, match=message):
        Root.parse(attributes, "made")


def test_recipes_of_slices_are_written_as_they_were(volumes: ExtractConfig, tiny: Path) -> None:
    embedcache.extract(replace(volumes, backbones=(str(tiny),), size=28, tokens="cls", limit=1))
    (store,) = stores(volumes).values()
    assert '"volume":' not in canonical(store.root.attributes()["recipe"])


# --- real volumes -----------------------------------------------------------------------------------


def test_hippocampi_are_extracted_and_probed(shared_data: Path, swin3d: Path, tmp_path: Path) -> None:
    """A random encoder on real volumes, with a label from their masks: the path is what is tested, no score."""
    root = shared_data / "msd_hippocampus"
    rows = list(csv.DictReader((root / "index.csv").read_text().splitlines()))[:16]
    size = np.array([int(row["vox_label1_anterior"]) for row in rows])
    lines = ["path,split,large"]
    for i, row in enumerate(rows):
        part = "test" if i % 4 == 3 else "train"
        lines.append(f"{root / 'images' / row['file']},{part},{int(size[i] > np.median(size))}")
    (tmp_path / "hippocampus.csv").write_text("\n".join(lines) + "\n")
    config = ExtractConfig(
        dataset="table",
        root=str(tmp_path / "hippocampus.csv"),
        backbones=(str(swin3d),),
        cache=str(tmp_path / "cache"),
        tokens="mean,patch",
        spacing="1.5",
        volume_size="32",
        threads=1,
        workers=1,
        device="cpu",
    )
    report = embedcache.extract(config)
    assert (report.decoded, report.exit_code) == (16, 0)
    (store,) = stores(config).values()
    assert store.layer(4).patch_tokens.spec.shape == (1, 1, 1, 192)
    assert embedcache.extract(config).decoded == 0
    assert verify_store(store.path).intact
    for probe in ("logistic", "knn"):
        result = embedcache.probe(ProbeConfig(probe=probe, store=store.path, task="large", resamples=50))
        assert result.level == "sample"
        assert result.counts["test_samples"] == 4
    assert embedcache.probe(ProbeConfig(probe="knn", store=store.path, task="large", pool=None)).level == "sample"

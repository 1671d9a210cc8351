"""`embed`: the numbers of an extraction, under the names that were given, and nothing else left behind."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import embedcache
from embedcache import ExtractConfig, FeatureCache
from embedcache.errors import InputError
from embedcache.testing.files import write_nifti, write_png, write_series

from .conftest import only_store

BATCH = 8  # what an extraction on a CPU takes, as does `embed`


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, a volume of 4 slices, and a DICOM series of 3, in folders of their own."""
    rng = np.random.default_rng(0)
    top = tmp_path / "images"
    (top / "deep" / "series").mkdir(parents=True)
    for name in ("b", "a"):
        write_png(top / f"{name}.png", rng.integers(0, 255, (40, 30)).astype(np.uint8))
    write_nifti(top / "deep" / "volume.nii.gz", rng.normal(size=(20, 24, 4)).astype(np.float32))
    write_series(top / "deep" / "series", rng.integers(0, 900, (3, 32, 28)).astype(np.int16))
    (top / "notes.txt").write_text("no image")
    return top


def names(found: embedcache.Embedded, folder: Path) -> list[str]:
    return [path.removeprefix(f"{folder}/") for path in found.path.tolist()]


def test_the_vectors_are_those_of_an_extraction(config: ExtractConfig, tiny: Path) -> None:
    asked = replace(config, dtype="float32", layers="all", ids="keep", batch_size=BATCH, threads=None)
    embedcache.extract(asked)
    cache = FeatureCache.open(only_store(config))
    images = [Path(config.root).with_name(f"img{i:03}.png") for i in range(24)]
    for tokens in ("cls", "mean", "cls+mean"):
        found = embedcache.embed(images, str(tiny), tokens=tokens, layers="all", size=28)
        np.testing.assert_array_equal(found.features, cache.features(tokens, layers=(1, 2)).X)
    assert found.features.dtype == np.float32
    assert found.fingerprint == cache.fingerprint
    assert found.path.tolist() == [str(path) for path in images]
    assert found.exit_code == 0


def test_a_folder_a_glob_and_files_by_the_names_that_were_given(folder: Path, tiny: Path) -> None:
    everything = embedcache.embed([str(folder)], str(tiny), size=28)
    assert names(everything, folder) == ["a.png", "b.png", "deep/series", "deep/volume.nii.gz"]
    assert everything.slice.tolist() == [-1] * 4
    assert names(embedcache.embed([f"{folder}/*.png"], str(tiny), size=28), folder) == ["a.png", "b.png"]
    chosen = embedcache.embed([folder / "b.png", f"{folder}/deep/series", folder / "b.png"], str(tiny), size=28)
    assert names(chosen, folder) == ["b.png", "deep/series", "b.png"]
    np.testing.assert_array_equal(chosen.features[0], chosen.features[2])
    for row, other in ((0, 1), (1, 2)):
        # other neighbours in the batch: DESIGN's bound
        assert np.linalg.norm(chosen.features[row] - everything.features[other]) < 1e-5 * np.linalg.norm(
            everything.features[other]
        )


def test_slices_are_kept_apart_or_averaged(folder: Path, tiny: Path) -> None:
    apart = embedcache.embed([folder / "deep" / "volume.nii.gz", folder / "a.png"], str(tiny), size=28, slices=True)
    assert apart.slice.tolist() == [0, 1, 2, 3, 0]
    pooled = embedcache.embed([folder / "deep" / "volume.nii.gz", folder / "a.png"], str(tiny), size=28)
    np.testing.assert_allclose(pooled.features[0], apart.features[:4].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_arrays_are_images_too(tiny: Path) -> None:
    rng = np.random.default_rng(1)
    picture, volume = rng.integers(0, 255, (30, 40)).astype(np.uint8), rng.normal(size=(3, 20, 20))
    found = embedcache.embed([picture, volume], str(tiny), size=28)
    assert found.path.tolist() == ["array 0", "array 1"]
    assert np.isfinite(found.features).all()


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_files_say_how_they_were_made(folder: Path, tiny: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out{suffix}"
    found = embedcache.embed([str(folder)], str(tiny), size=28, slices=True, output=output)
    if suffix == ".npz":
        with np.load(output, allow_pickle=False) as read:
            path, slices, features = read["path"], read["slice"], read["features"]
            provenance = json.loads(str(read["provenance"]))
    else:
        table = pq.read_table(output)
        path, slices = np.array(table["path"].to_pylist()), table["slice"].to_numpy()
        features = np.array(table["features"].to_pylist(), dtype=np.float32)
        provenance = json.loads(table.schema.metadata[b"embedcache"])
    np.testing.assert_array_equal(features, found.features)
    assert features.dtype == np.float32
    assert path.tolist() == found.path.tolist()
    assert slices.tolist() == found.slice.tolist()
    assert provenance == found.provenance
    assert provenance["recipe"]["image"]["size"] == [28, 28]


def test_what_can_not_be_read_is_told_by_its_name(folder: Path, tiny: Path) -> None:
    (folder / "bad.png").write_bytes((folder / "a.png").read_bytes()[:60])
    found = embedcache.embed([str(folder)], str(tiny), size=28)
    assert found.exit_code == 1
    assert len(found.features) == 4
    [bad] = found.set_aside
    assert bad.path == f"{folder}/bad.png"
    assert bad.reason
    with pytest.raises(InputError, match=r"none of the 1 images can be read; .*bad.png: "):
        embedcache.embed([folder / "bad.png"], str(tiny), size=28)


def test_nothing_stays_behind(
    folder: Path, tiny: Path, empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    heard: list[str] = []
    embedcache.embed([folder / "a.png"], str(tiny), size=28, listener=embedcache.Listener(tell=heard.append))
    (folder / "bad.png").write_bytes(b"")
    with pytest.raises(InputError):
        embedcache.embed([folder / "bad.png"], str(tiny), size=28)
    assert list(scratch.iterdir()) == []
    assert [path for path in empty_home.rglob("*") if path.is_file()] == []
    assert heard == []


def test_a_backbone_without_a_cls_token_gives_its_mean(folder: Path, tiny: Path) -> None:
    assert embedcache.embed([folder / "a.png"], "pixels:8").tokens == "cls"
    with pytest.raises(InputError, match="has none of --tokens mean; it has cls_token: give --tokens cls"):
        embedcache.embed([folder / "a.png"], "pixels:8", tokens="mean")


def test_a_backbone_of_patches_only_has_no_vector(folder: Path) -> None:
    with pytest.raises(InputError, match="patches:14 has patch tokens only, and no vector of an image; name another"):
        embedcache.embed([folder / "a.png"], "patches:14")


@pytest.mark.parametrize(
    ("images", "more", "says"),
    [
        ([], {}, "no image was named"),
        (["nowhere.png"], {}, "there is no file, folder or match for 'nowhere.png'"),
        (["*.nothing"], {}, "there is no file, folder or match"),
        (["."], {}, "holds no image at any depth"),
        (["here.txt"], {"tokens": "patch"}, "unknown vector 'patch'"),
        (["here.txt"], {"output": "out.csv"}, "written as .npz or .parquet"),
        (["here.txt"], {"output": "nowhere/out.npz"}, "there is no folder nowhere"),
    ],
)
def test_slips(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: list[str], more: dict[str, str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").write_text("text")
    with pytest.raises((InputError, KeyError), match=says):
        embedcache.embed(images, str(tiny), size=28, **more)  # type: ignore[arg-type]

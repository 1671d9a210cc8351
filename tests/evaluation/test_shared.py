"""What two stores share: pictures under whatever ids, and ids where they mean anything."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from embedcache_cli.main import app
from PIL import Image
from typer.testing import CliRunner

import embedcache
from embedcache import DatasetOptions, ExtractConfig, FeatureCache, find_shared
from embedcache.errors import InputError
from embedcache.evaluation import shared
from embedcache.evaluation.equal_tokens import with_tokens_of
from embedcache.testing.labelled_stores import LabelledStore, write_labelled_store
from tests.evaluation.test_twins import radiograph

PLANTED = "SECRET"


def extracted(
    table: Path, cache: Path, backbone: str = "pixels:32", dtype: Literal["float16", "float32"] = "float16"
) -> Path:
    config = ExtractConfig(
        dataset="table", root=str(table), backbones=(backbone,), cache=str(cache), dtype=dtype,
        options=DatasetOptions(id_column="case"), workers=1, device="cpu",
    )  # fmt: skip
    embedcache.extract(config)
    (found,) = cache.glob(f"{table.stem}/{backbone.replace(':', '-')}/*.zarr")
    return found


def table(folder: Path, name: str, files: list[str], prefix: str) -> Path:
    path = folder / f"{name}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "case", "patient"])
        writer.writerows([each, f"{prefix}{i}", f"{PLANTED}{prefix}{i // 2}"] for i, each in enumerate(files))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures 0 to 19, and of 0 a JPEG, of 1 the mirror image."""
    folder = tmp_path_factory.mktemp(PLANTED)
    for i in range(20):
        Image.fromarray(radiograph(i, 64)).save(folder / f"{i}.png")
    Image.fromarray(radiograph(0, 64)).save(folder / "copy0.jpg", quality=85)
    Image.fromarray(np.ascontiguousarray(radiograph(1, 64)[:, ::-1])).save(folder / "copy1.png")
    table(folder, "one", [f"{i}.png" for i in range(12)], "a")
    table(folder, "two", ["copy0.jpg", "copy1.png", "2.png", *(f"{i}.png" for i in range(12, 20))], "b")
    return folder


@pytest.fixture
def two(images: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two datasets under one key."""
    first, second = (extracted(images / f"{name}.csv", tmp_path / "cache") for name in ("one", "two"))
    return first, second


def test_pictures_in_two_datasets_are_found_whatever_their_ids(two: tuple[Path, Path]) -> None:
    report = find_shared(*two)
    names: dict[str, str] = {}
    for store in two:
        ids = FeatureCache.open(store).samples().id.tolist()
        names |= {i: Path(path).name for i, path in embedcache.reveal(store.parents[1], ids).items()}
    found = {(names[p.first], names[p.second]): p.how for p in report.pairs}
    assert found == {
        ("0.png", "copy0.jpg"): "same picture",
        ("1.png", "copy1.png"): "same picture",
        ("2.png", "2.png"): "same file",
    }
    assert report.samples == (12, 11)
    assert (report.ids, report.patients, report.sample_ids, report.exit_code) == ("apart", (), (), 1)
    assert any("one is one, the other two: ids were not compared" in note for note in report.notes)
    assert find_shared(two[0], two[1].parents[1]) == report  # the folder of the other dataset


def test_without_the_sources_only_equal_tokens_are_certain(
    two: tuple[Path, Path], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCACHE_HOME", str(home / "elsewhere"))
    report = find_shared(*two)
    assert [p.how for p in report.pairs] == ["same features"]
    assert [p.how for p in report.candidates] == ["near", "near"]
    assert report.looked_at == 0
    assert replace(report, pairs=()).exit_code == 0


def test_the_command_says_how_much_is_shared(two: tuple[Path, Path]) -> None:
    told = CliRunner().invoke(app, ["leaks", str(two[0]), "--against", str(two[1])], standalone_mode=False)
    assert told.return_value == 1
    assert "3 pairs of one picture" in told.stdout
    assert "3 of 12 samples are in the other, 3 of its 11" in told.stdout
    as_json = CliRunner().invoke(app, ["leaks", str(two[0]), "--against", str(two[1]), "--json"], standalone_mode=False)
    document = json.loads(as_json.stdout)
    assert (document["exit_code"], len(document["pairs"]), document["ids"]) == (1, 3, "apart")
    for text in (told.stdout, as_json.stdout):
        assert PLANTED not in text
        assert ".png" not in text


def test_what_can_not_be_asked_is_refused(two: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="are one store; name another one"):
        find_shared(two[0], two[0].parents[1])
    done = CliRunner().invoke(app, ["leaks", str(two[0]), "--against", str(two[1]), "--split", "x.csv"])
    assert isinstance(done.exception, InputError)
    assert "leave --split out" in str(done.exception)


def test_one_dataset_extracted_twice_shares_its_ids(images: Path, tmp_path: Path) -> None:
    first, second = (extracted(images / "one.csv", tmp_path / name) for name in ("cache", "again"))
    report = find_shared(first, second)
    assert (report.ids, len(report.patients), len(report.sample_ids), len(report.pairs)) == ("one", 6, 12, 12)
    assert (report.patients[0].first_samples, report.patients[0].second_samples) == (2, 2)
    assert all(p.one_patient and p.first == p.second for p in report.pairs)
    assert any("both datasets are called one" in note for note in report.notes)
    told = CliRunner().invoke(app, ["leaks", str(first), "--against", str(second)], standalone_mode=False)
    assert "6 ids of patients and 12 of samples are in both\n" in told.stdout


def test_other_recipes_leave_the_files(
    images: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extracted(images / "one.csv", tmp_path / "cache")
    second = extracted(images / "two.csv", tmp_path / "cache", "pixels:16")
    report = find_shared(first, second)
    assert [p.how for p in report.pairs] == ["same file"]
    assert report.near is None
    assert any("have two recipes" in note and "only files" in note for note in report.notes)
    monkeypatch.setenv("EMBEDCACHE_HOME", str(home / "elsewhere"))
    blind = find_shared(first, second)
    assert (blind.pairs, blind.candidates, blind.exit_code) == ((), (), 0)
    assert any("nor files" in note for note in blind.notes)


def test_equal_tokens_are_equal_in_two_dtypes(images: Path, tmp_path: Path) -> None:
    """Of a store in float32 those are compared that it would hold in float16."""
    first = extracted(images / "one.csv", tmp_path / "cache", dtype="float32")
    second = extracted(images / "two.csv", tmp_path / "cache", dtype="float16")
    caches = FeatureCache.open(first), FeatureCache.open(second)
    assert [cache.tokens(1, "cls_token").dtype.itemsize for cache in caches] == [4, 2]
    (pair,) = find_shared(first, second, pixels=False).pairs
    assert pair.how == "same features"
    every = np.ones(12, dtype=np.bool_)
    assert with_tokens_of(*caches, every, "cls", ()).tolist() == [pair.second]
    assert with_tokens_of(*caches, ~every, "cls", ()).tolist() == []


def test_kept_ids_of_two_datasets_prove_nothing_alone(make: Callable[..., LabelledStore]) -> None:
    made, other = make(n=40), make(n=60, dataset="other", seed=5)
    report = find_shared(made.store, other.store)
    assert (report.ids, len(report.patients), len(report.sample_ids)) == ("perhaps", 20, 40)
    assert (report.pairs, report.exit_code) == ((), 0)
    assert any("only if both datasets number them alike" in note for note in report.notes)
    told = CliRunner().invoke(app, ["leaks", str(made.store), "--against", str(other.store)], standalone_mode=False)
    assert told.return_value == 0
    assert "20 ids of patients and 40 of samples are in both, perhaps by chance" in told.stdout


def test_what_equal_ids_mean(made: LabelledStore) -> None:
    root = FeatureCache.open(made.store).root
    secret = replace(root, id_scheme="pseudonym", key_id="a" * 16)
    named = replace(root.dataset, name="x")
    public = replace(root, id_scheme="public")
    for a, b, meaning, said in (
        (root, root, "one", "both datasets are called made"),
        (root, replace(root, dataset=named), "perhaps", "were kept as they are"),
        (secret, secret, "one", "both datasets are called made"),
        (secret, replace(secret, key_id="b" * 16), "apart", "two keys"),
        (secret, replace(secret, dataset=named), "apart", "one is made, the other x"),
        (secret, root, "apart", "made has ids that are pseudonyms, and made ones that are kept as they are"),
        (public, public, "one", ""),
        (public, replace(public, dataset=named), "apart", "two public datasets"),
    ):
        first, second = FeatureCache.open(made.store), FeatureCache.open(made.store)
        first.root, second.root = a, b
        found = shared._meaning(first, second)
        assert found == meaning
        notes = shared._id_notes(first, second, found)
        assert len(notes) == bool(said)
        assert not said or said in notes[0]


def test_stores_without_a_common_vector_say_so(made: LabelledStore) -> None:
    values = FeatureCache.open(made.store).features("cls").X
    first, second = (
        replace(made, store=made.store.parents[2] / name / made.store.parent.name / made.store.name) for name in "ab"
    )
    write_labelled_store(first, {(2, "cls_token"): values})
    write_labelled_store(second, {(2, "patch_mean"): values})
    report = find_shared(first.store, second.store)
    assert report.pairs == ()
    assert any("hold no vectors of one kind and layer" in note for note in report.notes)

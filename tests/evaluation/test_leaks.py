"""Patients and pictures in two parts, and tasks that are ids."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from embedcache_cli.main import app
from PIL import Image
from typer.testing import CliRunner

import embedcache
from embedcache import DatasetOptions, ExtractConfig, Labels, Task, find_leaks
from embedcache.errors import InputError
from embedcache.evaluation.leaks import _id_tasks
from embedcache.types import strings
from tests.evaluation.test_twins import radiograph

PLANTED = "SECRET"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures of 12 patients; of picture 0 a JPEG, of 1 the very bytes, of 2 the mirror image, each in the other part."""
    folder = tmp_path_factory.mktemp(PLANTED)
    rows = []
    for i in range(24):
        Image.fromarray(radiograph(i, 64)).save(folder / f"{i}.png")
        rows.append([f"{i}.png", f"case{i}", f"{PLANTED}{i // 2}", "test" if i >= 18 else "train"])
    Image.fromarray(radiograph(0, 64)).save(folder / "copy0.jpg", quality=85)
    (folder / "copy1.png").write_bytes((folder / "1.png").read_bytes())
    Image.fromarray(np.ascontiguousarray(radiograph(2, 64)[:, ::-1])).save(folder / "copy2.png")
    rows += [[f"copy{i}.{'jpg' if i == 0 else 'png'}", f"copy{i}", f"{PLANTED}other{i}", "test"] for i in range(3)]
    with (folder / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "case", "patient", "split"], *rows])
    return folder


@pytest.fixture
def store(images: Path, tmp_path: Path) -> Path:
    """Pseudonymised, as pixels of 32x32."""
    config = ExtractConfig(
        dataset="table",
        root=str(images / "cases.csv"),
        backbones=("pixels:32",),
        cache=str(tmp_path / "cache"),
        options=DatasetOptions(id_column="case"),
        workers=1,
        device="cpu",
    )
    embedcache.extract(config)
    (found,) = Path(config.cache).glob("*/*/*.zarr")
    return found


def names(store: Path) -> dict[str, str]:
    """Store id → base name of its source."""
    ids = embedcache.FeatureCache.open(store).samples().id.tolist()
    return {i: Path(path).name for i, path in embedcache.reveal(store.parents[1], ids).items()}


def test_copies_in_two_parts_are_found(store: Path) -> None:
    (report,) = find_leaks(store)
    of = names(store)
    found = {frozenset((of[p.first], of[p.second])): p for p in report.pairs}
    assert set(found) == {
        frozenset(("0.png", "copy0.jpg")),
        frozenset(("1.png", "copy1.png")),
        frozenset(("2.png", "copy2.png")),
    }
    assert {tuple(sorted(p.parts)) for p in report.pairs} == {("test", "train")}
    assert found[frozenset(("1.png", "copy1.png"))].how == "same file"
    assert found[frozenset(("2.png", "copy2.png"))].how == "same picture"
    assert not any(p.one_patient for p in report.pairs)
    assert report.exit_code == 1
    assert report.torn_patients == ()


def test_without_the_sources_only_equal_vectors_are_certain(
    store: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCACHE_HOME", str(home / "elsewhere"))
    (report,) = find_leaks(store)
    assert report.looked_at == 0
    assert [p.how for p in report.pairs] == ["same features"]
    assert [p.how for p in report.candidates] == ["near"] * 2  # a mirrored vector of pixels is seen without the image
    assert report.exit_code == 1
    assert find_leaks(store, pixels=False) == (report,)


def test_candidates_that_nobody_looked_at_are_no_leak(images: Path, tmp_path: Path) -> None:
    table = (images / "cases.csv").read_text().splitlines()
    (images / "alike.csv").write_text("\n".join(line for line in table if "copy1" not in line))
    config = ExtractConfig(
        dataset="table", root=str(images / "alike.csv"), backbones=("pixels:32",), cache=str(tmp_path / "cache"),
        options=DatasetOptions(id_column="case"), workers=1, device="cpu",
    )  # fmt: skip
    embedcache.extract(config)
    told = CliRunner().invoke(app, ["leaks", str(tmp_path / "cache"), "--no-pixels"], standalone_mode=False)
    assert told.return_value == 0
    assert "0 pairs of one picture (0 candidates looked at)" in told.stdout
    assert "2 candidates, not looked at (cosine " in told.stdout
    looked = CliRunner().invoke(app, ["leaks", str(tmp_path / "cache")], standalone_mode=False)
    assert looked.return_value == 1
    assert "2 pairs of one picture" in looked.stdout
    assert "not looked at" not in looked.stdout


def test_a_split_file_decides_what_leaks(store: Path, tmp_path: Path) -> None:
    cache = embedcache.FeatureCache.open(store).samples()
    with (tmp_path / "torn.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sample", "patient", "split"])
        writer.writerows(
            [s, p, "test" if i == 0 else "train"]
            for i, (s, p) in enumerate(zip(cache.id.tolist(), cache.patient_id.tolist(), strict=True))
        )
    first = cache.patient_id.tolist()[0]
    (report,) = find_leaks(store, tmp_path / "torn.csv")
    alone = cache.patient_id.tolist().count(first) == 1
    assert [t.patient for t in report.torn_patients] == ([] if alone else [first])
    assert report.parts == "torn.csv"
    (everything,) = find_leaks(store)
    assert sum(report.within.values()) + len(report.pairs) >= len(everything.pairs)


def test_a_clean_cache_leaks_nothing(images: Path, tmp_path: Path) -> None:
    table = (images / "cases.csv").read_text().splitlines()
    (images / "clean.csv").write_text("\n".join(line for line in table if "copy" not in line))
    config = ExtractConfig(
        dataset="table", root=str(images / "clean.csv"), backbones=("pixels:16",), cache=str(tmp_path / "cache"),
        options=DatasetOptions(id_column="case"), workers=1, device="cpu",
    )  # fmt: skip
    embedcache.extract(config)
    (report,) = find_leaks(tmp_path / "cache")
    assert (report.pairs, report.torn_patients, report.id_tasks, report.exit_code) == ((), (), (), 0)


def test_the_command_names_store_ids_only(store: Path) -> None:
    cache = store.parents[2]
    told = CliRunner().invoke(app, ["leaks", str(cache)], standalone_mode=False)
    assert told.return_value == 1
    assert "3 pairs of one picture" in told.stdout
    as_json = CliRunner().invoke(app, ["leaks", str(cache), "--json"], standalone_mode=False)
    (document,) = json.loads(as_json.stdout)
    assert document["exit_code"] == 1
    assert len(document["pairs"]) == 3
    ids = set(embedcache.FeatureCache.open(store).samples().id.tolist())
    assert {document["pairs"][0]["first"], document["pairs"][0]["second"]} <= ids
    for text in (told.stdout, as_json.stdout):
        assert PLANTED not in text.replace(str(cache), "")
        assert ".png" not in text


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished store"):
        find_leaks(tmp_path)


# --- labels ---------------------------------------------------------------------------------------


def table(task: Task, values: list[float], patients: list[str]) -> Labels:
    n = len(values)
    klass = [str(int(v)) for v in values] if task.kind == "multiclass" else [""] * n
    return Labels(
        (task,), strings([task.name] * n), strings([f"s{i}" for i in range(n)]), strings(patients),
        np.full(n, -1, np.int32), strings(klass),
        np.ones(n) if task.kind == "multiclass" else np.array(values, dtype=float), strings([""] * n),
    )  # fmt: skip


PAIRS = [f"p{i // 2}" for i in range(60)]


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        ("numeric", [1000.0 + i for i in range(60)], "each of 60 samples"),
        ("numeric", [7000.0 - i // 2 for i in range(60)], "each of 30 patients"),
        ("multiclass", [float(i // 2) for i in range(60)], "each of 30 patients"),
        ("numeric", [0.5 + i for i in range(60)], ""),  # a measurement
        ("numeric", [float(i // 4) for i in range(60)], ""),  # shared by two patients
        ("numeric", [float(i % 30) for i in range(60)], ""),  # not constant in a patient
        ("multiclass", [float(i % 3) for i in range(60)], ""),
    ],
)
def test_labels_that_are_ids(kind: str, values: list[float], says: str) -> None:
    classes = tuple(sorted({str(int(v)) for v in values})) if kind == "multiclass" else ()
    task = Task("number", kind, classes)  # type: ignore[arg-type]
    found = _id_tasks(table(task, values, PAIRS))
    assert [f.reason.startswith(says) for f in found] == ([True] if says else [])


def test_few_values_may_differ_by_chance() -> None:
    task = Task("age", "numeric", ())
    labels = table(task, [30.0 + i for i in range(12)], [f"p{i}" for i in range(12)])
    assert _id_tasks(labels) == ()
    assert _id_tasks(replace(labels, value=np.full(12, np.nan))) == ()

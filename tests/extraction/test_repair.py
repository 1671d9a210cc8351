"""`repair` with the dataset, its key and the backbone: all comes back as it was, or stays as it is and is named."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import embedcache
from embedcache import DatasetOptions, ExtractConfig, FeatureCache
from embedcache.datasets.private import data_dir
from embedcache.errors import InputError
from embedcache.extraction.repair import repair_store
from embedcache.store.objects import Objects
from embedcache.store.verify import verify_labels, verify_store
from embedcache.store.writer import StoreFiles, load, reopen, write_shard
from embedcache.testing.files import write_png
from embedcache.testing.stores import differences
from embedcache.testing.trained_vit import make_random_vit
from embedcache.types import Pass, Shard

from .conftest import only_store


@pytest.fixture
def extracted(config: ExtractConfig, tmp_path: Path) -> ExtractConfig:
    """24 radiographs, one of which is no image, in two passes; a copy that stays whole lies in `calm`."""
    Path(config.root).with_name("img020.png").write_bytes(b"no image")
    embedcache.extract(replace(config, tokens="cls,mean,patch"))
    embedcache.extract(replace(config, layers="1"))
    shutil.copytree(only_store(config).parents[1], tmp_path / "calm")
    return config


def sources(config: ExtractConfig) -> ExtractConfig:
    """What a user gives to `repair`: where the images are and how the table is read, and no recipe."""
    return ExtractConfig(
        dataset="table", root=config.root, backbones=config.backbones, options=config.options, workers=1
    )


def calm_store(config: ExtractConfig) -> Path:
    store = only_store(config)
    return Path(config.cache).parent / "calm" / store.relative_to(store.parents[1])


def damage(path: Path, at: int = -7) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def bytes_below(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and ".leases" not in str(p)}


def shard_of(config: ExtractConfig, name: str) -> tuple[int, str]:
    """The shard of 8 rows in which a case lies, and its pseudonym."""
    index = load(StoreFiles(only_store(config)))[1]
    key = embedcache.datasets.identifiers.load_key()
    pseudonym = key.pseudonym("sample", "cases", name)
    (sample,) = np.flatnonzero(index.plan.sample_id == pseudonym).tolist()
    return int(index.plan.slice_start[sample]) // 8, pseudonym


def test_tokens_ids_and_labels_come_back(extracted: ExtractConfig) -> None:
    store = only_store(extracted)
    folder = store.parents[1]
    for name in (
        "sample_id/c/0",
        "patient_id/c/0",
        "zarr.json",
        "layer_2/patch_tokens/c/1/0/0/0",
        "layer_1/cls_token/c/0/0",
    ):
        damage(store / name)
    damage(folder / "labels.parquet")
    assert len({d.object for d in verify_store(store).damage}) >= 3
    assert verify_labels(folder)

    report = repair_store(store, sources(extracted))
    assert (report.exit_code, report.left, report.damage) == (0, (), ())
    assert {(s.rows, s.identical) for s in report.remade} == {((8, 16), True), ((0, 8), True)}
    assert differences(calm_store(extracted), store) == []
    for name in ("labels.parquet", "labels.sha256"):
        assert (folder / name).read_bytes() == (calm_store(extracted).parents[1] / name).read_bytes()
    assert embedcache.extract(extracted).decoded == 0


def test_without_sources_what_needs_them_is_named_and_stays(extracted: ExtractConfig) -> None:
    store = only_store(extracted)
    for name in ("sample_id/c/0", "row_status/c/0", "layer_2/cls_token/c/1/0"):
        damage(store / name)
    damage(store.parents[1] / "labels.parquet")
    told = repair_store(store, dry_run=True)
    report = repair_store(store)
    assert [m.object for m in report.mended] == ["row_status/c/0"]
    assert (report.mended, report.left) == (told.mended, told.left)
    reasons = {left.object: left.reason for left in report.left}
    (commits,) = {name for name in reasons if name.startswith("commits_")}
    assert "--backbone" in reasons[commits]
    assert "--root" in reasons["sample_id/c/0"]
    assert "--root" in reasons["labels.parquet"]
    assert report.exit_code == 1

    only_ids = repair_store(store, replace(sources(extracted), backbones=()))
    assert {m.object for m in only_ids.mended} == {"sample_id/c/0", "labels.parquet"}
    (left,) = only_ids.left
    assert "give --backbone" in left.reason
    assert repair_store(store, sources(extracted)).exit_code == 0


def test_a_digest_file_that_still_names_its_table_needs_no_source(extracted: ExtractConfig) -> None:
    folder = only_store(extracted).parents[1]
    whole = (folder / "labels.sha256").read_bytes()
    (folder / "labels.sha256").write_bytes(whole[:-1] + b"\x0b")
    assert verify_labels(folder)
    assert repair_store(only_store(extracted)).exit_code == 0
    assert (folder / "labels.sha256").read_bytes() == whole


def test_a_shard_is_not_given_up_for_a_source_that_is_another_now(extracted: ExtractConfig) -> None:
    store = only_store(extracted)
    shard, pseudonym = shard_of(extracted, "case003")
    for name in ("layer_2/patch_tokens/c/{}/0/0/0", "layer_2/patch_mean/c/{}/0"):
        damage(store / name.format(shard), at=3)
    others = [s for s in range(3) if s != shard]
    damage(store / f"layer_2/cls_token/c/{others[0]}/0")
    image = Path(extracted.root).with_name("img003.png")
    whole = image.read_bytes()
    write_png(image, np.zeros((60, 50), dtype=np.uint8))
    before = bytes_below(store / "layer_2" / "patch_tokens")
    report = repair_store(store, sources(extracted))
    (left,) = report.left
    assert f"shard {shard}" in left.reason
    assert f"{pseudonym}, which has another content now" in left.reason
    assert "img003" not in left.reason
    assert [s.shard for s in report.remade] == [others[0]]
    assert bytes_below(store / "layer_2" / "patch_tokens") == before
    assert {d.shard for d in report.damage} == {shard}

    image.unlink()
    assert "which can not be opened" in repair_store(store, sources(extracted)).left[0].reason
    image.write_bytes(whole)
    assert repair_store(store, sources(extracted)).exit_code == 0
    assert differences(calm_store(extracted), store) == []


def test_a_sample_that_was_set_aside_does_not_hinder(extracted: ExtractConfig) -> None:
    store = only_store(extracted)
    shard, _ = shard_of(extracted, "case020")
    damage(store / f"layer_2/cls_token/c/{shard}/0")
    (commit,) = (
        p for p in store.glob(f"commits_*/c/{shard}") if (store / "layer_1").exists() and b"layer_1" in p.read_bytes()
    )
    damage(commit)
    damage(next(store.glob(f"commit_log_{commit.parts[-3].removeprefix('commits_')}/c/0")), at=commit_place(commit))
    report = repair_store(store, sources(extracted))
    assert (report.left, report.exit_code) == ((), 0)
    assert {s.identical for s in report.remade} == {True, None}, "of one the commit, and with it its digests, was lost"
    assert differences(calm_store(extracted), store) == []


def commit_place(commit: Path) -> int:
    """A byte of the log that lies within the commit of this shard."""
    log = (commit.parents[2] / commit.parts[-3].replace("commits_", "commit_log_") / "c" / "0").read_bytes()
    return log.index(f'"shard":{commit.name},'.encode()) + 3


@pytest.mark.parametrize("what", ["backbone", "dataset", "key", "ids"])
def test_other_sources_are_refused_before_anything_is_changed(
    extracted: ExtractConfig, tmp_path: Path, what: str
) -> None:
    store = only_store(extracted)
    damage(store / "zarr.json")
    damage(store / "layer_2" / "cls_token" / "c" / "1" / "0")
    config = sources(extracted)
    if what == "backbone":
        other = make_random_vit(tmp_path / "other" / "tiny", seed=2, hidden_size=32, layers=2, heads=2, image_size=56)
        config = replace(config, backbones=(str(other),))
        told = "another recipe: model.weights_digest differ"
    elif what == "dataset":
        config = replace(config, options=DatasetOptions(id_column="case", name="mine"))
        told = "is of dataset cases, and this is mine"
    elif what == "key":
        for key in data_dir().glob("ids.*"):
            key.unlink()
        embedcache.datasets.identifiers.load_key()
        told = "were made under key"
    else:
        for key in data_dir().glob("ids.*"):
            key.unlink()
        told = "no key of pseudonyms"
    before = bytes_below(store.parents[1])
    with pytest.raises(InputError, match=told):
        repair_store(store, config)
    assert bytes_below(store.parents[1]) == before


def test_a_repair_that_was_stopped_is_finished_by_the_next_one(extracted: ExtractConfig) -> None:
    files = StoreFiles(only_store(extracted))
    root = load(files)[0]
    name = next(iter(root.passes))
    reopen(files, root, {name: [1]})
    report = repair_store(files.path, sources(extracted))
    assert (report.exit_code, report.remade) == (0, ())
    assert all(load(files)[0].complete.values())
    assert differences(calm_store(extracted), files.path) == []


def test_a_shard_made_with_other_versions_needs_them_or_leave_to_mix(
    extracted: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import embedcache.extraction.repair as repair

    store = only_store(extracted)
    damage(store / "layer_2" / "cls_token" / "c" / "1" / "0")
    now = repair.software_versions()
    monkeypatch.setattr(repair, "software_versions", lambda: {**now, "torch": "1.0.0"})
    (left,) = repair_store(store, sources(extracted)).left
    assert f"torch {now['torch']} (here is 1.0.0), or --mixed" in left.reason
    assert repair_store(store, replace(sources(extracted), mixed=True)).exit_code == 0


def test_a_store_elsewhere_says_where_it_must_lie(extracted: ExtractConfig, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(only_store(extracted), tmp_path / "received" / "a" / "b" / "x.zarr"))
    damage(alone / "layer_2" / "cls_token" / "c" / "1" / "0")
    (left,) = repair_store(alone, sources(extracted)).left
    assert "its place in a cache, cases/<backbone>/" in left.reason
    with pytest.raises(InputError, match="there is no store"):
        repair_store(tmp_path / "nowhere")


def expected_runs(store: Path, start: int, stop: int) -> list[tuple[int, int]]:
    """Runs of rows of [start, stop) that are not set aside."""
    good = np.flatnonzero(FeatureCache.open(store).row_status[start:stop] == 1) + start
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(good, np.flatnonzero(np.diff(good) > 1) + 1)]


def test_rows_that_an_older_version_committed_as_zeros_are_found_and_made_anew(
    config: ExtractConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(config.root).with_name("img020.png").write_bytes(b"no image")
    several = replace(config, tokens="cls,mean,patch")
    embedcache.extract(several)
    calm = only_store(several).rename(tmp_path / "calm.zarr")

    def lose_rows(objects: Objects, p: Pass, shard: Shard, rows: dict[str, np.ndarray]) -> dict[str, str]:
        for values in rows.values() if shard.index == 1 else ():
            values[1:4] = 0
        return write_shard(objects, p, shard, rows)

    with monkeypatch.context() as patch:
        patch.setattr("embedcache.extraction.writing.write_shard", lose_rows)
        embedcache.extract(several)
    store = only_store(several)
    found = verify_store(store).damage
    assert expected_runs(calm, 9, 12) == [d.rows for d in found]
    assert {d.shard for d in found} == {1}
    assert all("embedcache repair" in d.reason for d in found)
    alone = repair_store(store)
    assert (len(alone.left), alone.exit_code) == (1, 1)
    report = repair_store(store, sources(several))
    assert report.exit_code == 0
    assert [(shard.shard, shard.identical) for shard in report.remade] == [(1, None)]
    assert differences(calm, store) == []

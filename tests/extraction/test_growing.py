"""Stores that grow and change: new samples, changed sources, samples that are tried again."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedcache
from embedcache import ExtractConfig, FeatureCache, TokenDataset
from embedcache.datasets.private import data_dir
from embedcache.errors import IncompleteStoreError, InputError, TooManyBadError
from embedcache.extraction import writing
from embedcache.store.verify import verify_store
from embedcache.testing.files import write_nifti

from .conftest import MakeTable, elsewhere, only_store


def image(config: ExtractConfig, number: int) -> Path:
    """The file of one row of the table."""
    return Path(config.root).with_name(f"img{number:03}.png")


def features_by_id(config: ExtractConfig, kinds: str = "cls") -> dict[str, np.ndarray]:
    """Sample → its vector."""
    found = FeatureCache.open(only_store(config)).features(kinds)
    return dict(zip(found.sample_id.tolist(), found.X, strict=True))


def test_a_subset_extracts_nothing_and_a_larger_selection_extends(config: ExtractConfig) -> None:
    embedcache.extract(replace(config, limit=10))
    store = only_store(config)
    shards = {p: p.read_bytes() for p in store.glob("layer_2/*/c/**/*") if p.is_file()}
    assert embedcache.extract(replace(config, limit=5)).decoded == 0

    heard: list[str] = []
    report = embedcache.extract(config, embedcache.Listener(tell=heard.append))
    assert report.decoded == 14
    assert any("extended by 14 samples" in line for line in heard)
    assert {p: p.read_bytes() for p in shards} == shards, "what was there is not touched"
    assert embedcache.extract(config).decoded == 0
    assert verify_store(store).intact

    calm = elsewhere(config, "calm")
    embedcache.extract(calm)
    mine, whole = features_by_id(config), features_by_id(calm)
    assert mine.keys() == whole.keys()
    for name, vector in whole.items():
        np.testing.assert_array_equal(mine[name], vector)


def test_an_extension_fills_every_pass_asked_or_not(config: ExtractConfig) -> None:
    embedcache.extract(replace(config, limit=10, layers="1,2"))
    embedcache.extract(replace(config, limit=10, tokens="patch"))
    embedcache.extract(replace(config, layers="2"))
    cache = FeatureCache.open(only_store(config))
    assert len(cache.passes) == 2
    for kind in ("cls", "mean"):
        assert cache.features(kind, layers=1).X.shape == (24, 32)
    assert (cache.layer(2).patch_tokens.read()[cache.row_status == 1] != 0).any(axis=(1, 2, 3)).all()


def test_a_stopped_extension_is_finished_by_the_same_command_and_refuses_readers_until_then(
    config: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedcache.extract(replace(config, limit=10, tokens="patch"))
    embedcache.extract(replace(config, limit=10))
    import embedcache.extraction.job as job

    with monkeypatch.context() as patch:
        patch.setattr(job, "run_group", lambda *_: pytest.fail("stopped here"))
        with pytest.raises(pytest.fail.Exception):
            embedcache.extract(config)
    with pytest.raises(IncompleteStoreError):
        FeatureCache.open(only_store(config))
    assert verify_store(only_store(config)).intact
    assert embedcache.extract(config).decoded == 14
    cache = FeatureCache.open(only_store(config))
    assert len(cache.passes) == 2, "the pass that this command does not name was completed too"
    assert cache.features("cls").X.shape == (24, 32)


def test_a_changed_source_supersedes_and_a_redated_one_does_not(config: ExtractConfig) -> None:
    embedcache.extract(config)
    before = features_by_id(config)
    os.utime(image(config, 3), (1, 1))
    assert embedcache.extract(config).decoded == 0

    shutil.copy(image(config, 4), image(config, 3))
    heard: list[str] = []
    report = embedcache.extract(config, embedcache.Listener(tell=heard.append))
    assert report.decoded == 1
    assert report.exit_code == 0, "what is superseded is not bad"
    assert any("the content of 1 sources changed" in line for line in heard)
    assert not any("img" in line for line in heard)
    assert embedcache.extract(config).decoded == 0

    after = features_by_id(config)
    assert after.keys() == before.keys()
    differ = [name for name in after if (after[name] != before[name]).any()]
    assert len(differ) == 1
    cache = FeatureCache.open(only_store(config))
    assert cache.index.superseded.sum() == 1
    old = cache.index.plan.slice_start[cache.index.superseded]
    assert cache.row_status[old].tolist() == [2], "whoever filters by row_status alone never sees what is no more"
    assert verify_store(only_store(config)).intact


def test_a_change_is_seen_in_stores_of_other_backbones_too(
    config: ExtractConfig, tiny: Path, tiny_registers: Path
) -> None:
    embedcache.extract(replace(config, backbones=(str(tiny), str(tiny_registers))))
    shutil.copy(image(config, 4), image(config, 3))
    embedcache.extract(config)
    (other,) = Path(config.cache).glob(f"*/{tiny_registers.name}/*.zarr")
    assert FeatureCache.open(other).features("cls").X.shape == (23, 32), "never the tokens of what no longer is"
    again = embedcache.extract(replace(config, backbones=(str(tiny_registers),)))
    assert again.decoded == 1
    assert FeatureCache.open(other).features("cls").X.shape == (24, 32)


def test_a_further_pass_reads_no_superseded_source(config: ExtractConfig) -> None:
    embedcache.extract(config)
    shutil.copy(image(config, 4), image(config, 3))
    embedcache.extract(config)
    report = embedcache.extract(replace(config, layers="1"))
    assert report.decoded == 24
    cache = FeatureCache.open(only_store(config))
    assert cache.features("cls", layers=1).X.shape == (24, 32)
    assert report.exit_code == 0


def test_sources_that_are_gone_keep_what_is_stored_of_them(config: ExtractConfig) -> None:
    embedcache.extract(config)
    image(config, 3).unlink()
    heard: list[str] = []
    assert embedcache.extract(config, embedcache.Listener(tell=heard.append)).decoded == 0
    assert any("1 sources can no longer be opened" in line for line in heard)
    assert len(features_by_id(config)) == 24


def test_a_moved_cache_says_that_changes_can_not_be_seen(config: ExtractConfig) -> None:
    heard: list[str] = []
    embedcache.extract(config)
    embedcache.extract(config, embedcache.Listener(tell=heard.append))
    assert not [line for line in heard if "can not be seen" in line]
    moved = Path(config.cache).with_name("moved")
    Path(config.cache).rename(moved)
    report = embedcache.extract(replace(config, cache=str(moved)), embedcache.Listener(tell=heard.append))
    assert report.decoded == 0
    assert [line for line in heard if "24 samples were extracted elsewhere" in line and "can not be seen" in line]


def test_a_folder_copied_under_another_name_is_refused(config: ExtractConfig) -> None:
    embedcache.extract(config)
    shutil.copytree(Path(config.cache) / "cases", Path(config.cache) / "other")
    with pytest.raises(InputError, match=r"holds dataset 'cases'.*copied or renamed"):
        embedcache.extract(replace(config, options=replace(config.options, name="other")))


def test_a_pass_that_lacks_sources_takes_nothing_from_those_before_it(config: ExtractConfig) -> None:
    embedcache.extract(replace(config, tokens="cls"))
    before = features_by_id(config)
    for number in range(12, 24):
        image(config, number).unlink()
    heard: list[str] = []
    embedcache.extract(replace(config, tokens="mean,patch", limit=12), embedcache.Listener(tell=heard.append))
    assert any("12 rows that its earlier passes hold can not be read any more" in line for line in heard)
    after = features_by_id(config)
    assert after.keys() == before.keys()
    assert all((after[name] == vector).all() for name, vector in before.items())
    assert len(features_by_id(config, "mean")) == 12
    assert len(features_by_id(config, "cls+mean")) == 12, "what both hold"
    cache = FeatureCache.open(only_store(config))
    assert len(TokenDataset(only_store(config), kind="cls")) == 24
    assert (cache.row_status == 1).sum() == 12, "whoever filters by row_status alone gets what every pass holds"
    assert verify_store(only_store(config)).intact


def test_digests_of_a_shards_sources_are_on_disk_before_its_commit(
    config: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power loss a source that was committed without its digest could change unseen."""
    durable: dict[int, int] = {}
    fsync, commit, noted = os.fsync, writing.commit_shard, []

    def keep_size(fd: int) -> None:
        fsync(fd)
        state = os.fstat(fd)
        durable[state.st_ino] = state.st_size

    def commit_after(*given: Any) -> None:
        (journal,) = (data_dir() / "index").glob("*.jsonl")
        lines = journal.read_bytes()[: durable.get(journal.stat().st_ino, 0)].splitlines()
        noted.append((given[2].rows, len(lines)))
        commit(*given)

    monkeypatch.setattr(os, "fsync", keep_size)
    monkeypatch.setattr(writing, "commit_shard", commit_after)
    embedcache.extract(config)
    assert [rows for rows, _ in noted] == [(0, 8), (8, 16), (16, 24)]
    assert all(lines >= rows[1] for rows, lines in noted)


def test_a_mended_file_is_tried_again_when_asked(config: ExtractConfig) -> None:
    whole = image(config, 5).read_bytes()
    image(config, 5).write_bytes(whole[:200])
    assert embedcache.extract(config).exit_code == 1
    image(config, 5).write_bytes(whole)
    assert embedcache.extract(config).decoded == 0, "not unless asked"
    report = embedcache.extract(replace(config, retry_quarantined=True))
    assert report.decoded == 8, "its shard, and no other"
    assert report.exit_code == 0
    calm = elsewhere(config, "calm")
    embedcache.extract(calm)
    mine, others = features_by_id(config), features_by_id(calm)
    assert all((mine[name] == vector).all() for name, vector in others.items())
    assert verify_store(only_store(config)).intact
    assert embedcache.extract(replace(config, retry_quarantined=True)).decoded == 0


def test_a_retry_of_what_is_still_bad_changes_nothing(config: ExtractConfig) -> None:
    image(config, 5).write_text("no image")
    embedcache.extract(config)
    before = features_by_id(config)
    report = embedcache.extract(replace(config, retry_quarantined=True))
    assert report.exit_code == 1
    assert report.decoded == 8
    after = features_by_id(config)
    assert all((after[name] == vector).all() for name, vector in before.items())
    assert len(embedcache.show_store(only_store(config)).quarantine) == 1


def test_a_volume_that_could_not_be_opened_gets_its_rows_when_it_is_mended(
    config: ExtractConfig, make_table: MakeTable
) -> None:
    mixed = replace(config, root=str(make_table(9, volumes=1, folder="mixed")))
    volume = Path(mixed.root).with_name("vol009.nii.gz")
    volume.write_bytes(b"nothing")
    assert embedcache.extract(mixed).exit_code == 1
    write_nifti(volume, np.random.default_rng(0).normal(size=(20, 24, 6)).astype(np.float32))
    report = embedcache.extract(replace(mixed, retry_quarantined=True))
    assert report.exit_code == 0
    cache = FeatureCache.open(only_store(mixed))
    assert sorted(cache.samples().slices[~cache.index.superseded].tolist()) == [1] * 9 + [6]
    assert cache.features("mean").X.shape == (10, 32)
    assert verify_store(only_store(mixed)).intact


def test_how_many_bad_samples_are_allowed(config: ExtractConfig) -> None:
    for number in (1, 2):
        image(config, number).write_text("no image")
    report = embedcache.extract(config)
    assert (report.bad_samples, report.exit_code) == (2, 1)
    for allowed, code in (("1", 1), ("2", 0), ("8%", 1), ("9%", 0)):
        assert embedcache.extract(replace(config, allow_bad=allowed)).exit_code == code, allowed
    assert embedcache.extract(replace(config, allow_bad="2", limit=4)).bad_samples <= 2
    with pytest.raises(InputError, match="allow_bad"):
        replace(config, allow_bad="some")


def test_a_run_stops_when_most_of_the_first_samples_are_bad(
    config: ExtractConfig, make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedcache.extraction.worker.FIRST_SAMPLES", 20)
    many = replace(config, root=str(make_table(40, folder="many")), ids="keep")
    moved = Path(many.root).parent.with_name("moved")
    moved.mkdir()
    for file in Path(many.root).parent.glob("img0[012]?.png"):
        file.rename(moved / file.name)
    with pytest.raises(TooManyBadError, match=r"11 of the first 11 samples .*there is no such file.*--root"):
        embedcache.extract(many)
    for file in moved.glob("*.png"):
        file.rename(Path(many.root).with_name(file.name))
    report = embedcache.extract(replace(many, retry_quarantined=True))
    assert report.exit_code == 0
    assert len(features_by_id(many)) == 40


def test_a_recorded_configuration_is_repeated_and_what_differs_is_named(config: ExtractConfig, tiny: Path) -> None:
    first = replace(config, layers="1,2", window="percentile:1,99@volume", fit="pad", compute_dtype="bfloat16")
    embedcache.extract(first)
    store = only_store(first)
    heard: list[str] = []
    listener = embedcache.Listener(tell=heard.append)
    like = embedcache.config_like(store, "table", first.root, first.options, backbones=(str(tiny),))
    assert embedcache.extract(like, listener).decoded == 0, "the very same store"
    assert not any("unlike" in line for line in heard)
    assert embedcache.extract(replace(like, window="min-max", batch_size=2, limit=3), listener).decoded == 3
    unlike = [line.removeprefix("unlike the recorded extraction: ") for line in heard if "unlike" in line]
    assert "image.window.name was percentile, is min-max" in unlike
    assert "pass.batch_size was 4, is 2" in unlike
    assert any(line.startswith("selection was") for line in unlike)


def test_another_listing_of_one_name_and_other_shards_are_told(config: ExtractConfig) -> None:
    embedcache.extract(replace(config, limit=8))
    heard: list[str] = []
    table = Path(config.root)
    table.write_text(table.read_text().replace(",case0", ",other0"))
    embedcache.extract(replace(config, rows_per_shard=4), embedcache.Listener(tell=heard.append))
    assert [line for line in heard if line.startswith("none of them was in ") and "--name" in line]
    assert [line for line in heard if "was begun with 8 rows per shard, and goes on with them" in line]
    assert len(FeatureCache.open(only_store(config)).samples()) == 32

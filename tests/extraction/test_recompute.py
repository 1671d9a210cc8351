"""Rows made again: equal on the machine that made them, and wrong ones found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import embedcache
from embedcache import ExtractConfig, FeatureCache
from embedcache.errors import InputError
from embedcache.store.index import read_commit
from embedcache.store.writer import StoreFiles, commit_shard, finalise, load, reopen, write_shard

from .conftest import MakeTable, only_store


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_on_the_same_machine_every_token_is_identical(config: ExtractConfig, make_table: MakeTable, dtype: str) -> None:
    mixed = replace(
        config, root=str(make_table(9, volumes=2, folder="mixed")), tokens="cls,mean,patch", dtype=dtype, layers="1,2"
    )
    embedcache.extract(mixed)
    report = embedcache.recompute(only_store(mixed), mixed, "100%")
    assert report.trusted
    assert report.rows == report.of == 20
    for found in report.arrays:
        assert found.identical == found.tokens > 0, found.array
        assert found.wrong == ()


def test_a_share_is_drawn_by_the_seed(config: ExtractConfig) -> None:
    embedcache.extract(config)
    report = embedcache.recompute(only_store(config), config, "10%", seed=3)
    assert report.trusted
    assert 3 <= report.rows < 12
    assert embedcache.recompute(only_store(config), config, "5").rows in (8, 5, 6, 7)
    for share in ("0%", "none", "25", "-1"):
        with pytest.raises(InputError, match="--recompute takes"):
            embedcache.recompute(only_store(config), config, share)


def test_a_row_that_is_another_images_is_named(config: ExtractConfig) -> None:
    embedcache.extract(config)
    forge(only_store(config), swap=(3, 4))
    assert embedcache.verify(only_store(config)).intact, "checksums can not know"
    report = embedcache.recompute(only_store(config), config, "24")
    assert not report.trusted
    ids = FeatureCache.open(only_store(config)).index.plan.sample_id
    assert set(report.arrays[0].wrong) == {f"{ids[3]}:0", f"{ids[4]}:0"}


def test_a_difference_as_of_other_hardware_is_within_the_limit(config: ExtractConfig) -> None:
    config = replace(config, dtype="float32")
    embedcache.extract(config)
    forge(only_store(config), noise=2e-6)
    report = embedcache.recompute(only_store(config), config, "24")
    assert report.trusted
    assert report.arrays[0].identical < report.arrays[0].tokens
    assert 1e-7 < report.arrays[0].worst < 1e-5
    forge(only_store(config), noise=1e-4)
    assert not embedcache.recompute(only_store(config), config, "24").trusted


def test_another_recipe_is_refused_and_named(config: ExtractConfig) -> None:
    embedcache.extract(config)
    with pytest.raises(InputError, match=r"image.size was \[28, 28\], is \[42, 42\]"):
        embedcache.recompute(only_store(config), replace(config, size=42))


def test_images_that_are_not_here_are_counted(config: ExtractConfig) -> None:
    embedcache.extract(config)
    Path(config.root).with_name("img003.png").unlink()
    report = embedcache.recompute(only_store(config), config, "24")
    assert report.unreadable == 1
    assert report.trusted


def forge(store: Path, swap: tuple[int, int] | None = None, noise: float = 0.0) -> None:
    """Write the store's first shard anew, properly committed, with other tokens."""
    files = StoreFiles(store)
    cache = FeatureCache.open(store)
    (p,) = cache.passes
    old = read_commit(files.objects, p.id, 0)
    rows = {}
    for spec in p.arrays:
        values = cache.tokens(spec.layer, spec.kind).read()[: p.rows_per_shard].copy()
        if swap:
            values[list(swap)] = values[list(reversed(swap))]
        values += (values * noise * np.random.default_rng(0).normal(size=values.shape)).astype(values.dtype)
        rows[spec.path] = values
    root, index = load(files)
    shard = next(iter(index.plan.shards_of(p)))
    reopen(files, root, {p.id: [0]})
    commit_shard(files.objects, p, replace(old, objects=write_shard(files.objects, p, shard, rows)))
    finalise(files, p.id)

"""One run that fills passes of unlike rows per shard: every good row must hold its own tokens."""

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import embedcache
from embedcache import ExtractConfig, FeatureCache
from embedcache.errors import Interrupted, StoreError
from embedcache.extraction.decode import DecodePool
from embedcache.extraction.pieces import Piece, Request
from embedcache.extraction.progress import Progress
from embedcache.extraction.share import MOST_LEASES, Share, Target
from embedcache.store.leases import Worker, cut
from embedcache.store.verify import verify_store
from embedcache.store.writer import StoreFiles
from embedcache.testing.stores import differences, make_plan, make_recipe, make_store
from embedcache.testing.trained_vit import make_random_vit
from embedcache.types import ArraySpec, Plan

from .conftest import MakeTable, elsewhere
from .test_sharing import fork


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random backbone with tokens twice as wide as `tiny`'s, so that half as many rows fit a shard."""
    folder = tmp_path_factory.mktemp("weights") / "wide"
    return make_random_vit(folder, seed=5, hidden_size=64, layers=2, heads=2, image_size=56)


@pytest.fixture
def eight_and_sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a shard hold 16 rows of four patch tokens of `tiny`, and 8 of `wide`."""
    monkeypatch.setattr("embedcache.store.layout.MAX_SHARD_BYTES", 16 * 4 * 32 * 2)


@pytest.fixture
def many(config: ExtractConfig, make_table: MakeTable) -> ExtractConfig:
    """64 radiographs, many times what is asked of the decoders ahead."""
    table = str(make_table(64, folder="many"))
    return replace(config, root=table, tokens="cls,patch", rows_per_shard=None, batch_size=2)


def stores(config: ExtractConfig) -> list[Path]:
    return sorted(Path(config.cache).glob("*/*/*.zarr"))


def zero_rows(store: Path) -> dict[str, list[int]]:
    """Array → its rows that are said to be ok and hold nothing."""
    cache = FeatureCache.open(store)
    found = {}
    for p in cache.passes:
        for spec in p.arrays:
            read = getattr(cache.layer(spec.layer), spec.kind).read()
            empty = ~read.reshape(len(read), -1).any(axis=1) & (cache.row_status == 1)
            found[spec.path] = np.flatnonzero(empty).tolist()
    return {name: rows for name, rows in found.items() if rows}


def assert_whole(config: ExtractConfig, passes: dict[str, list[int]]) -> None:
    """Every store has passes of these rows per shard, none of its good rows is zero, and it verifies."""
    found = {
        store.parent.name: sorted(p.rows_per_shard for p in FeatureCache.open(store).passes) for store in stores(config)
    }
    assert found == passes
    for store in stores(config):
        assert zero_rows(store) == {}
        assert verify_store(store).intact


def assert_equal_to_single_runs(config: ExtractConfig) -> None:
    """Each store of a run with several backbones has the bytes that a run with that backbone alone makes."""
    for name in config.backbones:
        embedcache.extract(replace(elsewhere(config, "single"), backbones=(name,)))
    for store in stores(config):
        assert differences(Path(elsewhere(config, "single").cache) / store.relative_to(config.cache), store) == []


@pytest.mark.usefixtures("eight_and_sixteen")
@pytest.mark.parametrize("wide_first", [True, False])
def test_two_backbones_in_either_order(many: ExtractConfig, tiny: Path, wide: Path, wide_first: bool) -> None:
    names = (str(wide), str(tiny)) if wide_first else (str(tiny), str(wide))
    both = replace(many, backbones=names)
    assert embedcache.extract(both).decoded == 64, "each image is decoded once"
    assert_whole(both, {"tiny": [16], "wide": [8]})
    assert_equal_to_single_runs(both)


@pytest.mark.parametrize("rows", [(16, 8), (8, 16)])
def test_two_passes_of_one_backbone_that_new_images_reopen(many: ExtractConfig, rows: tuple[int, int]) -> None:
    embedcache.extract(replace(many, limit=20, tokens="cls", rows_per_shard=rows[0]))
    embedcache.extract(replace(many, limit=20, tokens="patch", rows_per_shard=rows[1]))
    assert embedcache.extract(many).decoded == 44
    assert_whole(many, {"tiny": [8, 16]})


@pytest.mark.parametrize("rows", [8, 16])
def test_a_pass_resumed_beside_one_of_other_rows(many: ExtractConfig, tiny: Path, wide: Path, rows: int) -> None:
    def stop_early(progress: Progress) -> None:
        if progress.done >= 20:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        embedcache.extract(replace(many, rows_per_shard=rows), embedcache.Listener(progress=stop_early))
    both = replace(many, backbones=(str(tiny), str(wide)), rows_per_shard=24 - rows)
    embedcache.extract(both)
    assert_whole(both, {"tiny": [rows], "wide": [24 - rows]})


@pytest.mark.usefixtures("eight_and_sixteen")
@pytest.mark.parametrize("wide_first", [True, False])
def test_leases_cut_at_other_ends_of_volumes(
    many: ExtractConfig,
    make_table: MakeTable,
    tiny: Path,
    wide: Path,
    monkeypatch: pytest.MonkeyPatch,
    wide_first: bool,
) -> None:
    monkeypatch.setattr("embedcache.store.leases.FEWEST_LEASES", 4)
    names = (str(wide), str(tiny)) if wide_first else (str(tiny), str(wide))
    both = replace(many, root=str(make_table(2, volumes=40, folder="mixed")), backbones=names)
    embedcache.extract(both)
    assert_whole(both, {"tiny": [16], "wide": [8]})
    assert_equal_to_single_runs(both)


@pytest.mark.usefixtures("eight_and_sixteen")
def test_two_processes(many: ExtractConfig, tiny: Path, wide: Path) -> None:
    both = replace(many, backbones=(str(wide), str(tiny)))
    other = fork(both)
    other.wait_for(4)
    embedcache.extract(both)
    assert other.end() == 0
    assert_whole(both, {"tiny": [16], "wide": [8]})
    assert_equal_to_single_runs(both)


def test_a_shard_of_which_a_row_never_arrived_is_not_committed(
    config: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DecodePool.pieces

    def without_the_tenth(pool: DecodePool, requests: Iterable[Request]) -> Iterator[Piece]:
        for i, piece in enumerate(real(pool, requests)):
            if i != 9:
                yield piece

    with monkeypatch.context() as patch:
        patch.setattr(DecodePool, "pieces", without_the_tenth)
        with pytest.raises(
            StoreError, match=r"shard 1 of pass .* 1 of its 8 rows did not arrive, so it was not committed"
        ):
            embedcache.extract(config)
    (store,) = stores(config)
    cache = FeatureCache.open(store, allow_partial=True)
    assert [commit.shard for commit in cache.commits(cache.passes[0].id)] == [0]
    assert embedcache.extract(config).decoded == 16, "the same command makes it"
    assert_whole(config, {"tiny": [8]})


@pytest.mark.parametrize("counts", [[1] * 600, [7] * 90, [37, 5, 61] * 6])
def test_what_is_taken_at_once_ends_together_or_leaves_something_for_others(tmp_path: Path, counts: list[int]) -> None:
    plan = make_plan(counts)
    targets = [target_of(tmp_path / f"rows{rows}.zarr", plan, rows) for rows in (2, 8)]
    widest = max(lease.stop - lease.start for t in targets for lease in cut(plan, t.stored_pass))
    with Worker(targets[0].files.leases) as one, Worker(targets[1].files.leases) as other:
        share = Share(plan, plan.slice_index >= 0, targets, [one, other])
        taken = [[shard for work in works for shard in work.shards] for works in iter(share.next, [])]
    assert sum(map(len, taken)) == sum(len(list(plan.shards_of(t.stored_pass))) for t in targets)
    assert len(taken) > 3
    for shards, following in pairwise(taken):
        start, stop = min(s.start for s in shards), max(s.stop for s in shards)
        assert stop <= start + (MOST_LEASES + 1) * widest
        assert stop <= min(s.start for s in following) or stop >= start + MOST_LEASES * widest


def target_of(path: Path, plan: Plan, rows: int) -> Target:
    """A pass that lacks every shard."""
    p = make_store(
        path, plan, (ArraySpec(2, "cls_token", "float16", (8,)),), rows, finish=False, skip_shards=range(1000)
    )
    image = make_recipe().image
    return Target(StoreFiles(path), image, p, None, "", 1)  # type: ignore[arg-type] # nothing is computed

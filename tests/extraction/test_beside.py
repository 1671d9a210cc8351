"""A device that computes beside this process: each batch is taken from it when the next one was launched, as on a GPU."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import embedcache
from embedcache import ExtractConfig, FeatureCache
from embedcache.errors import Interrupted, TokenOverflowError
from embedcache.extraction import forward, together, worker
from embedcache.extraction.progress import Progress
from embedcache.testing.stores import differences
from embedcache.types import Volume

from .conftest import MakeTable, elsewhere, only_store


def test_a_device_that_computes_beside_lays_down_the_same_bytes(
    config: ExtractConfig, make_table: MakeTable, tiny: Path, tiny_registers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = replace(
        config,
        root=str(make_table(12, volumes=3, folder="some")),
        ids="keep",
        tokens="cls,patch",
        backbones=(str(tiny), str(tiny_registers)),
    )
    (Path(bad.root).parent / "img005.png").write_text("this is a text file")
    embedcache.extract(bad)
    monkeypatch.setattr(together, "TOGETHER_BYTES", 5 * 60 * 50)
    made: list[int] = []
    preprocess = together.preprocess

    def counted(volume: Volume, *asked: Any) -> torch.Tensor:
        made.append(len(volume.pixels))
        return preprocess(volume, *asked)

    monkeypatch.setattr(together, "preprocess", counted)
    waiting: list[int] = []
    compute = worker.compute

    def watched(filling: worker.Filling, tell: Callable[[str], None]) -> None:
        compute(filling, tell)
        waiting.append(len(filling.later))

    monkeypatch.setattr(worker, "compute", watched)
    monkeypatch.setattr(worker, "BESIDE", ("cpu",))
    beside = elsewhere(bad, "beside")
    assert embedcache.extract(beside).exit_code == 1
    assert made[:3] == [5, 5, 1], "so many radiographs at once as there is room for, once for both backbones"
    assert sum(made) == 11 + 6 + 7 + 5, "img005 is none"
    assert set(waiting) == {0, 1, 2}, "of each backbone at most one batch is under way, and the shard that it ends"
    for name in (tiny.name, tiny_registers.name):
        here, there = (next(Path(c.cache).glob(f"*/{name}/*.zarr")) for c in (bad, beside))
        assert differences(here, there) == []


@pytest.mark.parametrize("beside", [(), ("cpu",)])
def test_stopped_all_whole_shards_are_committed(
    config: ExtractConfig, monkeypatch: pytest.MonkeyPatch, beside: tuple[str, ...]
) -> None:
    monkeypatch.setattr(worker, "BESIDE", beside)
    monkeypatch.setattr(together, "TOGETHER", 8)

    said: list[int] = []

    def interrupt(progress: Progress) -> None:
        said.append(progress.done)
        if said.count(16) == 1 and progress.done == 16:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        embedcache.extract(config, embedcache.Listener(progress=interrupt))
    cache = FeatureCache.open(only_store(config), allow_partial=True)
    (p,) = cache.passes
    assert len(cache.commits(p.id)) == 2, "two shards of 8 were computed"
    assert embedcache.extract(config).decoded == 8


def test_a_value_that_does_not_fit_is_told_when_it_arrives(
    config: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "BESIDE", ("cpu",))
    monkeypatch.setattr(forward, "tokens_of", lambda target, x, tell: large(tokens_of(target, x, tell)))
    with pytest.raises(TokenOverflowError, match="float16 can not"):
        embedcache.extract(config)


tokens_of = forward.tokens_of


def large(tokens: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What float16 can not hold."""
    return {path: values * 1e7 for path, values in tokens.items()}

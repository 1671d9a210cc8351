"""What happens in real life: memory that runs out, disks that fill or can not be written, tokens that do not fit."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import embedcache
from embedcache import ExtractConfig, FeatureCache
from embedcache.errors import InputError, TokenOverflowError
from embedcache.store.verify import verify_store
from embedcache.testing.stores import differences

from .conftest import MakeTable, elsewhere, only_store


def limit_batches(monkeypatch: pytest.MonkeyPatch, at_most: int, error: BaseException) -> None:
    """Let the backbone fail with `error` on larger batches."""
    import embedcache.extraction.job as job

    real = job.load_backbone

    class Limited:
        def __init__(self, backbone: Any) -> None:
            self.info = backbone.info
            self.backbone = backbone

        def tokens(self, x: torch.Tensor, arrays: Any) -> dict[str, torch.Tensor]:
            if len(x) > at_most:
                raise error
            found: dict[str, torch.Tensor] = self.backbone.tokens(x, arrays)
            return found

    monkeypatch.setattr(job, "load_backbone", lambda *given: Limited(real(*given)))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_a_batch_that_does_not_fit_is_halved_and_said(
    config: ExtractConfig, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    calm = elsewhere(config, "calm")
    embedcache.extract(calm)
    limit_batches(monkeypatch, 1, error)
    heard: list[str] = []
    assert embedcache.extract(config, embedcache.Listener(tell=heard.append)).exit_code == 0
    assert [line.split("; ")[0] for line in heard if "memory ran out" in line] == ["memory ran out"] * 2
    assert any("goes on with 1 images at once" in line for line in heard)
    cache = FeatureCache.open(only_store(config))
    assert {commit.batch_size for p in cache.passes for commit in cache.commits(p.id)} == {1}
    assert {p.batch_size for p in cache.passes} == {4}, "the pass is the same one"
    one, other = (FeatureCache.open(only_store(c)).features("cls+mean").X for c in (config, calm))
    # another batch size may round elsewhere in float32; one step of float16 is what that can change
    np.testing.assert_allclose(one, other, rtol=2.0**-10, atol=2.0**-14)


def test_one_image_that_does_not_fit_ends_the_run_and_other_errors_do_too(
    config: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_batches(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(InputError, match=r"one image .* does not fit into memory"):
        embedcache.extract(config)
    limit_batches(monkeypatch, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        embedcache.extract(config)


def test_tokens_that_do_not_fit_name_their_layer_and_nothing_is_committed(
    config: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import embedcache.extraction.job as job

    real = job.load_backbone

    class Huge:
        def __init__(self, backbone: Any) -> None:
            self.info = backbone.info
            self.backbone = backbone

        def tokens(self, x: torch.Tensor, arrays: Any) -> dict[str, torch.Tensor]:
            return {path: value * 1e6 for path, value in self.backbone.tokens(x, arrays).items()}

    with monkeypatch.context() as patch:
        patch.setattr(job, "load_backbone", lambda *given: Huge(real(*given)))
        with pytest.raises(TokenOverflowError, match=r"layer_2/cls_token of .*float32"):
            embedcache.extract(config)
        assert not list(only_store(config).glob("commits_*/c/*"))
        assert embedcache.extract(elsewhere(replace(config, dtype="float32"), "wide")).exit_code == 0
    assert embedcache.extract(config).exit_code == 0


# --- disks ----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 256 KiB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this user may not mount a small file system")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_that_fills_in_the_middle_loses_nothing(
    config: ExtractConfig, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import embedcache.extraction.job as job

    full = replace(config, cache=str(small_disk / "cache"), rows_per_shard=2, tokens="cls,mean,patch", batch_size=2)
    monkeypatch.setattr(job, "check_room", lambda *_: None)  # it would refuse at once, as the next test sees
    with pytest.raises(OSError, match="No space left"):
        embedcache.extract(full)
    store = only_store(full)
    done = len(list(store.glob("commits_*/c/*")))
    assert 0 < done < 12
    found = verify_store(store)
    assert found.intact
    assert found.pending == 12 - done

    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    assert embedcache.extract(full).decoded == 24 - 2 * done
    calm = elsewhere(replace(full, cache=str(Path(config.cache))), "calm")
    embedcache.extract(calm)
    assert differences(only_store(calm), store) == []


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    config: ExtractConfig, small_disk: Path
) -> None:
    full = replace(config, cache=str(small_disk / "cache"), rows_per_shard=2, tokens="cls,mean,patch", batch_size=2)
    with pytest.raises(InputError, match=r"needs .* is free"):
        embedcache.extract(full)
    assert not list(small_disk.rglob("*"))


def test_a_read_only_cache_can_be_read_and_not_extended(config: ExtractConfig, tmp_path: Path) -> None:
    embedcache.extract(replace(config, limit=8))
    cache = Path(config.cache)
    done = subprocess.run(["mount", "--bind", cache, cache], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this user may not mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", cache], check=True)
        assert not os.access(cache, os.W_OK)
        assert embedcache.extract(replace(config, limit=8)).decoded == 0
        assert FeatureCache.open(only_store(config)).features("cls").X.shape == (8, 32)
        assert embedcache.verify(only_store(config)).intact
        assert [s.state for s in embedcache.list_stores(cache)] == ["complete"]
        with pytest.raises(OSError, match="Read-only"):
            embedcache.extract(config)
    finally:
        subprocess.run(["umount", "-l", cache], check=True)
    assert embedcache.extract(config).decoded == 16


def test_a_named_pipe_is_set_aside_and_nobody_waits_for_it(config: ExtractConfig, make_table: MakeTable) -> None:
    """Nobody writes to it: opened like a file it would hold up the process that plans, or the one that decodes."""
    hung = replace(config, root=str(make_table(8, folder="hung")), decode_timeout=3.0)
    pipe = Path(hung.root).with_name("img003.png")
    content = pipe.read_bytes()
    pipe.unlink()
    shutil.copy(Path(hung.root).with_name("img004.png"), pipe)
    embedcache.plan(hung)
    pipe.unlink()
    os.mkfifo(pipe)
    report = embedcache.extract(hung)
    assert report.exit_code == 1
    assert report.bad_samples == 1
    assert list(report.quarantined) == ["open: this is neither a file nor a folder."]
    pipe.unlink()
    pipe.write_bytes(content)
    assert embedcache.extract(replace(hung, retry_quarantined=True)).exit_code == 0

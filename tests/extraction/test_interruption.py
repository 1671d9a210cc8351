"""Killed, interrupted, held by another: nothing that was committed is lost, and a resume ends in the same bytes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import embedcache
from embedcache import ExtractConfig
from embedcache.errors import InputError, StoreBusyError, StoreError
from embedcache.extraction.decode import DecodePool
from embedcache.extraction.pieces import Request
from embedcache.extraction.progress import Progress
from embedcache.images import ImageOptions, parse_window
from embedcache.store.locks import exclusive, holder
from embedcache.testing.kill import finished, import_for_forks, kill_and_resume, run_in_fork
from embedcache.testing.stores import differences
from embedcache.types import DatasetInfo

from .conftest import MakeTable, elsewhere, only_store

RUN = """
import json, sys, time
import embedcache
from embedcache.datasets.base import DatasetOptions
raw = json.loads(sys.argv[1])
raw["options"] = DatasetOptions(**{k: tuple(v) if isinstance(v, list) else v for k, v in raw["options"].items()})
raw["backbones"] = tuple(raw["backbones"])
from embedcache_cli.output import fail

def count_slowly(progress):
    print(progress.done, flush=True)
    time.sleep(0.05)  # so that whoever reads the count still finds the run at work

try:
    embedcache.extract(embedcache.ExtractConfig(**raw), embedcache.Listener(progress=count_slowly))
except embedcache.EmbedcacheError as error:
    fail(str(error), type(error).__name__, error.exit_code, True)
"""


def start(config: ExtractConfig) -> "subprocess.Popen[str]":
    """`extract` in a process group of its own; its stdout counts slices."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, json.dumps(asdict(config))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def small_shards(config: ExtractConfig) -> ExtractConfig:
    """Twelve shards of two rows, so that a kill falls between commits as well as within."""
    return replace(config, rows_per_shard=2, batch_size=2)


@pytest.mark.parametrize(("kills", "halfway"), [(5, 2), pytest.param(20, 8, marks=pytest.mark.slow)])
def test_kills_lose_nothing_and_the_store_ends_bit_identical(
    small_shards: ExtractConfig, make_table: MakeTable, kills: int, halfway: int
) -> None:
    """SIGKILL at random moments, of the process or of its whole group, each followed by a resume.

    Children are forked from this process, which has imported what they need (and computed nothing with its threads), so
    that the moments fall into the work and not into the imports.
    """
    import_for_forks()
    config = replace(small_shards, root=str(make_table(96, folder="many")))
    calm = elsewhere(config, "calm")
    assert finished(run_in_fork(calm))
    report = kill_and_resume(config, only_store(calm), kills=kills, rng=random.Random(0))
    assert report.faults == ()
    assert report.kills == report.held == kills
    assert report.halfway >= halfway, (
        "too few kills fell between the first and the last commit for the test to mean anything"
    )


def test_a_store_of_other_images_is_not_taken_for_the_undisturbed_one(
    config: ExtractConfig, make_table: MakeTable
) -> None:
    """The engine of the test above can fail."""
    import_for_forks()
    calm = elsewhere(replace(config, root=str(make_table(24, seed=1, folder="other"))), "calm")
    assert finished(run_in_fork(calm))
    with pytest.raises(StoreError, match="cls_token"):
        kill_and_resume(config, only_store(calm), kills=1, rng=random.Random(0))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_commits_what_is_whole_and_the_same_command_resumes(
    small_shards: ExtractConfig, number: signal.Signals, code: int
) -> None:
    run = start(small_shards)
    assert run.stdout is not None
    while int(run.stdout.readline()) < 9:
        pass
    os.killpg(run.pid, number)  # as a terminal or a scheduler does: the decoders get it too
    _, errors = run.communicate(timeout=60)
    assert run.returncode == code
    told = json.loads(errors)
    assert told["exit_code"] == code
    assert "the same command resumes" in told["error"]
    cache = embedcache.FeatureCache.open(only_store(small_shards), allow_partial=True)
    done = sum(len(cache.commits(p.id)) for p in cache.passes)
    assert 4 <= done < 12
    assert (cache.row_status == 2).sum() == 0, "a decoder that was signalled must not set samples aside"

    report = embedcache.extract(small_shards)
    assert report.decoded == 24 - 2 * done
    calm = elsewhere(small_shards, "calm")
    embedcache.extract(calm)
    assert differences(only_store(calm), only_store(small_shards)) == []


def test_the_lock_is_released_and_counted(tmp_path: Path) -> None:
    for _ in range(3):
        with exclusive(tmp_path, "it"):
            held = holder(tmp_path)
            assert held is not None
            assert held.pid == os.getpid()
            with pytest.raises(StoreBusyError), exclusive(tmp_path, "it"):
                pass
        assert holder(tmp_path) is None
    assert sorted(p.name for p in tmp_path.glob("lock-*")) == ["lock-00000003.json"]


def test_a_claim_of_another_host_dies_when_its_counter_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedcache.store.locks.TIME_TO_LIVE_SECONDS", 0.5)
    claim = {"host": "elsewhere/boot", "pid": 1, "process_start": "1", "beat": 7, "released": False}
    (tmp_path / "lock-00000041.json").write_text(json.dumps(claim))
    with exclusive(tmp_path, "it"):
        assert sorted(p.name for p in tmp_path.glob("lock-*")) == ["lock-00000042.json"]


def test_a_decoder_that_hangs_or_dies_is_replaced_and_its_sample_set_aside(config: ExtractConfig) -> None:
    """SIGSTOP is a hang and SIGKILL a death; every other sample still arrives, in order."""
    images = sorted(Path(config.root).parent.glob("*.png"))
    requests = [Request(i, str(path), 1, 0, 1) for i, path in enumerate(images)]
    options = ImageOptions()
    with DecodePool(2, parse_window("auto"), options, timeout=8.0, prefetch=4, stopping=lambda: False) as pool:
        arrived = []
        for piece in pool.pieces(requests):
            arrived.append((piece.sample, piece.reason))
            if piece.sample == 2:
                pool.decoders[0].process.send_signal(signal.SIGSTOP)
            if piece.sample == 10:
                pool.decoders[1].process.kill()
    assert [sample for sample, _ in arrived] == list(range(24))
    reasons = {reason for _, reason in arrived if reason}
    assert reasons <= {"its decoder gave no answer within 8 s", "its decoder process died"}
    assert "its decoder gave no answer within 8 s" in reasons
    assert sum(bool(reason) for _, reason in arrived) <= 2


def test_nothing_is_set_aside_after_a_suspension(config: ExtractConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-Z, a suspended job or a frozen container: the clock goes on, the run and its decoders do not."""
    images = sorted(Path(config.root).parent.glob("*.png"))
    requests = [Request(i, str(path), 1, 0, 1) for i, path in enumerate(images)]
    slept = 0.0
    real = time.monotonic
    monkeypatch.setattr("time.monotonic", lambda: real() + slept)
    with DecodePool(1, parse_window("auto"), ImageOptions(), timeout=60, prefetch=2, stopping=lambda: False) as pool:
        look = pool.selector.select

        def look_and_sleep(timeout: float) -> object:
            nonlocal slept
            pool.decoders[0].process.send_signal(signal.SIGSTOP)
            ready = look(timeout=0)
            slept += 1000
            pool.decoders[0].process.send_signal(signal.SIGCONT)
            return ready

        monkeypatch.setattr(pool.selector, "select", look_and_sleep)
        arrived = [(piece.sample, piece.reason) for piece in pool.pieces(requests)]
    assert slept >= 1000
    assert arrived == [(i, "") for i in range(24)]


def test_a_decoder_that_died_with_a_message_unread_is_replaced(config: ExtractConfig) -> None:
    """What could not be written stays in the pipe's buffer, and closing the pipe tries to write it once more."""
    images = sorted(Path(config.root).parent.glob("*.png"))
    requests = [Request(i, str(path), 1, 0, 1) for i, path in enumerate(images)]
    with DecodePool(1, parse_window("auto"), ImageOptions(), timeout=60, prefetch=2, stopping=lambda: False) as pool:
        pool.decoders[0].process.kill()
        pool.decoders[0].process.wait()
        arrived = [(piece.sample, piece.reason) for piece in pool.pieces(requests)]
    assert arrived == [(0, "its decoder process died"), *((i, "") for i in range(1, 24))]


def test_versions_and_devices_are_not_mixed_in_one_pass(
    small_shards: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(small_shards)
    assert run.stdout is not None
    while int(run.stdout.readline()) < 9:
        pass
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    import embedcache.extraction.job as job

    real = job.software_versions()
    monkeypatch.setattr(job, "software_versions", lambda: {**real, "torch": "3.1.0"})
    with pytest.raises(InputError, match=r"torch 2\.13\.0.* then, 3\.1\.0 now"):
        embedcache.extract(small_shards)
    assert embedcache.extract(replace(small_shards, mixed=True)).exit_code == 0


def test_dataset_info_of_a_store_is_what_the_dataset_says(config: ExtractConfig) -> None:
    embedcache.extract(config)
    assert embedcache.FeatureCache.open(only_store(config)).root.dataset == DatasetInfo("cases", public_ids=False)


def test_stopped_before_the_end_only_the_finalising_is_left(
    small_shards: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import embedcache.extraction.job as job

    with monkeypatch.context() as patch:
        patch.setattr(job, "complete", lambda *_: pytest.fail("stopped here"))
        with pytest.raises(pytest.fail.Exception):
            embedcache.extract(small_shards)
    monkeypatch.setattr(job, "load_backbone", lambda *_: pytest.fail("no backbone is needed any more"))
    assert embedcache.extract(small_shards).decoded == 0
    assert embedcache.FeatureCache.open(only_store(small_shards)).features("cls").X.shape == (24, 32)


def test_a_second_sigint_ends_at_once() -> None:
    from embedcache.extraction.job import watch_signals

    with watch_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        assert stop.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_shard_is_committed_when_it_is_whole_and_not_when_the_run_ends(
    small_shards: ExtractConfig, tiny: Path, tiny_registers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One backbone lacks its first shard only, another one all: what is whole must not wait for the other's last row."""
    import embedcache.extraction.job as job

    with monkeypatch.context() as patch:
        patch.setattr(job, "complete", lambda *_: pytest.fail("stopped here"))
        with pytest.raises(pytest.fail.Exception):
            embedcache.extract(small_shards)
    store = only_store(small_shards)
    (first,) = store.glob("commits_*/c/0")
    first.unlink()

    def stop_early(progress: Progress) -> None:
        if progress.done == 6:
            raise RuntimeError("stopped here")

    both = replace(small_shards, backbones=(str(tiny), str(tiny_registers)))
    with pytest.raises(RuntimeError, match="stopped here"):
        embedcache.extract(both, embedcache.Listener(progress=stop_early))
    assert first.is_file()
    assert len(list(Path(both.cache).glob(f"*/{tiny_registers.name}/*.zarr/commits_*/c/*"))) == 3


def test_a_resumed_run_says_what_it_found(small_shards: ExtractConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    import embedcache.extraction.job as job

    def told() -> list[str]:
        lines: list[str] = []
        embedcache.extract(small_shards, embedcache.Listener(tell=lines.append))
        return [line for line in lines if line.startswith("store ")]

    with monkeypatch.context() as patch:
        patch.setattr(job, "complete", lambda *_: pytest.fail("stopped here"))
        with pytest.raises(pytest.fail.Exception):
            embedcache.extract(small_shards)
    store = only_store(small_shards)
    name = f"{store.parent.name}/{store.name}"
    commits = sorted(store.glob("commits_*/c/*"))
    assert len(commits) == 12
    with monkeypatch.context() as patch:
        patch.setattr(job, "complete", lambda *_: pytest.fail("stopped here"))
        for path in commits[3:]:
            path.unlink()
        heard: list[str] = []
        with pytest.raises(pytest.fail.Exception):
            embedcache.extract(small_shards, embedcache.Listener(tell=heard.append))
    assert f"store {name}: 6 of 24 slices are there; this run goes on with the rest" in heard
    assert sorted(store.glob("commits_*/c/*")) == commits
    for path in commits:
        path.unlink()
    (line,) = told()
    assert line.startswith(f"store {name}: none of 24 slices was committed")
    assert told() == []


def test_a_fresh_store_and_one_that_is_all_there_but_its_end_say_so(
    small_shards: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import embedcache.extraction.job as job

    heard: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(job, "complete", lambda *_: pytest.fail("stopped here"))
        with pytest.raises(pytest.fail.Exception):
            embedcache.extract(small_shards, embedcache.Listener(tell=heard.append))
    assert not [line for line in heard if line.startswith("store ")]
    embedcache.extract(small_shards, embedcache.Listener(tell=heard.append))
    assert [line.partition(": ")[2] for line in heard if line.startswith("store ")] == [
        "all 24 slices are there, and it is finished now"
    ]

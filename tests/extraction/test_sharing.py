"""Several extractions on one store: they share the work, and a dead one's is taken over."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

import embedcache
from embedcache import ExtractConfig, FeatureCache
from embedcache.errors import InputError, Interrupted, StoreBusyError, WorkerFailedError
from embedcache.extraction.devices import config_of, parse_devices
from embedcache.extraction.opening import OpenStore
from embedcache.extraction.progress import Progress
from embedcache.store.leases import workers
from embedcache.testing.kill import import_for_forks
from embedcache.testing.stores import differences

from .conftest import MakeTable, elsewhere, only_store


@pytest.fixture
def small_leases(config: ExtractConfig, make_table: MakeTable) -> ExtractConfig:
    """48 radiographs in 24 shards, each a lease of its own."""
    return replace(config, root=str(make_table(48, folder="shared")), rows_per_shard=2, batch_size=2)


def hosts(store: Path) -> set[str]:
    """Who committed the shards of a store."""
    cache = FeatureCache.open(store, allow_partial=True)
    return {commit.host for p in cache.passes for commit in cache.commits(p.id)}


@dataclass(frozen=True)
class Run:
    """An extraction in a fork of this process, which has imported what it needs; it says how many slices it has done."""

    process: BaseProcess
    said: "Connection[int, int]"

    def wait_for(self, count: int) -> None:
        """Wait until it has done so many slices."""
        while self.said.recv() < count:
            pass

    def signal(self, number: signal.Signals) -> None:
        """To it and to its decoders."""
        assert self.process.pid is not None
        os.killpg(self.process.pid, number)

    def end(self) -> int | None:
        """Its exit code."""
        self.process.join(60)
        self.said.close()
        return self.process.exitcode


def fork(config: ExtractConfig) -> Run:
    import_for_forks()
    mine, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_extract, args=(config, theirs))
    process.start()
    theirs.close()
    return Run(process, mine)


def _extract(config: ExtractConfig, said: "Connection[int, int]") -> None:
    os.setsid()

    def count_slowly(progress: Progress) -> None:
        said.send(progress.done)
        time.sleep(0.05)  # so that whoever reads the count still finds the run at work

    embedcache.extract(config, embedcache.Listener(progress=count_slowly))


def test_two_runs_share_the_work_and_end_with_one_store(small_leases: ExtractConfig) -> None:
    other = fork(small_leases)
    other.wait_for(4)
    report = embedcache.extract(small_leases)
    assert other.end() == 0
    assert 0 < report.decoded < 48
    assert len(hosts(only_store(small_leases))) == 2
    calm = elsewhere(small_leases, "calm")
    embedcache.extract(calm)
    assert differences(only_store(calm), only_store(small_leases)) == []
    assert list(only_store(small_leases).with_suffix(".leases").glob("workers/*")) == []


def test_a_killed_runs_leases_are_taken_over(small_leases: ExtractConfig) -> None:
    other = fork(small_leases)
    other.wait_for(6)
    other.signal(signal.SIGSTOP)
    store = only_store(small_leases)
    assert list(store.with_suffix(".leases").glob("taken/*")), "it holds a lease"
    other.signal(signal.SIGKILL)
    other.end()
    embedcache.extract(small_leases)
    calm = elsewhere(small_leases, "calm")
    embedcache.extract(calm)
    assert differences(only_store(calm), store) == []
    assert list(store.with_suffix(".leases").glob("taken/*")) == []


def test_a_stopped_runs_lease_expires_and_waking_up_does_no_harm(
    small_leases: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedcache.store.locks.TIME_TO_LIVE_SECONDS", 1.5)
    monkeypatch.setattr("embedcache.store.locks.HEARTBEAT_SECONDS", 0.2)
    other = fork(small_leases)
    other.wait_for(6)
    other.signal(signal.SIGSTOP)
    report = embedcache.extract(small_leases)
    assert report.exit_code == 0
    before = {p: p.read_bytes() for p in only_store(small_leases).rglob("*") if p.is_file()}
    other.signal(signal.SIGCONT)
    assert other.end() == 0
    assert before == {p: p.read_bytes() for p in only_store(small_leases).rglob("*") if p.is_file()}


def test_a_store_that_is_worked_on_is_not_removed(small_leases: ExtractConfig) -> None:
    other = fork(small_leases)
    other.wait_for(4)
    with pytest.raises(embedcache.EmbedcacheError, match=f"process {other.process.pid} on host .*stop it first"):
        embedcache.remove_store(only_store(small_leases))
    other.signal(signal.SIGKILL)
    other.end()


def test_a_run_is_known_to_others_before_its_backbone_is_loaded(
    small_leases: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading takes minutes, and the store's lock is not held meanwhile."""
    import embedcache.extraction.job as job

    real, skipped = job.same_plan, []

    def tidy_up_first(opened: list[OpenStore]) -> list[job.Group]:
        skipped.extend(embedcache.collect_garbage(small_leases.cache).skipped)
        with pytest.raises(StoreBusyError, match="is being filled by process"):
            embedcache.remove_store(only_store(small_leases))
        return real(opened)

    monkeypatch.setattr(job, "same_plan", tidy_up_first)
    assert embedcache.extract(small_leases).decoded == 48
    assert len(skipped) == 1
    assert workers(only_store(small_leases).with_suffix(".leases")) == []


# --- --devices ------------------------------------------------------------------------------------


def test_words_for_devices() -> None:
    assert parse_devices("cuda:0,cuda:3") == ("cuda:0", "cuda:3")
    assert parse_devices("cpu:2") == ("cpu", "cpu")
    for wrong in ("cuda", "cuda:0,cuda:0", "cpu", "cuda:0,cpu:1", "cpu:0", ""):
        with pytest.raises(InputError, match="devices must be like"):
            parse_devices(wrong)


def test_a_configuration_survives_its_journey(small_leases: ExtractConfig) -> None:
    config = replace(small_leases, size=(28, 42), where="age > 5")
    assert config_of(json.dumps(asdict(config))) == config


def test_two_processes_on_the_cpu_fill_one_store(small_leases: ExtractConfig) -> None:
    both = replace(small_leases, devices="cpu:2", device="auto")
    seen: list[int] = []
    report = embedcache.extract(both, embedcache.Listener(progress=lambda p: seen.append(p.done)))
    assert report.exit_code == 0
    assert report.decoded == 48
    assert seen[-1] == 48
    assert sorted(seen) == seen
    calm = elsewhere(replace(small_leases, threads=1), "calm")
    embedcache.extract(calm)
    assert differences(only_store(calm), only_store(both)) == []


def test_a_process_that_dies_is_named_and_its_work_done(
    small_leases: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import embedcache.extraction.devices as devices

    real, started = devices.start, []

    def start_and_kill_the_first(config: ExtractConfig) -> devices.Child:
        child = real(config)
        started.append(child)
        if len(started) == 1:
            child.process.kill()
        return child

    monkeypatch.setattr(devices, "start", start_and_kill_the_first)
    heard: list[str] = []
    report = embedcache.extract(
        replace(small_leases, devices="cpu:2", device="auto"), embedcache.Listener(tell=heard.append)
    )
    assert report.decoded == 48
    assert any("was killed (SIGKILL); the others did its work" in line for line in heard)


def test_when_every_process_fails_the_reason_is_told(
    small_leases: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import embedcache.extraction.devices as devices

    real = devices.start
    broken = replace(small_leases, root=str(Path(small_leases.root).with_name("none.csv")))
    monkeypatch.setattr(devices, "start", lambda _: real(broken))
    with pytest.raises(WorkerFailedError, match=r"on cpu: .*none\.csv") as caught:
        embedcache.extract(replace(small_leases, devices="cpu:2", device="auto"))
    assert caught.value.exit_code == 2


@pytest.mark.slow
def test_a_signal_ends_all_processes_and_the_run_resumes(small_leases: ExtractConfig) -> None:
    both = replace(small_leases, devices="cpu:2", device="auto")

    def stop_early(progress: Progress) -> None:
        if progress.done >= 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        embedcache.extract(both, embedcache.Listener(progress=stop_early))
    assert caught.value.exit_code == 143
    assert embedcache.extract(both).exit_code == 0
    assert FeatureCache.open(only_store(both)).features("cls").X.shape == (48, 32)

"""SIGKILL an extraction at random moments, resume it, and compare the store with an undisturbed one.

Extractions run in children forked from the calling process. `import_for_forks` puts the moments into the work and not
into the imports; the caller must not have *computed* with torch's threads, which do not survive a fork.
"""

import importlib
import importlib.util
import multiprocessing
import os
import random
import signal
import time
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.process import BaseProcess
from pathlib import Path

from embedcache.errors import StoreError
from embedcache.extraction.config import ExtractConfig
from embedcache.extraction.job import extract
from embedcache.store.catalog import remove_store
from embedcache.store.reader import FeatureCache
from embedcache.store.verify import verify_store
from embedcache.testing.stores import differences

KILLS_A_STORE = 5
"""At most so many kills hit one store before it is resumed to its end."""
GROUP_EVERY = 4
"""Every so many kills hit the whole process group, decode processes included; the others hit the extraction alone."""
ANYWHERE = 0.2
"""This share of kills falls anywhere in a run (start-up, planning, finalising); the rest after its first commit."""
POLL_SECONDS = 0.005


@dataclass(frozen=True)
class KillReport:
    """What became of the stores of killed extractions."""

    kills: int
    halfway: int
    """Kills that fell between the first and the last commit of the run that they hit."""
    held: int
    """Kills after which the resumed store was intact, its tokens and index those of the undisturbed one byte for byte."""
    faults: tuple[str, ...]
    """What was wrong with the other stores."""


@dataclass(frozen=True)
class Span:
    """How long an undisturbed run takes, in seconds."""

    whole: float
    """From the fork to the end of the process."""
    working: float
    """From the first commit to the end of the process."""
    commits: int


def import_for_forks() -> None:
    """Import all that an extraction with a Dinov2 backbone imports, so that its forks need not. Computes nothing."""
    from embedcache.backbones.torchvision_pair import complete_torchvision  # heavy, as all of these

    complete_torchvision()  # the models of transformers import torchvision where it is installed
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("dinov2")  # hundreds of patterns, compiled once
    for name in ("transformers.models.dinov2.modeling_dinov2", "embedcache.extraction.worker"):
        importlib.import_module(name)
    if importlib.util.find_spec("pandas") is not None:  # pyarrow imports it where it is
        importlib.import_module("pandas")


def kill_and_resume(
    config: ExtractConfig, calm_store: Path, kills: int, rng: random.Random, workers: int = 1
) -> KillReport:
    """Kill `extract(config)` `kills` times, resume after each, and compare every finished store with `calm_store`.

    workers: so many extractions share the store; each kill hits one of them, and another takes its place. config: one
    backbone, a cache that is empty and lies elsewhere than `calm_store`, small shards. Kills that come too late (all runs
    had ended) are not counted. Raises StoreError where an undisturbed run already differs.
    """
    span = measure(config, calm_store)
    done = halfway = held = 0
    faults: list[str] = []
    while done < kills:
        hits = 0
        running: list[BaseProcess] = []
        while hits < KILLS_A_STORE and done + hits < kills:
            before = commits(config)
            running += [run_in_fork(config) for _ in range(workers - len(running))]
            wait_for_moment(running, config, span, rng)
            running = [child for child in running if child.is_alive()]
            if not running:
                break
            victim = running.pop(rng.randrange(len(running)))
            stop(victim, whole_group=(done + hits) % GROUP_EVERY == GROUP_EVERY - 1)
            hits += 1
            halfway += before < commits(config) < span.commits
        failed = [f"a run beside a killed one ended with code {c.exitcode}" for c in running if not finished(c)]
        found = failed + faults_of_resume(config, calm_store)
        faults += found
        held += 0 if found else hits
        done += hits
        remove_store(only_store(config))
    return KillReport(done, halfway, held, tuple(faults))


def measure(config: ExtractConfig, calm_store: Path) -> Span:
    """The times of an undisturbed run of `config`, whose store is compared and removed."""
    clock, begun = time.time(), time.monotonic()
    if found := faults_of_resume(config, calm_store):
        raise StoreError(f"two undisturbed extractions differ, so kills would prove nothing: {found}.")
    whole = time.monotonic() - begun
    cache = FeatureCache.open(only_store(config))
    times = [datetime.fromisoformat(c.finished).timestamp() for p in cache.passes for c in cache.commits(p.id)]
    remove_store(only_store(config))
    return Span(whole, whole - (min(times) - clock), len(times))


def run_in_fork(config: ExtractConfig) -> BaseProcess:
    """`extract(config)` in a forked child that leads a process group of its own."""
    child = multiprocessing.get_context("fork").Process(target=_extract, args=(config,))
    child.start()
    return child


def _extract(config: ExtractConfig) -> None:
    os.setsid()
    extract(config)


def wait_for_moment(running: list[BaseProcess], config: ExtractConfig, span: Span, rng: random.Random) -> None:
    """Sleep until a random moment of the runs, or until they have ended.

    Most moments are drawn from the time between the next commit, which is waited for (on a busy machine start-up
    takes now one second and now three), and the end, which is nearer where less is left to do.
    """
    if rng.random() < ANYWHERE:
        wait(running, rng.uniform(0, span.whole))
        return
    before = commits(config)
    while commits(config) == before and any(child.is_alive() for child in running):
        time.sleep(POLL_SECONDS)
    wait(running, rng.uniform(0, span.working * (1 - before / span.commits)) / len(running))


def wait(running: list[BaseProcess], seconds: float) -> None:
    """Sleep so long, or until all runs have ended."""
    end = time.monotonic() + seconds
    for child in running:
        child.join(max(0.0, end - time.monotonic()))


def stop(child: BaseProcess, whole_group: bool) -> None:
    """SIGKILL to the child, or to all of its group."""
    assert child.pid is not None
    try:
        os.killpg(child.pid, signal.SIGKILL) if whole_group else os.kill(child.pid, signal.SIGKILL)
    except ProcessLookupError:  # killed before it led a group
        os.kill(child.pid, signal.SIGKILL)
    child.join()


def finished(child: BaseProcess) -> bool:
    """Whether the run came to its own end without an error (which is printed on stderr)."""
    child.join()
    return child.exitcode == 0


def faults_of_resume(config: ExtractConfig, calm_store: Path) -> list[str]:
    """Run `extract(config)` to its end and say what is wrong: its store must be complete and equal the undisturbed one."""
    if not finished(run_in_fork(config)):
        return ["the resume failed"]
    store = only_store(config)
    report = verify_store(store)
    damage = [f"{d.object} {d.reason}" for d in report.damage]
    pending = [f"{report.pending} shards are pending"] if report.pending else []
    return damage + pending + [f"{name} differs" for name in differences(calm_store, store)]


def commits(config: ExtractConfig) -> int:
    """Commits on disk, counted by their files: the store may have no root document yet."""
    return sum(len(os.listdir(folder)) for folder in Path(config.cache).glob("*/*/*.zarr/commits_*/c"))


def only_store(config: ExtractConfig) -> Path:
    """The one store of a configuration's cache."""
    (store,) = Path(config.cache).glob("*/*/*.zarr")
    return store

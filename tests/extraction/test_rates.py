"""The time of a run from made-up rates: which stage decides, and what backbones share."""

from dataclasses import replace

import pytest

from embedcache import ExtractConfig
from embedcache.extraction.pending import PendingPass
from embedcache.extraction.rates import Rates, run_time

from .test_plan import pending_of


@pytest.fixture
def passes(config: ExtractConfig) -> list[PendingPass]:
    """Two backbones of one input: 24 slices in batches of 4."""
    return pending_of(replace(config, backbones=(*config.backbones, "pixels:28"), tokens="cls"))


def rates_of(passes: list[PendingPass], batch: float = 4.0, **changes: object) -> Rates:
    """A second for decoding a slice, a second of forward for each backbone, nothing else."""
    free = dict.fromkeys((p.input_name for p in passes), 0.0)
    plain = Rates(
        device="cuda", cores=8, processes=1, workers=1, threads=1, startup=0.0, decode=1.0, decoded=8, preprocess=free,
        batch={p.name: batch for p in passes}, put=0.0, byte=0.0,
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_on_a_gpu_the_slowest_stage_decides(passes: list[PendingPass]) -> None:
    found = run_time(passes, rates_of(passes))
    # one decoding for both, and the seconds of the backbones add
    assert (found.decode, found.forward, found.write) == (24, 48, 0)
    assert (found.seconds, found.binds) == (48, "forward")
    slow = run_time(passes, rates_of(passes, decode=3.0))
    assert (slow.seconds, slow.binds) == (72, "decode")
    assert run_time(passes, rates_of(passes, decode=3.0, workers=2)).seconds == 48
    assert run_time(passes, rates_of(passes, decode=100.0, workers=50)).decode == 24 * 100 / 8, "no more than the cores"
    size = sum(sum(p.array_bytes().values()) for p in passes)
    written = run_time(passes, rates_of(passes, put=10.0, byte=1.0))
    assert (written.write, written.binds) == (sum(p.files() for p in passes) * 10 + size, "write")
    assert run_time(passes, rates_of(passes, startup=7.0)).seconds == 55


def test_on_a_cpu_decoding_and_computing_share_the_cores(passes: list[PendingPass]) -> None:
    cpu = rates_of(passes, device="cpu", cores=2, workers=1, threads=2, decode=2.0)
    # 1/(1/F + 1/D) for F = 1/2 a second and, on two cores, D = 1
    assert run_time(passes, cpu).seconds == 24 * (2 + 1)
    assert run_time(passes, replace(cpu, threads=1)).seconds == 48, "the forward pass leaves a core to the decoder"
    assert run_time(passes, replace(cpu, decode=9.0)).seconds == 24 * 9, "one decode process is the limit"


def test_several_processes_share_the_work(passes: list[PendingPass]) -> None:
    two = run_time(passes, rates_of(passes, processes=2))
    assert (two.decode, two.forward) == (12, 24)


def test_preprocessing_is_shared_by_backbones_of_one_input(passes: list[PendingPass], config: ExtractConfig) -> None:
    """The two differ in mean and deviation, so they do not share; the same pass twice does."""
    per_slice = dict.fromkeys((p.input_name for p in passes), 1.0)
    assert len(per_slice) == 2
    both = run_time(passes, rates_of(passes, batch=0.0, preprocess=per_slice))
    assert both.forward == 48
    one = passes[:1] * 2
    assert run_time(one, rates_of(one, batch=0.0, preprocess=per_slice)).forward == 24

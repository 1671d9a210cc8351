"""What a spoilt or huge file does to the process that reads it, and that the run goes on."""

import gzip
import os
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

import embedcache
from embedcache import ExtractConfig
from embedcache.extraction import decode, decode_process, memory
from embedcache.extraction.apart import count_each, look
from embedcache.extraction.decode import DecodePool
from embedcache.extraction.decoder import TOO_LARGE
from embedcache.extraction.pieces import Request
from embedcache.images import ImageOptions, open_image, stat_source
from embedcache.testing.files import write_nifti, write_png
from embedcache.types import Window

CRASH = """
import os, time
import scipy.io

real = scipy.io.loadmat

def loadmat(file, **options):
    if b"crash" in file.getvalue():
        os.abort()
    if b"hangs" in file.getvalue():
        time.sleep(600)
    return real(file, **options)

scipy.io.loadmat = loadmat
"""
"""A reader written in C, as far as a run can tell: it ends the process, or never comes back."""


@pytest.fixture
def mats(tmp_path: Path, config: ExtractConfig) -> ExtractConfig:
    """Eight MATLAB files of one slice or four; of two the reader does not come back."""
    folder = tmp_path / "mats"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["path,case"]
    for i in range(8):
        word = {2: "crash", 5: "hangs"}.get(i, "other")
        shape = (40, 30, 1 + i % 2 * 3)
        savemat(folder / f"{i}.mat", {"image": rng.integers(0, 255, shape).astype(np.uint8), "word": word})
        lines.append(f"{i}.mat,case{i}")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    return replace(config, root=str(folder / "cases.csv"), decode_timeout=6.0, allow_bad="2")


@pytest.mark.slow
def test_a_reader_that_crashes_or_hangs_ends_neither_plan_nor_extraction(
    mats: ExtractConfig, in_children: Callable[[str], None]
) -> None:
    in_children(CRASH)
    heard: list[str] = []
    report = embedcache.plan(mats, heard.append)
    assert report.slices == 4 * 1 + 3 * 4 + 1  # one row for each that can not be counted
    assert "2 sources can not be opened; they get one row each and will be set aside" in heard
    done = embedcache.extract(mats)
    assert done.quarantined == {
        "decode: its decoder process died": 1,
        "decode: its decoder gave no answer within 6 s": 1,
    }
    assert done.exit_code == 0


def test_a_retry_counts_in_other_processes_too(mats: ExtractConfig, in_children: Callable[[str], None]) -> None:
    in_children(CRASH)
    mats = replace(mats, limit=4)
    done = embedcache.extract(mats)
    assert done.quarantined == {"decode: its decoder process died": 1}
    assert embedcache.extract(replace(mats, retry_quarantined=True)).quarantined == done.quarantined


def test_a_source_with_a_new_date_is_compared_in_another_process(
    mats: ExtractConfig, in_children: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mats = replace(mats, limit=3)
    embedcache.extract(mats)
    folder = Path(mats.root).parent
    for path in folder.glob("*.mat"):
        path.touch()
    in_children(CRASH)
    heard: list[str] = []
    report = embedcache.extract(mats, embedcache.Listener(tell=heard.append))
    assert report.decoded == 0
    assert "1 sources can no longer be opened where they were; what is stored of them stays" in heard
    assert "2 sources have a new date and the same content" in heard


def test_what_is_found_apart_is_what_is_found_here(mats: ExtractConfig, tmp_path: Path) -> None:
    png = write_png(tmp_path / "a.png", np.full((8, 9), 7, dtype=np.uint8))
    volume = write_nifti(tmp_path / "b.nii.gz", np.zeros((6, 5, 4), dtype=np.float32))
    paths = [str(png), str(tmp_path / "absent.png"), str(volume), *map(str, Path(mats.root).parent.glob("?.mat"))]
    for path, found in zip(paths, look(paths, "measure", ImageOptions(), mats), strict=True):
        if found is None:
            assert "absent" in path
            continue
        here = open_image(path)
        assert (found.slices, found.digest) == (here.n_slices, here.digest)
        assert (found.size, found.mtime_ns) == tuple(stat_source(path))
        assert found.slice_bytes == here.read(0, 1).pixels.nbytes
    there = [found.slices if found else 0 for found in look(paths, "count", ImageOptions(), mats)]
    assert count_each(paths, mats) == there
    assert 0 in there
    assert {1, 4} <= set(there)


def test_pictures_and_volumes_are_counted_without_another_process(
    tmp_path: Path, config: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_process.subprocess, "Popen", lambda *_, **__: pytest.fail("no process is needed"))
    volume = write_nifti(tmp_path / "volume.nii.gz", np.zeros((6, 5, 4), dtype=np.float32))
    pictures = sorted(Path(config.root).parent.glob("*.png"))
    assert count_each([*map(str, pictures), str(volume)], config) == [1] * 24 + [4]


# --- memory ---------------------------------------------------------------------------------------


def test_the_memory_of_decode_processes_is_limited(config: ExtractConfig) -> None:
    with DecodePool(3, Window("range"), ImageOptions(), 60, 1, lambda: False) as pool:
        image = next(Path(config.root).parent.glob("*.png"))
        requests = [Request(i, str(image), 0, 0, 1, "count") for i in range(3)]
        assert [piece.found.slices for piece in pool.pieces(requests) if piece.found] == [1, 1, 1]
        limits = [resource.prlimit(d.process.pid, resource.RLIMIT_DATA)[0] for d in pool.decoders]
    assert limits == [memory.decoder_limit(3)] * 3


def test_a_pool_leaves_no_file_open(config: ExtractConfig) -> None:
    """A notebook may run thousands of extractions in one process."""
    image = next(Path(config.root).parent.glob("*.png"))
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(2):
        with DecodePool(2, Window("range"), ImageOptions(), 60, 1, lambda: False) as pool:
            (piece,) = pool.pieces([Request(0, str(image), 1, 0, 1)])
    assert piece.volume is not None
    assert piece.volume.pixels.size  # what a piece shows outlives the pool
    piece, pool = None, None
    assert set(os.listdir("/proc/self/fd")) <= before | {str(max(map(int, before)) + 1)}  # the listing's own


def test_the_limit_is_a_share_of_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < memory.main_memory() <= 2**50
    monkeypatch.setattr(memory, "main_memory", lambda: 160 * 2**30)
    assert memory.decoder_limit(1) == 140 * 2**30  # so that a volume of 128 GiB has room
    assert memory.decoder_limit(10) == 14 * 2**30
    monkeypatch.setattr(memory, "main_memory", lambda: 8 * 2**30)
    assert memory.decoder_limit(16) == 2 * 2**30  # whatever the machine, 2 GiB


def test_a_file_that_needs_more_memory_than_there_is_is_set_aside(
    tmp_path: Path, config: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, but larger than what a process may take; what comes before and after it is read by the same process."""
    small = write_nifti(tmp_path / "small.nii.gz", np.ones((20, 20, 3), dtype=np.float32))
    header = bytearray(gzip.decompress(small.read_bytes())[:352])
    header[42:48] = np.array([512, 512, 256], dtype="<i2").tobytes()
    with gzip.open(tmp_path / "large.nii.gz", "wb", compresslevel=1) as file:
        file.write(bytes(header))
        for _ in range(256):
            file.write(b"\0" * (512 * 512 * 4))
    monkeypatch.setattr(decode, "decoder_limit", lambda _: 200 * 2**20)
    names = ["small", "large", "small"]
    requests = [
        Request(i, str(tmp_path / f"{name}.nii.gz"), 3 if name == "small" else 256, 0, 3)
        for i, name in enumerate(names)
    ]
    with DecodePool(1, Window("auto"), ImageOptions(), 120, 1, lambda: False) as pool:
        first = pool.decoders[0].process.pid
        arrived = [(piece.sample, piece.stop - piece.start, piece.reason) for piece in pool.pieces(requests)]
        assert pool.decoders[0].process.pid == first
    assert arrived == [(0, 3, ""), *[(1, 1, TOO_LARGE)] * 3, (2, 3, "")]

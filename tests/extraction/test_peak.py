"""The main memory that a plan states, against what the extraction then takes."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

import embedcache
from embedcache import ExtractConfig
from embedcache.extraction import peak
from embedcache.extraction.memory import main_memory
from embedcache.extraction.peak import image_bytes
from embedcache.extraction.pieces import Found
from embedcache.images import parse_window
from embedcache.testing.files import write_nifti

from .conftest import MakeTable

EXTRACT = """
import json, sys
from pathlib import Path
from embedcache.extraction.decode import DecodePool
from embedcache.extraction.devices import config_of
import embedcache

def peak(pid):
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024

end, decoders = DecodePool._end, []

def noted(pool, decoder):
    decoders.append(peak(decoder.process.pid))
    end(pool, decoder)

DecodePool._end = noted
embedcache.extract(config_of(sys.argv[1]))
print(json.dumps([peak("self"), max(decoders)]))
"""
"""Peaks as the kernel keeps them for each process; `getrusage` counts for a child what its parent had when it was forked."""

LEAST, MOST = 0.9, 2.5
"""The estimate over what was measured: it leans upwards, since libraries differ from one machine to the next."""


def measured(config: ExtractConfig) -> tuple[int, int]:
    """Peak resident bytes of an extraction: of the process that computes, and of the largest decode process."""
    done = subprocess.run(
        [sys.executable, "-c", EXTRACT, json.dumps(asdict(config))], capture_output=True, text=True, check=True
    )
    own, child = json.loads(done.stdout.splitlines()[-1])
    return own, child


@pytest.fixture
def volume(config: ExtractConfig, tmp_path: Path) -> ExtractConfig:
    """A volume of 96 MiB, whose statistics are taken over all of it, beside a small one."""
    folder = tmp_path / "volumes"
    folder.mkdir()
    plane = np.random.default_rng(0).normal(size=(448, 448, 1)).astype(np.float32)
    write_nifti(folder / "large.nii", np.ascontiguousarray(np.broadcast_to(plane, (448, 448, 125))))
    write_nifti(folder / "small.nii.gz", plane[:20, :20, [0] * 130])
    (folder / "cases.csv").write_text("path,case\nlarge.nii,a\nsmall.nii.gz,b\n")
    return replace(config, root=str(folder / "cases.csv"))


@pytest.mark.slow
def test_a_large_volume_is_forecast(volume: ExtractConfig) -> None:
    memory = embedcache.plan(volume).memory
    # another worker may hold such a volume too
    two = embedcache.plan(replace(volume, workers=2)).memory
    # a window that no pixel decides never holds so many copies
    fixed = embedcache.plan(replace(volume, window="40/400")).memory
    assert memory is not None
    assert two is not None
    assert fixed is not None
    assert two.images == 2 * memory.images
    assert fixed.images < 0.6 * memory.images

    own, child = measured(volume)
    assert child > 3 * 448 * 448 * 125 * 4, "the volume is held several times over"
    assert LEAST <= (memory.images + peak.DECODER_BYTES) / child <= MOST
    assert LEAST <= memory.total / (own + child) <= MOST


def test_small_pictures_are_forecast(config: ExtractConfig) -> None:
    memory = embedcache.plan(config).memory
    assert memory is not None
    own, child = measured(config)
    assert LEAST <= memory.total / (own + child) <= MOST
    assert memory.available == main_memory()
    assert embedcache.plan(config).memory is None, "nothing is pending any more"


def test_the_parts_grow_with_what_is_asked(config: ExtractConfig) -> None:
    def of(**changes: object) -> peak.Memory:
        memory = embedcache.plan(replace(config, **changes)).memory  # type: ignore[arg-type]
        assert memory is not None
        return memory

    plain = of()
    assert of(tokens="cls,mean,patch").shards > plain.shards
    assert of(batch_size=64).inputs > plain.inputs
    assert of(backbones=("pixels:28",), tokens="cls").weights == 0 < plain.weights
    both = of(devices="cpu:2")
    assert both.processes == 2
    assert both.total == 2 * (both.total // 2)
    assert both.total > 1.9 * plain.total


def test_more_than_there_is_is_told(config: ExtractConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "main_memory", lambda: 2**20)
    report = embedcache.plan(config)
    assert report.memory is not None
    assert not report.memory.fits
    assert any("of main memory and there is 1.0 MiB; fewer --workers" in line for line in report.notices)
    assert report.exit_code == 0, "an estimate forbids nothing"


def test_an_image_that_can_not_be_opened_counts_nothing(config: ExtractConfig) -> None:
    for image in Path(config.root).parent.glob("*.png"):
        image.write_bytes(b"rubbish")
    memory = embedcache.plan(config).memory
    assert memory is not None
    assert memory.images == 0


def test_no_process_is_forecast_more_than_it_may_take(config: ExtractConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "look", lambda *_: [Found(1000, 2**40, 0, "", 2**30)])
    memory = embedcache.plan(config).memory
    assert memory is not None
    assert memory.images == peak.decoder_limit(1)


def test_copies_of_an_image() -> None:
    picture, volume = Found(1, 100, 0, "", 1000), Found(64, 100, 0, "", 1000)
    assert image_bytes(picture, parse_window("auto"), False) == 100 + 4 * 1000
    assert image_bytes(volume, parse_window("auto"), False) == 100 + 5 * 64_000 + 2 * 32_000
    assert image_bytes(volume, parse_window("ct-lung"), False) == 100 + 2 * 64_000 + 2 * 32_000
    assert image_bytes(volume, parse_window("ct-lung"), True) == 100 + 3 * 64_000 + 2 * 32_000


def test_what_people_and_programs_read(make_table: MakeTable, tiny: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "embedcache_cli.main", "plan", "--dataset", "table", "--root", str(make_table()), "--backbone",
        str(tiny), "--cache", str(tmp_path / "cache"), "--device", "cpu", "--size", "28", "--no-calibrate", "--id-column", "case",
    ]  # fmt: skip
    code = "import sys; from embedcache_cli.main import main; sys.argv = ['embedcache', *sys.argv[1:]]; main()"
    command[1:3] = ["-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "400"})
    assert "of main memory at the peak, activations not counted; " in said.stdout
    document = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    parts = ("libraries", "tables", "weights", "inputs", "shards", "slots", "images")
    assert document["memory"]["total"] == sum(document["memory"][part] for part in parts)
    assert document["memory"]["fits"] is True

"""The command line called in this process, and one finished cache that all tests of it read."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedcache_cli.main import main

import embedcache
from embedcache import DatasetOptions, ExtractConfig
from embedcache.testing.files import write_dicom, write_png
from embedcache.testing.homes import make_home


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Under --json: the one document on stdout, which holds nothing else."""
        (line,) = self.out.splitlines()
        return json.loads(line)


Cli = Callable[..., Done]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run `embedcache …` as the console script does, in this process: a process of its own takes a second."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["embedcache", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, captured.out, captured.err)

    return run


PATIENTS = 20
SECRETS = ("SECRET", "case0", "img0")


def write_table(folder: Path) -> Path:
    """40 small radiographs of 20 patients, the last six of them for testing, with labels that the pixels show."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["path,case,patient,split,bright,finding,age"]
    for i in range(2 * PATIENTS):
        p = i // 2
        bright, nodule = p % 2, p % 3 == 0
        image = rng.integers(0, 90, (24, 20)) + 90 * bright
        image[:12] += 60 * nodule
        write_png(folder / f"img0{i:02}.png", image.astype(np.uint8))
        finding = "|".join(name for name, there in (("Mass", bright), ("Nodule", nodule)) if there) or "No Finding"
        part = "train" if p < PATIENTS - 6 else "test"
        lines.append(f"img0{i:02}.png,case0{i:02},SECRET{p:02},{part},{bright},{finding},{40 + p}")
    table = folder / "cases.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


@dataclass(frozen=True)
class World:
    """A table of images, its finished cache, and the private home where its key lies."""

    table: Path
    cache: Path
    home: Path
    tiny: Path

    @property
    def store(self) -> Path:
        """The one store."""
        (found,) = self.cache.glob("*/*/*.zarr")
        return found

    def extract(self, cache: Path | None = None, *more: object) -> tuple[object, ...]:
        """The arguments of `extract` and `plan` that made it."""
        return (
            "--dataset", "table", "--root", self.table, "--backbone", self.tiny, "--cache", cache or self.cache,
            "--size", 28, "--batch-size", 4, "--threads", 1, "--workers", 1, "--rows-per-shard", 8, "--device", "cpu",
            *self.reading, *more,
        )  # fmt: skip

    @property
    def reading(self) -> tuple[object, ...]:
        """The switches that say how the table is read."""
        return ("--id-column", "case", "--task", "bright=binary", "--task", "finding=multilabel", "--sep", "|")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> World:
    """The cache, made once; nothing may change it."""
    folder = tmp_path_factory.mktemp("world")
    world = World(write_table(folder / "images"), folder / "cache", make_home(folder / "home", "world"), tiny)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDCACHE_HOME", str(world.home))
        embedcache.extract(
            ExtractConfig(
                dataset="table",
                root=str(world.table),
                backbones=(str(tiny),),
                cache=str(world.cache),
                size=28,
                batch_size=4,
                threads=1,
                workers=1,
                rows_per_shard=8,
                device="cpu",
                options=DatasetOptions(id_column="case", tasks=("bright=binary", "finding=multilabel"), sep="|"),
            )
        )
    return world


@pytest.fixture
def world(made: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The finished cache on the machine that made it: its key is here. Read only; results go to its own folder."""
    monkeypatch.setenv("EMBEDCACHE_HOME", str(made.home))
    return made


@pytest.fixture
def copied(made: World, tmp_path: Path, empty_home: Path) -> World:
    """A copy of the cache that a test may change, on a machine without its key, index and images."""
    cache = tmp_path / "copied"
    shutil.copytree(made.cache, cache, ignore=shutil.ignore_patterns("results"))
    return World(tmp_path / "no-images" / "cases.csv", cache, empty_home, made.tiny)


@pytest.fixture(scope="session")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of things that are not what they should be, and the images that good tables name."""
    folder = tmp_path_factory.mktemp("bad")
    rng = np.random.default_rng(0)
    for i in range(6):
        write_png(folder / f"img0{i}.png", rng.integers(0, 255, (24, 20)).astype(np.uint8))
    whole = write_dicom(folder / "img06.dcm", rng.integers(0, 4000, (24, 20)).astype(np.uint16)).read_bytes()
    (folder / "img07.dcm").write_bytes(whole[: len(whole) // 2])
    (folder / "img08.png").write_text("this is a text file")

    def table(name: str, text: str) -> None:
        (folder / name).write_text(text)

    images = ["img00.png", "img01.png", "img06.dcm", "img07.dcm", "img08.png", "img09.png"]
    table("some.csv", "path,label\n" + "".join(f"{name},{i % 2}\n" for i, name in enumerate(images)))
    table("good.csv", "path,label\n" + "".join(f"img0{i}.png,{i % 2}\n" for i in range(6)))
    table("nothing.csv", "")
    table("header.csv", "path,label\n")
    table("torn.csv", "path,patient,split,label\nimg00.png,SECRET1,train,0\nimg01.png,SECRET1,test,1\n")
    table("twice.csv", "path,id,label\nimg00.png,SECRET1,0\nimg01.png,SECRET1,1\n")
    table("pathless.csv", "name,label\nimg00.png,0\n")
    table("a-file", "text\n")
    (folder / "empty").mkdir()
    (folder / "foreign.zarr").mkdir()
    table("foreign.zarr/zarr.json", '{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    return folder

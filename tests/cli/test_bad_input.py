"""Whatever is wrong, the user gets one clear line and an exit code: never a traceback, never a path of an image."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from embedcache_cli import output

import embedcache

from .conftest import SECRETS, Cli, Done, World

EXTRACT = "extract --dataset table --backbone {tiny} --cache {new} --size 28 --device cpu"
REFUSED = {
    # a table that is not there, or can not be read as one
    "missing table": (EXTRACT + " --root {bad}/gone.csv", r"there is no table gone\.csv"),
    "a folder as table": (EXTRACT + " --root {bad}", r"is a folder, and a table is a CSV or Parquet file"),
    "empty table": (EXTRACT + " --root {bad}/nothing.csv", r"nothing\.csv is empty: it has no header"),
    "table without rows": (EXTRACT + " --root {bad}/header.csv", r"header\.csv is empty: it has no row"),
    "no column of paths": (EXTRACT + " --root {bad}/pathless.csv", r"no column of paths.*--path-column.*name, label"),
    "patient in two splits": (
        EXTRACT + " --root {bad}/torn.csv",
        r"one patient is in two splits: row 1 .* row 2 of torn",
    ),
    "two samples, one id": (
        EXTRACT + " --root {bad}/twice.csv",
        r"row 1 of .* and row 2 of twice\.csv have the same id",
    ),
    "label column not there": (EXTRACT + " --root {bad}/good.csv --task x=binary:nope", r"'nope'.*label, path"),
    "kind of task": (EXTRACT + " --root {bad}/good.csv --task x=binry:label", r"'binry'; did you mean 'binary'"),
    "missing root of a dataset": ("extract --dataset nih-cxr14 --root {bad}/gone --backbone {tiny}", r"no folder gone"),
    "unknown dataset": ("extract --dataset tabel --root {bad} --backbone {tiny}", r"did you mean 'table'"),
    # words and numbers
    "layers": (EXTRACT + " --root {bad}/good.csv --layers 99", r"has layers 1 to 2 .*Got 99"),
    "size": (EXTRACT + " --root {bad}/good.csv --size 30", r"30x30 is no multiple of .*patch size 14; use 28"),
    "size below one": (EXTRACT + " --root {bad}/good.csv --size -14", r"size must be at least 1 pixel. Got -14"),
    "tokens": (EXTRACT + " --root {bad}/good.csv --tokens foo", r"token kind 'foo'.*cls, mean, patch"),
    "window": (EXTRACT + " --root {bad}/good.csv --window ct-lunge", r"'ct-lunge'; did you mean 'ct-lung'"),
    "dtype": (
        EXTRACT + " --root {bad}/good.csv --dtype float64",
        r"dtype must be 'float16', 'float32' or 'int8'",
    ),
    "fit": (EXTRACT + " --root {bad}/good.csv --fit sqash", r"'sqash'; did you mean 'squash'"),
    "ids": (EXTRACT + " --root {bad}/good.csv --ids kept", r"'kept'; did you mean 'keep'"),
    "where that is code": (
        EXTRACT + " --root {bad}/good.csv --where 'import os'",
        r"--where 'import os' is no expression",
    ),
    "where of no column": (EXTRACT + " --root {bad}/good.csv --where 'foo > 3'", r"unknown column 'foo'"),
    "device": (EXTRACT + " --root {bad}/good.csv --device gpu", r"device must be auto, cpu, cuda or cuda:N. Got 'gpu'"),
    "no number": (EXTRACT + " --root {bad}/good.csv --limit many", r"--limit.*integer"),
    "limit": (EXTRACT + " --root {bad}/good.csv --limit 0", r"limit must be at least 1"),
    "timeout": (EXTRACT + " --root {bad}/good.csv --decode-timeout 0", r"decode_timeout must be above 0"),
    "shard length": (EXTRACT + " --root {bad}/good.csv --rows-per-shard 3", r"must be a power of two. Got 3"),
    # backbones
    "missing backbone": (EXTRACT + " --root {bad}/good.csv --backbone gone/away", r"'gone/away' is no folder here"),
    "folder that is no backbone": (EXTRACT + " --root {bad}/good.csv --backbone {bad}", r"holds no config\.json"),
    "backbone twice": (EXTRACT + " --root {bad}/good.csv --backbone {tiny}", r"named twice"),
    # places
    "cache is a file": (
        "extract --dataset table --root {bad}/good.csv --backbone {tiny} --cache {bad}/a-file",
        r"is a file",
    ),
    "cache below a file": (
        "extract --dataset table --root {bad}/good.csv --backbone {tiny} --cache {bad}/a-file/c",
        r"is a file",
    ),
    "ls of nothing": ("ls {bad}/gone", r"there is no folder"),
    "verify of nothing": ("verify {bad}/gone", r"there is no folder"),
    "verify of an empty folder": ("verify {bad}/empty", r"no store at or below"),
    "verify of a foreign group": ("verify {bad}/foreign.zarr", r"foreign\.zarr is no store"),
    "show of nothing": ("show {bad}/gone", r"there is no store at"),
    "show of a folder": ("show {bad}", r"is no store: it has no zarr\.json"),
    "show of a foreign group": ("show {bad}/foreign.zarr", r"foreign\.zarr is no embedcache store"),
    "rm of a folder": ("rm --yes {bad}", r"is no store of embedcache"),
    "rm of a foreign group": ("rm --yes {bad}/foreign.zarr", r"is no store of embedcache"),
    "rm unasked": ("rm {store}", r"give --yes"),
    # probes
    "probe of nothing": ("probe knn {bad}/gone", r"there is no store at"),
    "probe of a foreign group": ("probe knn {bad}/foreign.zarr", r"is no embedcache store"),
    "probe without a task": ("probe knn {store}", r"2 tasks: bright, finding; choose one with --task"),
    "probe of a task not there": (
        "probe knn {store} --task brigt",
        r"'brigt'; did you mean 'bright'.*`embedcache labels show TABLE`",
    ),
    "few-shot of a task not there": ("few-shot {store} --task brigt", r"'brigt'.*`embedcache labels show TABLE`"),
    "a grid of a task not there": ("probe all {store} --tasks brigt", r"'brigt'.*`embedcache labels show TABLE`"),
    "probe of a layer not there": ("probe knn {store} --task bright --layers 99", r"holds layers \[2\], not 99"),
    "probe with text for layers": (
        "probe knn {store} --task bright --layers top",
        r"--layers takes whole numbers.*'top'",
    ),
    "probe of features not there": ("probe knn {store} --task bright --features all", r"'all'.*cls, cls\+mean"),
    "probe with another pooling": ("probe knn {store} --task bright --pool men", r"'men'; did you mean 'mean'.*, none"),
    "probe of a split not there": ("probe knn {store} --task bright --split gone", r"no split file gone"),
    "probe of labels not there": ("probe knn {store} --task bright --labels {bad}/gone.csv", r"no table gone\.csv"),
    "probe of foreign labels": (
        "probe knn {store} --task label --labels {bad}/good.csv",
        r"no row of good\.csv matches.*pseudonyms",
    ),
    "probe, join without table": ("probe knn {store} --task bright --join-on case", r"give that with --labels"),
    "probe grid": ("probe knn {store} --task bright --k 0", r"k must be one or several positive numbers"),
    "probe grid of no number": (
        "probe logistic {store} --task bright --C nan",
        r"C must be one or several numbers or None. Got \(nan,\)",
    ),
    "probe device": ("probe knn {store} --task bright --device gpu", r"device cpu, cuda or cuda:N\. Got 'gpu'"),
    "probe device not there": (
        "probe knn {store} --task bright --device cuda:99",
        r"can not search on device=cuda:99: torch .* Install torch .*, or faiss-gpu in place of faiss-cpu",
    ),
    "probe logistic, device not there": (
        "probe logistic {store} --task bright --device cuda:99",
        r"device 'cuda:99': .*; take cpu, or what torch has",
    ),
    "probe share": ("probe knn {store} --task bright --validation 2", r"between 0 and 1. Got 2"),
    "probe seed": ("probe knn {store} --task bright --seed -1", r"seed must be 0 or more"),
    "probe resamples": ("probe knn {store} --task bright --resamples 0", r"resamples must be at least 20"),
    "probe results in a file": (
        "probe knn {store} --task bright --results {bad}/a-file",
        r"a-file is a file; name another folder with --results",
    ),
    # splits, labels, keys
    "split import of nothing": ("splits import {bad}/gone.csv {store} --name x", r"no split file"),
    "split import of a table": ("splits import {bad}/good.csv {store} --name x", r"no column 'sample'"),
    "split of a table": ("splits show {bad}/good.csv", r"good.csv has no column 'sample'"),
    "split show of no store": ("splits show {bad}/good.csv {bad}", r"is no store: it has no zarr\.json"),
    "split name": ("splits import {bad}/good.csv {store} --name a/b", r"a split's name is letters"),
    "split into a folder": ("splits make {store} --out {bad}/empty", r"that is a folder; name a file"),
    "labels of nothing": ("labels show {bad}/gone.csv", r"there is no table gone\.csv"),
    "labels of a column not there": ("labels show {bad}/good.csv --task x=binary:nope", r"'nope'.*label, path"),
    "sync without a store": ("labels sync --dataset table --root {bad}/good.csv --cache {new}", r"has no store in"),
    "key over a file": ("ids key export {bad}/a-file", r"a-file exists"),
    "key of nothing": ("ids key import {bad}/gone", r"no key file gone"),
    "key that is none": ("ids key import {bad}/a-file", r"a-file is no key"),
    "pseudonym not known": ("ids show {bad}/empty 0123", r"does not know 0123"),
    # the command line itself
    "command": ("extrct", r"unknown command 'extrct'; did you mean 'extract'.*probe"),
    "command of a group": ("probe logistics", r"unknown command 'logistics'; did you mean 'logistic'"),
    "switch": ("ls --jsn", r"--jsn"),
    "missing switch": ("extract --dataset table", r"Missing option '--root'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_start_is_one_line_and_exit_code_2(
    name: str, cli: Cli, world: World, bad: Path, tmp_path: Path
) -> None:
    command, expected = REFUSED[name]
    places = {"tiny": world.tiny, "new": tmp_path / "new", "bad": bad, "store": world.store}
    words = [(a or b).format(**places) for a, b in re.findall(r"'([^']*)'|(\S+)", command)]
    said = one_line(cli(*words))
    assert said.startswith("error: ")
    assert re.search(expected, said), said
    assert not (tmp_path / "new").exists(), "nothing could start, so nothing may be written"

    document = json.loads(one_line(cli(*words, "--json")))
    assert document["error"] == said.removeprefix("error: ") or name == "rm unasked"
    assert document["exit_code"] == 2
    assert document["type"]


def one_line(done: Done) -> str:
    """What was said of a failure; no more than that, and of no image and no patient."""
    assert done.code == 2, done
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert not [s for s in (*SECRETS, "Traceback") if s in line]
    return line


def test_bad_samples_are_set_aside_and_the_good_ones_stored(cli: Cli, bad: Path, tiny: Path, tmp_path: Path) -> None:
    words = EXTRACT.format(tiny=tiny, new=tmp_path / "new").split()
    done = cli(*words, "--root", bad / "some.csv", "--workers", 1)
    assert done.code == 1
    assert "3 slices; 6 samples asked for" in done.out
    for reason in ("cut short", "first bytes are text", "there is no such file"):
        assert re.search(f"set aside: 1 slice .*{reason}", done.err), reason
    assert "Traceback" not in done.err
    assert "img0" not in done.out + done.err

    again = cli(*words, "--root", bad / "some.csv", "--json")
    assert again.code == again.document["exit_code"] == 1
    assert again.err == ""
    assert sum(again.document["quarantined"].values()) == 3
    assert again.document["decoded"] == 0

    (store,) = (tmp_path / "new").glob("*/*/*.zarr")
    assert len(embedcache.FeatureCache.open(store).features("cls")) == 3
    listed = cli("show", store, "--quarantine")
    assert listed.out.count("open") == 3
    assert "3 slices set aside" in listed.out
    hint = f"`embedcache ids show {store.parent.parent} ID` says, on the machine that extracted, which file an id stands for"
    assert hint in listed.err
    assert hint in done.err
    pseudonym = cli("show", store, "--json").document["quarantine"][0]["sample"]
    assert "img0" in cli("ids", "show", store.parent.parent, pseudonym).out
    assert "img0" not in listed.out


def test_a_device_that_is_not_there_leaves_nothing_behind(cli: Cli, bad: Path, tiny: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    words = EXTRACT.format(tiny=tiny, new=tmp_path / "new").split()
    said = one_line(cli(*words, "--root", bad / "good.csv", "--device", "cuda"))
    assert "no CUDA device is visible" in said
    assert not (tmp_path / "new").exists(), "a pass that was begun for a GPU would refuse the CPU"


def test_a_file_in_the_way_inside_the_cache(cli: Cli, bad: Path, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "good").write_text("a file where the dataset's folder goes")
    words = EXTRACT.format(tiny=tiny, new=tmp_path / "new").split()
    done = cli(*words, "--root", bad / "good.csv")
    assert done.code == 2
    assert "a file stands where a folder is needed" in done.err.splitlines()[-1]


def test_a_cache_that_may_not_be_written(cli: Cli, bad: Path, tiny: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "new").mkdir(mode=0o500)
    words = EXTRACT.format(tiny=tiny, new=tmp_path / "new").split()
    done = cli(*words, "--root", bad / "good.csv")
    assert done.code == 2
    assert "may not be read or written" in done.err.splitlines()[-1]


def test_a_full_disk_is_one_line_and_the_same_command_resumes(
    cli: Cli, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk can not be mounted here")
    try:
        refused = cli("extract", *world.extract(disk))
        assert refused.code == 2
        assert re.search(r"needs .* KiB and .* KiB is free", refused.err.splitlines()[-1])
        assert list(disk.iterdir()) == []
        with monkeypatch.context() as patch:  # another process fills it meanwhile
            patch.setattr("embedcache.extraction.job.check_room", lambda *_: None)
            full = cli("extract", *world.extract(disk))
        assert full.code == 2
        assert "no space is left" in full.err.splitlines()[-1]
        assert "Traceback" not in full.err
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        assert cli("extract", *world.extract(disk)).code == 0
        (store,) = disk.glob("*/*/*.zarr")
        assert cli("verify", store).code == 0
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_bug_is_one_line_too_and_its_traceback_is_for_those_who_ask(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("/home/someone/img0.png")

    monkeypatch.setattr(embedcache, "list_stores", broken, raising=False)
    done = cli("ls")
    assert done.code == 70
    assert done.err.splitlines() == [
        "error: unexpected RuntimeError: a bug of embedcache; EMBEDCACHE_DEBUG=1 shows the traceback to report"
    ]
    monkeypatch.setenv("EMBEDCACHE_DEBUG", "1")
    with pytest.raises(RuntimeError):
        output.fail_unexpectedly(RuntimeError(), as_json=False)


def test_a_bare_group_prints_its_help(cli: Cli) -> None:
    for words in ((), ("labels",), ("ids", "key")):
        done = cli(*words)
        assert done.code == 2
        assert "Usage" in done.out
        assert done.err == ""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from embedcache.backbones.digest import NOTE, weights_digest

FILES = ("model-1.safetensors", "model-2.safetensors")
_opened: list[str] | None = None


def _note_open(event: str, args: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open":
        _opened.append(os.path.basename(str(args[0])))


sys.addaudithook(_note_open)  # an audit hook stays for the process, so it is switched by `opened_files`


@contextmanager
def opened_files() -> Iterator[list[str]]:
    global _opened
    _opened = names = []
    try:
        yield names
    finally:
        _opened = None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    folder = tmp_path / "model"
    folder.mkdir()
    for i, name in enumerate((*FILES, "config.json")):
        (folder / name).write_bytes(bytes([i]) * 1000)
    return folder


def digest(folder: Path) -> str:
    return weights_digest(folder, FILES, "config.json")


def test_it_is_the_hash_of_names_and_of_the_files_hashes(folder: Path) -> None:
    names = ["config.json", *FILES]
    lines = b"".join(f"{n}\0{hashlib.sha256((folder / n).read_bytes()).hexdigest()}\n".encode() for n in names)
    assert digest(folder) == hashlib.sha256(lines).hexdigest()


def test_it_does_not_depend_on_the_path_or_on_the_order(folder: Path, tmp_path: Path) -> None:
    first = digest(folder)
    shutil.copytree(folder, tmp_path / "elsewhere", ignore=shutil.ignore_patterns(NOTE))
    assert digest(tmp_path / "elsewhere") == first
    assert weights_digest(folder, FILES[::-1], "config.json") == first


@pytest.mark.parametrize("name", [*FILES, "config.json"])
def test_one_changed_byte_changes_it(folder: Path, name: str) -> None:
    before = digest(folder)
    data = bytearray((folder / name).read_bytes())
    data[500] ^= 1
    (folder / name).write_bytes(data)
    os.utime(folder / name, ns=(10**18, 10**18))  # an edit within one tick of the clock would look unchanged
    assert digest(folder) != before


def test_swapping_two_files_changes_it(folder: Path) -> None:
    before = digest(folder)
    a, b = (folder / name for name in FILES)
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    for file in (a, b):
        os.utime(file, ns=(10**18, 10**18))
    assert digest(folder) != before


def test_unchanged_files_are_not_opened_again(folder: Path) -> None:
    with opened_files() as first:
        before = digest(folder)
    with opened_files() as second:
        assert digest(folder) == before
    assert set(FILES) <= set(first)
    assert not {*FILES, "config.json"} & set(second)


def test_a_new_date_is_read_again_and_gives_the_same(folder: Path) -> None:
    before = digest(folder)
    os.utime(folder / FILES[0], ns=(10**18, 10**18))
    with opened_files() as names:
        assert digest(folder) == before
    assert FILES[0] in names
    assert FILES[1] not in names


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"model-1.safetensors": 3}', b"\xff\xfe"])
def test_a_damaged_note_is_no_more_than_forgotten(folder: Path, damage: bytes) -> None:
    before = digest(folder)
    (folder / NOTE).write_bytes(damage)
    assert digest(folder) == before


def test_a_folder_that_takes_no_note_is_noted_in_the_users_cache(folder: Path, tmp_path: Path) -> None:
    (folder / NOTE).mkdir()  # for any user, root too, the note can not be written here
    before = digest(folder)
    with opened_files() as names:
        assert digest(folder) == before
    assert not set(FILES) & set(names)
    assert len(list((tmp_path / "user-cache").rglob("weights/*.json"))) == 1
    assert sorted(p.name for p in folder.iterdir()) == sorted([NOTE, *FILES, "config.json"]), "no partial file stays"

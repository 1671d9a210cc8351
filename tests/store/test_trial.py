"""The file system's trial passes on a file system that is sound, and each part of it can fail."""

import os
import shutil
from pathlib import Path

import pytest

from embedcache.errors import InputError
from embedcache.store import trial
from embedcache.store.objects import Objects
from embedcache.store.trial import Trial, try_file_system

NAMES = [name for name, *_ in trial.TRIALS]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rounds: what is broken here fails in the first."""
    monkeypatch.setattr(trial, "RACERS", 3)
    monkeypatch.setattr(trial, "ROUNDS", 5)


def broken(found: tuple[Trial, ...]) -> list[str]:
    return [t.name for t in found if not t.ok]


def in_children(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let every child process begin with `code`: the file system of this process stays sound, theirs does not."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_a_sound_file_system(tmp_path: Path) -> None:
    found, free = try_file_system(tmp_path)
    assert [t.name for t in found] == NAMES
    assert broken(found) == []
    assert all(t.meaning and not t.seen for t in found)
    assert 0 < free <= shutil.disk_usage(tmp_path).total
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_absent_or_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        try_file_system(tmp_path / "absent")

    def refuse(**_: object) -> str:  # a superuser may write anywhere, so that a mode would prove nothing
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(trial.tempfile, "mkdtemp", refuse)
    with pytest.raises(InputError, match=r"nothing can be written into .*Permission denied"):
        try_file_system(tmp_path)


def test_a_replacement_that_is_not_atomic_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_place(self: Objects, name: str, data: bytes) -> None:
        self.root.mkdir(exist_ok=True)
        (self.root / name).write_bytes(data[: len(data) // 2])
        with open(self.root / name, "ab") as file:
            os.fsync(file.fileno())
            file.write(data[len(data) // 2 :])

    monkeypatch.setattr(Objects, "put", in_place)
    assert trial.rename_replaces(tmp_path) == "a reader saw half a file"


def test_a_file_system_without_sync_or_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(trial.os, "fsync", unsupported)
    (found,) = [t for t in try_file_system(tmp_path)[0] if t.name == "sync"]
    assert not found.ok
    assert found.seen == "Operation not supported"
    monkeypatch.undo()
    monkeypatch.setattr(os, "link", unsupported)
    assert "exclusive create" in broken(try_file_system(tmp_path)[0])


def test_a_link_over_a_taken_name_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", shutil.copyfile)
    assert trial.link_is_exclusive(tmp_path) == "a taken name was given again"


def test_two_winners_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_children(tmp_path / "site", monkeypatch, "import os, shutil\nos.link = shutil.copyfile\n")
    (tmp_path / "race").mkdir()
    assert trial.one_racer_wins(tmp_path / "race") == "in round 1 of 5, 3 of 3 processes got the name"


def test_a_process_that_dies_is_a_failure_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_children(tmp_path / "site", monkeypatch, "raise SystemExit(1)\n")
    found, _ = try_file_system(tmp_path)
    assert set(broken(found)) == {"replace by rename", f"{trial.TRIALS[3][0]}", "listing", "lock"}
    assert {t.seen for t in found if not t.ok} == {"a process of the trial failed or gave no answer"}


def test_a_stale_listing_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from pathlib import Path\nPath.write_bytes = lambda self, data: 0\n"
    in_children(tmp_path / "site", monkeypatch, code)
    (tmp_path / "list").mkdir()
    assert trial.listing_is_current(tmp_path / "list") == "a file of another process was not listed at once"


def test_a_lock_that_is_not_shared_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_children(tmp_path / "site", monkeypatch, "import fcntl\nfcntl.flock = lambda *_: None\n")
    (tmp_path / "locks").mkdir()
    assert trial.lock_is_shared(tmp_path / "locks") == "two processes hold one lock"

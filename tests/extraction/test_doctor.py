"""`doctor --cache`: a cache's file system among the things that are looked at."""

from pathlib import Path

import pytest

from embedcache.errors import InputError
from embedcache.extraction import doctor
from embedcache.store.trial import Trial


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether torch imports is tried elsewhere, and takes seconds."""
    monkeypatch.setattr(doctor, "installed", lambda name: "absent")


def test_without_a_cache_no_file_system_is_tried() -> None:
    report = doctor.doctor()
    assert report.file_system == ()
    assert report.free is None


def test_a_sound_cache(tmp_path: Path) -> None:
    report = doctor.doctor(tmp_path)
    assert len(report.file_system) == 6
    assert all(t.ok for t in report.file_system)
    assert report.free is not None
    assert report.problems == doctor.doctor().problems


def test_a_failure_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Trial("lock", False, "run one command at a time", "two processes hold one lock")
    monkeypatch.setattr(doctor, "try_file_system", lambda folder: ((failed,), 10))
    report = doctor.doctor(tmp_path)
    assert not report.healthy
    assert report.problems[-1] == "lock, at the cache: run one command at a time (two processes hold one lock)"


def test_an_absent_cache(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        doctor.doctor(tmp_path / "absent")

"""Sources that were moved are found again, and what is not there stays as it was."""

import shutil
from pathlib import Path

import pytest

import embedcache
from embedcache.datasets.index import IndexRow, PrivateIndex
from embedcache.errors import InputError


@pytest.fixture
def known(tmp_path: Path) -> tuple[Path, Path]:
    """A dataset folder whose private index knows three files, and where they lie."""
    sources = tmp_path / "old" / "deep"
    sources.mkdir(parents=True)
    folder = tmp_path / "cache" / "cases"
    folder.mkdir(parents=True)
    index = PrivateIndex.open(folder)
    for name in ("a", "b", "c"):
        (sources / name).write_bytes(name.encode() * 5)
        state = (sources / name).stat()
        index.put([IndexRow(name, str(sources / name), state.st_size, state.st_mtime_ns, "d" * 64, 1)])
    index.put([IndexRow("other", str(tmp_path / "older" / "x"), 1, 1, "", 1)])
    index.save()
    return folder, tmp_path


def test_moved_sources(known: tuple[Path, Path]) -> None:
    folder, top = known
    shutil.move(top / "old", top / "new")
    report = embedcache.relocate(folder, top / "old", top / "new")
    assert (report.moved, report.missing, report.different, report.exit_code) == (3, (), (), 0)
    assert embedcache.reveal(folder, ["b", "other"]) == {
        "b": str(top / "new" / "deep" / "b"),
        "other": str(top / "older" / "x"),
    }


def test_what_is_missing_or_different_stays(known: tuple[Path, Path]) -> None:
    folder, top = known
    shutil.copytree(top / "old", top / "new")
    (top / "new" / "deep" / "a").unlink()
    (top / "new" / "deep" / "b").write_bytes(b"longer than before")
    report = embedcache.relocate(folder, top / "old", top / "new")
    assert (report.moved, report.missing, report.different, report.exit_code) == (1, ("a",), ("b",), 1)
    assert embedcache.reveal(folder, ["a"])["a"] == str(top / "old" / "deep" / "a")


def test_wrong_places(known: tuple[Path, Path]) -> None:
    folder, top = known
    with pytest.raises(InputError, match="there is no folder"):
        embedcache.relocate(folder, top / "old", top / "nowhere")
    with pytest.raises(InputError, match="knows no source below"):
        embedcache.relocate(folder, top / "ol", top / "old")

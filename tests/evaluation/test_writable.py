"""What can be written where is asked before the work."""

import errno
from pathlib import Path
from typing import Any

import pytest

from embedcache.errors import InputError
from embedcache.evaluation import writable
from embedcache.evaluation.figure_files import check_figure
from embedcache.evaluation.writable import check_file, check_folder


def test_a_folder_that_can_be_made_passes_and_is_not_made(tmp_path: Path) -> None:
    check_folder(tmp_path / "not" / "yet")
    check_file(tmp_path / "a.csv", "the table")
    assert check_figure(str(tmp_path / "a.PNG")) == tmp_path / "a.PNG"
    assert list(tmp_path.iterdir()) == []


def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file is a file; name another folder with --results"):
        check_folder(tmp_path / "file" / "results")
    with pytest.raises(InputError, match=r"the table can not be written as .*x\.csv: .*file is a file"):
        check_file(tmp_path / "file" / "x.csv", "the table")
    with pytest.raises(InputError, match="that is a folder"):
        check_file(tmp_path, "the table")
    with pytest.raises(InputError, match="make it first"):
        check_file(tmp_path / "none" / "x.csv", "the table")
    with pytest.raises(InputError, match=r"\.xyz; use \.png"):
        check_figure(tmp_path / "x.xyz")
    (tmp_path / "x.png").mkdir()
    with pytest.raises(InputError, match="that is a folder"):
        check_figure(tmp_path / "x.png")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_folder_that_takes_no_files_says_why(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> Any:
        raise OSError(number, {errno.EACCES: "Permission denied"}.get(number, "No room"))

    monkeypatch.setattr(writable.tempfile, "TemporaryFile", refuse)
    with pytest.raises(InputError, match=r"takes no files \((permission denied|no room)\)"):
        check_folder(tmp_path)

"""`embedcache few-shot` as a user types it."""

from pathlib import Path

import pytest

from embedcache.testing.labelled_stores import LabelledStore, make_labelled_store
from embedcache.types import Task
from tests.cli.conftest import Cli

QUICK = ("--shots", "1,2", "--seeds", "3")


@pytest.fixture
def made(tmp_path: Path) -> LabelledStore:
    return make_labelled_store(tmp_path / "cache", n=200)


def test_a_curve_is_printed_drawn_and_found_again(cli: Cli, made: LabelledStore, tmp_path: Path) -> None:
    done = cli("few-shot", made.store, *QUICK, "--figure", tmp_path / "curve.png")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].startswith("few-shot curve of made-up on task findings: cls of layer 2, C fixed at 1")
    assert "drawn from" in lines[1]
    assert [line.split()[0] for line in lines[3:6]] == ["1", "2", "all"]
    assert "3 seeds are fewer than the 20" in done.err
    path = Path(lines[-1])
    assert path.exists()
    assert path.with_suffix(".csv").exists()
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    written = path.stat().st_mtime_ns
    again = cli("few-shot", made.store, *QUICK)
    assert again.out == done.out
    assert path.stat().st_mtime_ns == written
    assert len(list(path.parent.glob("*.json"))) == 1
    assert cli("few-shot", made.store, *QUICK, "--force").out != done.out
    assert len(list(path.parent.glob("*.json"))) == 2


def test_several_stores_are_one_document_and_one_picture(cli: Cli, made: LabelledStore, tmp_path: Path) -> None:
    other = make_labelled_store(tmp_path / "other", n=200, signal=0.5, seed=3)
    done = cli("few-shot", made.store, other.store, *QUICK, "--json", "--figure", tmp_path / "both.png")
    assert done.code == 0
    first, second = done.document["curves"]
    assert first["setting"] == second["setting"] == "few-shot"
    assert [point["shots"] for point in first["points"]] == [1, 2, None]
    assert first["points"][1]["figures"][0]["value"] > second["points"][1]["figures"][0]["value"]
    assert (tmp_path / "both.png").exists()
    alone = cli("few-shot", made.store, *QUICK, "--json").document
    assert alone == {"curves": [first]}


def test_choosing_on_validation_is_labelled_wherever_it_is_shown(cli: Cli, made: LabelledStore, tmp_path: Path) -> None:
    done = cli("few-shot", made.store, *QUICK, "--select", "validation", "--figure", tmp_path / "curve.svg")
    assert done.out.startswith("not few-shot: C was chosen on the whole validation part curve")
    assert "not few-shot" in done.err
    assert "not few-shot" in (tmp_path / "curve.svg").read_text()


def test_the_studys_draw_and_C_by_leaving_out(cli: Cli, made: LabelledStore) -> None:
    paper = cli("few-shot", made.store, "--shots", "1,4", "--preset", "paper", "--no-all")
    assert "the first patients by sorted id" in paper.out
    assert "preset paper" in paper.err
    assert [line.split()[0] for line in paper.out.splitlines()[3:5]] == ["1", "4"]
    assert paper.out.splitlines()[3].split()[-2] == "-"
    chosen = cli("few-shot", made.store, *QUICK, "--select", "leave-patient-out", "--C", "0.01,1,30")
    assert chosen.code == 0
    assert "nobody can be left out" in chosen.err


def test_who_is_left_out_is_printed(cli: Cli, tmp_path: Path) -> None:
    made = make_labelled_store(tmp_path / "cache", n=200, slices=2, quarantined=(0, 2, 3))
    done = cli("few-shot", made.store, *QUICK)
    assert "  left out    1 sample: quarantined\n" in done.out
    assert "note: 1 sample was pooled without the slices that were set aside." in done.err


def test_what_is_wrong_is_one_line(cli: Cli, made: LabelledStore, tmp_path: Path) -> None:
    for arguments, said in (
        ((made.store, "--shots", "two"), "--shots takes whole numbers"),
        ((made.store, "--C", "1,2"), "--select leave-patient-out"),
        ((made.store, "--task", "findngs"), "findings"),
        ((made.store, "--layers", "auto"), "--layers takes whole numbers"),
        ((made.store, "--preset", "paper", "--seeds", "7"), "leave --seeds or --preset out"),
        ((made.store, "--C", ""), "--C takes numbers"),
        ((made.store, tmp_path / "none.zarr"), "there is no store at"),
        ((made.store, made.store), "is given twice"),
        ((made.store, "--figure", tmp_path / "none" / "x.png"), "make it first"),
        ((made.store, "--figure", ""), "use .png, .svg or .pdf"),
    ):
        done = cli("few-shot", *arguments)
        assert done.code == 2
        assert said in done.err
        assert len(done.err.splitlines()) == 1
        assert done.out == ""
    numeric = make_labelled_store(tmp_path / "numeric", Task("age", "numeric", ()))
    done = cli("few-shot", numeric.store, *QUICK)
    assert done.code == 2
    assert "task 'age' is a numeric task, and a few-shot curve draws patients of each class" in done.err
    assert "`embedcache probe ridge` answers it" in done.err
    assert "logistic" not in done.err
    assert len(done.err.splitlines()) == 1

"""What a newcomer stumbled over: each is said now, and in time."""

from pathlib import Path
from typing import Any

import embedcache
from embedcache import ProbeConfig
from embedcache.testing.labelled_stores import make_labelled_store
from embedcache.types import Task

FINDINGS = Task("findings", "multilabel", ("a", "b"))


def test_the_version(cli: Any) -> None:
    done = cli("--version")
    assert (done.code, done.out.strip()) == (0, f"embedcache {embedcache.__version__}")


def test_no_positive_is_said_as_none(cli: Any, tmp_path: Path) -> None:
    made = make_labelled_store(tmp_path, FINDINGS, n=120, given=lambda p: ("train", "validation", "test")[p % 3])
    y = made.y.copy()
    tested = [i for i, part in enumerate(made.splits) if part == "test"]
    y[tested, 1] = 0
    made.relabel(y)
    shown = cli("probe", "prototypes", made.store)
    (row,) = [line for line in shown.out.splitlines() if line.startswith("b ")]
    assert row.split()[:4] == ["b", "0", "of", str(len(tested))]


def test_several_stores_for_one_probe_and_a_folder_of_stores(cli: Any, tmp_path: Path) -> None:
    made = make_labelled_store(tmp_path, n=80)
    done = cli("probe", "knn", made.store, made.store)
    assert done.code == 2
    assert "this command takes one store; `embedcache probe all` takes several" in done.err
    done = cli("probe", "knn", tmp_path)
    assert done.code == 2
    assert (
        "is no store: it has no zarr.json; name one of the 1 below it, such as made/made-up/0123456789ab.zarr"
        in done.err
    )


def test_results_of_several_tasks_are_compared_by_one(cli: Any, tmp_path: Path) -> None:
    made = make_labelled_store(tmp_path, FINDINGS, n=120)
    made.label(made.store.parents[1], Task("age", "numeric", ()), made.y[:, :1])
    paths = [
        embedcache.probe(ProbeConfig(name, made.store, "findings", resamples=20)).path for name in ("knn", "prototypes")
    ]
    paths.append(embedcache.probe(ProbeConfig("ridge", made.store, "age", resamples=20)).path)
    refused = cli("compare", *paths)
    assert refused.code == 2
    assert "choose one with --task NAME" in refused.err
    assert cli("compare", *paths, "--task", "findings", "--resamples", "99").code == 0
    assert "takes two results or more. Got 1 of task 'age'" in cli("compare", *paths, "--task", "age").err
    assert "did you mean 'age'" in cli("compare", *paths, "--task", "agee").err
    assert len(embedcache.list_results(str(Path(paths[0]).parent))) == 3


def test_a_figure_is_png_svg_or_pdf(cli: Any, tmp_path: Path) -> None:
    made = make_labelled_store(tmp_path, n=80)
    done = cli("probe", "knn", made.store, "--figure", tmp_path / "a.gif")
    assert done.code == 2
    assert "can not be written as .gif; use .png, .svg or .pdf" in done.err

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.errors import InputError
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.evaluation.repeat import config_of, repeat_probe
from embedcache.evaluation.results import list_results
from embedcache.evaluation.splits import read_split, write_split
from embedcache.types import Split, strings


def config(made: Any, **changes: Any) -> ProbeConfig:
    return ProbeConfig("logistic", made.store, C=(0.01, 1.0), resamples=50, **changes)


def test_the_same_asked_again_finds_the_same_and_writes_nothing(made: Any) -> None:
    first = run_probe(config(made, seed=3, validation=0.3))
    done = repeat_probe(first.path)
    assert (done.inputs, done.figures, done.software) == ((), (), ())
    assert done.largest_change == 0
    assert done.recorded == first
    assert len(list_results(Path(first.path).parent)) == 1
    written = repeat_probe(first.path, force=True)
    assert Path(written.now.path).stem == f"{Path(first.path).stem}-2"


def test_every_recorded_option_is_asked_again(made: Any) -> None:
    asked = config(
        made, features="cls", pool=None, standardize=False, classes=("Mass", "Nodule"), options={"tol": 1e-4}
    )
    first = run_probe(asked)
    again = run_probe(config_of(first))
    assert again == first  # its digest is over all that was asked


def test_a_store_and_labels_that_changed_are_said(made: Any) -> None:
    first = run_probe(config(made))
    y = made.y.copy()
    y[:40, 1] = 1 - y[:40, 1]
    made.relabel(y)
    done = repeat_probe(first.path)
    assert [d.name for d in done.inputs] == ["labels"]
    assert any(d.name == "auroc of Mass" for d in done.figures)
    assert done.now.path != first.path
    assert Path(done.now.path).exists()


def test_another_split_has_other_rows(made: Any, tmp_path: Path) -> None:
    first = run_probe(config(made))
    (kept,) = (Path(first.path).parent / "splits").iterdir()
    split = read_split(kept)
    swapped = {"test": "validation", "validation": "test", "train": "train"}
    other = Split(split.sample, split.patient, strings([swapped[p] for p in split.part.tolist()]))
    write_split(other, tmp_path / "other.csv")
    done = repeat_probe(first.path, split=tmp_path / "other.csv")
    assert "split" in [d.name for d in done.inputs]
    assert done.largest_change is None


def test_a_copied_cache_is_found_by_the_results_in_it(made: Any, tmp_path: Path) -> None:
    first = run_probe(config(made))
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("made", "results"):
        (made.store.parents[2] / name).rename(moved / name)
    done = repeat_probe(moved / "results" / Path(first.path).name)
    assert done.inputs == ()
    assert done.figures == ()


def test_what_can_not_be_repeated_says_what_is_missing(made: Any, tmp_path: Path) -> None:
    first = run_probe(config(made))
    elsewhere = tmp_path / "alone" / "results"
    elsewhere.mkdir(parents=True)
    lone = elsewhere / Path(first.path).name
    lone.write_bytes(Path(first.path).read_bytes())
    with pytest.raises(InputError, match="--split FILE"):
        repeat_probe(lone)
    (kept,) = (Path(first.path).parent / "splits").iterdir()
    with pytest.raises(InputError, match="--store"):
        repeat_probe(lone, split=kept)


def test_scores_are_compared_on_the_same_rows(made: Any) -> None:
    first = run_probe(config(made))
    y = made.y.copy()
    y[::7, 0] = np.nan
    made.relabel(y)
    assert (repeat_probe(first.path).largest_change or 0) > 0

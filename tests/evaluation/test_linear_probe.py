"""The linear sweep through a whole run: what is chosen among, what the result says, and nothing found where nothing is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.evaluation.repeat import config_of
from embedcache.evaluation.results import read_result
from embedcache.testing.labelled_stores import make_labelled_store
from embedcache.types import Task

FOUR = (9, 10, 11, 12)
SHORT = {"iterations": 150}


def heads(result: Any) -> int:
    return sum(len(path["values"]) for path in result.selection.values() if "values" in path)


@pytest.mark.parametrize(("preset", "count"), [("paper", 16), ("dinov2", 52)])
def test_a_preset_is_all_its_heads(tmp_path: Path, preset: str, count: int) -> None:
    store = make_labelled_store(tmp_path, layers=FOUR).store
    config = ProbeConfig("linear", store, layers="auto", options=SHORT | {"preset": preset}, resamples=20)
    result = run_probe(config)
    assert heads(result) == count
    assert result.chosen["parameter"] == "lr"
    assert result.counts["views"] == 1
    scores = {name: max(path["scores"]) for name, path in result.selection.items() if "scores" in path}
    assert result.chosen["vector"] == max(scores, key=lambda name: scores[name])
    for path in result.selection.values():
        told = path["solver"]
        assert told["iterations"] == 150
        assert len(told["loss"]) == len(told["lr"])
        assert all(0 < loss < 1 for loss in told["loss"])
    assert result.software["solver"].startswith("numpy")
    assert not any("the store holds only" in line for line in result.warnings)
    assert next(m.value for m in result.metrics if (m.name, m.label) == ("auroc", "macro")) > 0.8
    # written down, it is asked again in the same words
    assert run_probe(config_of(result, store)).path == result.path


def test_vectors_that_are_not_stored_drop_out_and_who_asks_for_them_is_told(tmp_path: Path) -> None:
    store = make_labelled_store(tmp_path, layers=(2,)).store
    asked = ProbeConfig("linear", store, layers="auto", options=SHORT, resamples=20)
    result = run_probe(asked)
    assert heads(result) == 8
    line = "of cls and cls+mean, of the last block and of the last 4, the store holds only cls, cls+mean."
    assert result.warnings[-1] == line
    # asked for by their names they are the same question, and nothing is left untried
    last = replace(asked, layers="last")
    assert run_probe(last).path == result.path
    assert line not in run_probe(last).warnings
    assert run_probe(asked).warnings == result.warnings, "found, it says so too"
    assert line not in read_result(Path(result.path)).warnings
    named = run_probe(ProbeConfig("linear", store, features="cls", options=SHORT, resamples=20))
    assert heads(named) == 4
    assert line not in named.warnings


def test_a_head_that_diverges_is_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcache.probes.linear.LARGEST_LR", 1e38)
    store = make_labelled_store(tmp_path, signal=1e20).store
    result = run_probe(ProbeConfig("linear", store, options=SHORT | {"lr": (1e-22, 1e25)}, resamples=20))
    assert result.chosen["lr"] == 1e-22
    assert result.selection["cls"]["scores"][1] is None
    assert any("infinite with lr 1e+25" in line for line in result.warnings)


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_other_tasks(tmp_path: Path, kind: Any) -> None:
    classes = ("yes",) if kind == "binary" else ("a", "b", "c")
    store = make_labelled_store(tmp_path, Task("made", kind, classes), layers=FOUR).store
    result = run_probe(ProbeConfig("linear", store, layers="auto", options=SHORT, resamples=20))
    assert heads(result) == 16
    assert result.chosen["scores_are"] == ("log-odds" if kind == "binary" else "log-probability")
    assert next(m.value for m in result.metrics if m.name == "auroc") > 0.8


def test_nothing_is_found_where_labels_are_permuted(tmp_path: Path) -> None:
    """20 times every patient gets the labels of another one; choice among 16 heads and refit included."""
    made = make_labelled_store(tmp_path, n=160, layers=FOUR)

    def auroc() -> float:
        config = ProbeConfig("linear", made.store, layers="auto", options={"iterations": 60}, resamples=20)
        result = run_probe(config)
        value = next(m.value for m in result.metrics if (m.name, m.label) == ("auroc", "macro"))
        assert value is not None
        return value

    assert auroc() > 0.8
    random, by_patient = np.random.default_rng(0), made.y.reshape(80, 2, -1)
    found = []
    for _ in range(20):
        made.relabel(by_patient[random.permutation(80)].reshape(160, -1))
        found.append(auroc())
    # three labels of 32 test rows: each macro AUROC spreads by .06, the mean of 20 by .014
    assert abs(np.mean(found) - 0.5) < 0.05
    assert max(found) < 0.8

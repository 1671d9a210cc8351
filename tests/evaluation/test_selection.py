import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.errors import InputError
from embedcache.evaluation.measure import measure
from embedcache.evaluation.measured import read_measured
from embedcache.evaluation.metrics import macro_auroc
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.evaluation.selection import selection_scores
from embedcache.probes import REGISTRY
from embedcache.probes.base import Diagnostics
from embedcache.types import Task


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.sampled_from([3, 1000]))
def test_what_chooses_is_the_macro_auroc_that_is_reported(seed: int, n: int, distinct: int) -> None:
    """With ties, missing labels and labels that have no score."""
    random = np.random.default_rng(seed)
    truth = random.choice([0.0, 1.0, np.nan], size=(n, 3), p=[0.6, 0.3, 0.1])
    path = random.integers(0, distinct, (4, n, 3)).astype(float)
    path[:, :, 2] = np.nan
    by, found = selection_scores("multilabel", truth, path, 0.0)
    expected = [macro_auroc(truth, scores) for scores in path]
    if by == "macro auroc":
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    else:
        assert np.isnan(expected).all()


class Stubborn:
    """The logistic probe, of which one C never converges."""

    def __init__(self, C: tuple[float, ...], never: tuple[float, ...]) -> None:
        self.inner, self.never = REGISTRY.load("logistic")(C=C), never

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def fit_path(self, *arguments: Any) -> Any:
        fitted = self.inner.fit_path(*arguments)
        stopped = tuple(v for v in fitted.values if v in self.never)
        object.__setattr__(fitted, "diagnostics", Diagnostics(not_converged=stopped))
        return fitted


def test_a_value_that_did_not_converge_is_never_chosen(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ProbeConfig("logistic", made.store, C=(0.01, 1.0), features="cls", resamples=20, force=True)
    best = run_probe(config).chosen["C"]
    other = 1.0 if best == 0.01 else 0.01
    from embedcache.evaluation import probe as job
    from embedcache.evaluation.question import Question, ask

    def asking(never: tuple[float, ...]) -> Any:
        def stubborn(*args: Any) -> Question:
            question = ask(*args)
            object.__setattr__(question, "probe", Stubborn((0.01, 1.0), never))
            return question

        return stubborn

    monkeypatch.setattr(job, "ask", asking((best,)))
    result = run_probe(config)
    assert result.chosen["C"] == other
    assert result.selection["cls"]["scores"][[0.01, 1.0].index(best)] is None
    monkeypatch.setattr(job, "ask", asking((0.01, 1.0)))
    with pytest.raises(InputError, match="none converged"):
        run_probe(config)


def test_what_every_value_scored_is_kept(made: Any) -> None:
    result = run_probe(ProbeConfig("knn", made.store, resamples=20, k=(3, 9, 30)))
    assert set(result.selection) == {"cls", "cls+mean", "refit"}
    path = result.selection[result.chosen["features"]]
    assert path["values"] == [30, 9, 3]
    assert max(path["scores"]) == result.chosen["validation_score"]
    assert path["by"] == "macro auroc"


def test_only_some_probes_choose_without_a_validation_part(made: Any) -> None:
    with pytest.raises(InputError, match="--select at validation"):
        run_probe(ProbeConfig("logistic", made.store, select="leave-patient-out", C=(0.1,)))


def test_thresholds_of_left_out_scores_say_so_and_so_does_a_comparison(made: Any) -> None:
    """There is no validation part and no model before the refit then, and their notes said that there was."""
    for select, what in (("leave-one-out", "row"), ("leave-patient-out", "patient")):
        result = run_probe(ProbeConfig("knn", made.store, select=select, k=(3, 9, 30), resamples=20))
        assert result.chosen["selected_by"].endswith(", ranked across these models")
        again = measure(
            (read := read_measured(result.path)).test.label, read.test.score, read.test.patient, read.kind, read.test.classes,
            read.threshold, score_name=read.score_name, before=read.before, resamples=20,
        )  # fmt: skip
        for metrics in (result.metrics, again):
            notes = [
                m.note for m in metrics if m.name in ("f1", "sensitivity_at_90_specificity") and m.label != "macro"
            ]
            assert notes
            assert all(f"chosen on scores without each {what}; refitted model" in note for note in notes)
    result = run_probe(ProbeConfig("knn", made.store, k=(3, 9, 30), resamples=20))
    assert result.chosen["selected_by"] == "macro auroc on validation"
    assert any("chosen on validation; model before the refit" in m.note for m in result.metrics if m.name == "f1")


def test_a_value_without_scores_is_not_chosen_and_the_others_are_judged_as_ever() -> None:
    random = np.random.default_rng(0)
    truth = (random.random((60, 1)) < 0.1).astype(float)
    path = np.stack([random.normal(size=(60, 1)), truth + random.normal(size=(60, 1)), np.full((60, 1), np.nan)])
    by, found = selection_scores("binary", truth, path, 0.0)
    assert by == "macro auroc"
    assert np.nanargmax(found) == 1
    assert np.isnan(found[2])
    np.testing.assert_array_equal(found[:2], selection_scores("binary", truth, path[:2], 0.0)[1])


def test_heads_that_all_diverged_are_no_fault_of_the_split(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates that may be asked for diverge on features of other scales; here the cap is lifted instead."""
    monkeypatch.setattr("embedcache.probes.linear.LARGEST_LR", 1e38)
    config = ProbeConfig(
        "linear", made.store, features="cls", options={"lr": (1e38,), "iterations": 300}, resamples=20, force=True
    )
    with pytest.raises(InputError, match="none converged"):
        run_probe(config)


def test_values_that_score_the_same_are_told(make: Any) -> None:
    """Few patients choose, and the features part them: nearly every C puts them in the same order."""
    made = make(n=80, given=lambda p: "validation" if p < 6 else "test" if p % 4 == 2 else "train", signal=12.0)
    result = run_probe(ProbeConfig("logistic", made.store, resamples=20))
    (line,) = [line for line in result.warnings if "score the same" in line]
    assert re.match(r"\d+ of 45 values of C score the same on the 6 patients that choose", line)
    many = make(n=400, dataset="many")
    assert not [
        w for w in run_probe(ProbeConfig("logistic", many.store, resamples=20)).warnings if "score the same" in w
    ]


@pytest.mark.parametrize("probe", ["logistic", "knn"])
def test_of_values_that_rank_alike_the_best_probabilities_choose(make: Any, probe: str) -> None:
    """Plain classes: every C has them in order, and the smallest calls all of them improbable."""
    made = make(Task("tumour", "multiclass", ("meningioma", "glioma", "pituitary")), signal=40.0)
    grid = {"C": (1e-6, 1e-3, 1.0)} if probe == "logistic" else {"k": (3, 45)}
    result = run_probe(ProbeConfig(probe, made.store, features="cls", resamples=20, **grid))
    record = result.selection["cls"]
    assert set(record["scores"]) == {1.0}
    assert result.chosen[result.chosen["parameter"]] == {"logistic": 1.0, "knn": 3}[probe]
    assert result.chosen["selected_by"].endswith("ties by Brier score")
    assert any("the one with the best probabilities there is taken" in line for line in result.warnings) == (
        probe == "logistic"  # two of two values are no crowd
    )
    for name in ("accuracy", "balanced_accuracy", "f1"):
        assert result.metric(name, "macro" if name == "f1" else "all").value == 1
    assert result.metric("brier", "all").value < 0.05


def test_scores_that_are_no_probabilities_leave_a_tie_to_the_smoothest(make: Any) -> None:
    made = make(Task("covid", "binary", ("yes",)), signal=40.0)
    result = run_probe(ProbeConfig("linear-svm", made.store, features="cls", C=(1e-3, 1e-2, 1.0), resamples=20))
    assert set(result.selection["cls"]["scores"]) == {1.0}
    assert result.chosen["C"] == 1e-3
    assert "Brier" not in result.chosen["selected_by"]
    assert any("the smoothest is taken" in line for line in result.warnings)


@pytest.mark.parametrize("select", ["validation", "leave-patient-out"])
def test_what_all_fits_say_of_themselves_is_said_once(made: Any, select: str) -> None:
    said = run_probe(ProbeConfig("knn", made.store, k=(5000,), resamples=50, select=select)).warnings
    assert sum("k = 5000 is above the" in line for line in said) == 1

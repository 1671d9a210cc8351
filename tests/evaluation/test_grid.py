"""`probe all`: many cells, only the new ones fitted, one table."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache import FeatureCache
from embedcache.errors import InputError, UnknownNameError
from embedcache.evaluation import grid as module
from embedcache.evaluation.compare import compare_results
from embedcache.evaluation.grid import Grid, GridConfig, run_grid
from embedcache.evaluation.grid_figure import draw_grid
from embedcache.evaluation.grid_formats import latex_escape, to_csv, to_json, to_latex, write_table
from embedcache.evaluation.grid_table import GridTable
from embedcache.evaluation.measured import read_measured
from embedcache.evaluation.paired import compare_scores
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.probes.knn import NearestNeighbourProbe
from embedcache.probes.logistic import LogisticProbe
from embedcache.store.labels import write_labels
from embedcache.testing.labelled_stores import FINDINGS, LabelledStore, long_labels, write_labelled_store
from embedcache.types import Task

QUICK: dict[str, Any] = {"resamples": 50}
OPTIONS = {"logistic": {"C": (0.01, 1.0)}, "knn": {"k": (5, 20)}}
AGE = Task("age", "numeric", ())


def config(*stores: Path, **changes: Any) -> GridConfig:
    base = GridConfig(stores, ("logistic", "knn"), options=OPTIONS, shared=QUICK, comparisons=200)
    return replace(base, **changes)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the probes, in the order in which one was fitted."""
    made: list[str] = []
    for probe, name in ((LogisticProbe, "logistic"), (NearestNeighbourProbe, "knn")):

        def fit_path(self: Any, *args: Any, name: str = name, fit: Any = probe.fit_path, **kwargs: Any) -> Any:
            made.append(name)
            return fit(self, *args, **kwargs)

        monkeypatch.setattr(probe, "fit_path", fit_path)
    return made


@pytest.fixture
def backbones(make: Callable[..., LabelledStore]) -> list[LabelledStore]:
    """Three backbones on the samples of one dataset: good, weak, and without any signal."""
    return [
        make(n=500, signal=signal, backbone=name) for name, signal in (("good", 1.5), ("weak", 0.4), ("noise", 0.0))
    ]


@pytest.fixture
def stores(backbones: list[LabelledStore]) -> list[Path]:
    return [made.store for made in backbones]


def with_age(made: LabelledStore) -> None:
    age = np.random.default_rng(3).normal(size=(len(made.samples), 1)) * 10 + 50
    write_labels(made.store.parents[1], long_labels(AGE, made.samples, made.patients, age, made.splits))


def test_every_cell_is_the_probe_alone(made: LabelledStore) -> None:
    grid = run_grid(config(made.store))
    assert [(c.probe, c.task, c.computed) for c in grid.cells] == [
        ("logistic", "findings", True),
        ("knn", "findings", True),
    ]
    for cell in grid.cells:
        alone = run_probe(ProbeConfig(cell.probe, made.store, options=OPTIONS[cell.probe], **QUICK))
        assert alone == cell.result  # the same file: the same question
        forced = run_probe(ProbeConfig(cell.probe, made.store, options=OPTIONS[cell.probe], force=True, **QUICK))
        assert cell.result is not None
        assert (forced.metrics, forced.chosen) == (cell.result.metrics, cell.result.chosen)


def test_a_rerun_fits_nothing_and_a_new_cell_only_itself(
    stores: list[Path], backbones: list[LabelledStore], fits: list[str]
) -> None:
    first = run_grid(config(*stores[:2]))
    assert first.failed == ()
    count = len(fits)
    assert count > 0
    again = run_grid(config(*stores[:2]))
    assert len(fits) == count
    assert not any(cell.computed for cell in again.cells)
    assert again.table == first.table

    third = run_grid(config(*stores))
    assert [cell.backbone for cell in third.cells if cell.computed] == ["noise", "noise"]
    assert sorted(fits[count:]) == sorted(fits[: count // 2])
    count = len(fits)
    other = run_grid(config(*stores, options={**OPTIONS, "knn": {"k": (5, 10)}}))
    assert [cell.probe for cell in other.cells if cell.computed] == ["knn"] * 3
    assert set(fits[count:]) == {"knn"}
    count = len(fits)
    with_age(backbones[0])  # another task of the labels makes no answer another one
    assert not any(c.computed for c in run_grid(config(*stores, tasks=("findings",))).cells)
    assert len(fits) == count
    forced = run_grid(config(stores[0], tasks=("findings",), shared={**QUICK, "force": True}))
    assert [cell.computed for cell in forced.cells] == [True, True]


def test_an_interruption_keeps_what_is_written(
    stores: list[Path], fits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = 0
    answer = module.answer

    def interrupted(*args: Any) -> Any:
        nonlocal answered
        answered += 1
        if answered == 3:
            raise KeyboardInterrupt
        return answer(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, "answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_grid(config(*stores))
    fits.clear()
    grid = run_grid(config(*stores))
    assert [cell.computed for cell in grid.cells] == [False, False, True, True, True, True]
    assert grid.failed == ()


def test_the_features_of_a_store_are_read_once_for_its_probes(
    stores: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    features = module.read_features

    def watched(question: Any, config: Any) -> Any:
        read.append(question.cache.path.parent.name)
        return features(question, config)

    monkeypatch.setattr(module, "read_features", watched)
    run_grid(config(*stores))
    assert read == ["good", "weak", "noise"]


def test_progress_counts_what_is_fitted(stores: list[Path]) -> None:
    run_grid(config(stores[0]))
    told: list[tuple[int, int, str]] = []
    run_grid(config(*stores[:2]), lambda done, total, what: told.append((done, total, what)))
    assert {total for _, total, _ in told} == {2}
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[0][2] == "weak logistic findings: reading features"
    assert told[-1][:2] == (2, 2)
    told.clear()
    run_grid(config(*stores[:2]), lambda done, total, what: told.append((done, total, what)))
    assert told == []


def test_probes_that_do_not_answer_are_left_out_with_a_note(made: LabelledStore) -> None:
    with_age(made)
    quiet = run_grid(config(made.store, probes=None))
    assert [(c.probe, c.task) for c in quiet.cells] == [
        ("ridge", "age"), ("logistic", "findings"), ("knn", "findings")
    ]  # fmt: skip
    assert quiet.notes == ()
    assert [(c.task, c.metric) for c in quiet.table.columns] == [("age", "r2"), ("findings", "auroc")]
    named = run_grid(config(made.store, probes=("knn", "ridge"), options={}))
    assert [(c.probe, c.task) for c in named.cells] == [("ridge", "age"), ("knn", "findings")]
    assert "probe knn does not answer numeric tasks, so it is left out of age." in named.notes
    with pytest.raises(UnknownNameError, match="did you mean 'age'"):
        run_grid(config(made.store, tasks=("agee",)))


def test_a_cell_that_fails_is_told_and_the_others_go_on(
    stores: list[Path], make: Callable[..., LabelledStore], tmp_path: Path
) -> None:
    bare = make(n=60, dataset="bare", prefix="x")
    bare.relabel(np.full_like(bare.y, np.nan))
    grid = run_grid(config(stores[0], bare.store, tmp_path / "nowhere.zarr"))
    assert [(c.store, bool(c.error)) for c in grid.cells if c.error] == [
        ("nowhere.zarr", True), (bare.store.name, True), (bare.store.name, True)
    ]  # fmt: skip
    assert "there is no store at" in grid.failed[0].error
    assert "no sample with features and a label" in grid.failed[1].error
    assert len([c for c in grid.cells if c.result]) == 2
    assert len(grid.table.rows) == 2


def test_stores_that_would_share_cells_are_refused(made: LabelledStore, make: Callable[..., LabelledStore]) -> None:
    with pytest.raises(InputError, match="given twice"):
        run_grid(config(made.store, made.store.parent / ".." / made.store.parent.name / made.store.name))
    with pytest.raises(InputError, match="needs a store"):
        GridConfig(())
    with pytest.raises(UnknownNameError, match="did you mean 'pool'"):
        GridConfig((made.store,), shared={"pol": "max"})
    with pytest.raises(UnknownNameError, match="did you mean 'auroc'"):
        GridConfig((made.store,), metrics=("aurok",))
    with pytest.raises(UnknownNameError, match="format of a table"):
        GridConfig((made.store,), out=Path("table.xlsx"))


def test_the_best_are_a_set_by_holm_over_all_pairs_of_the_column(stores: list[Path]) -> None:
    grid = run_grid(config(*stores, comparisons=4000))
    (column,) = grid.table.columns
    assert column.compared == 6
    read = [read_measured(cell.result.path) for cell in grid.cells if cell.result]
    value, p = {}, {}
    for i, j in combinations(range(6), 2):
        a, b = read[i], read[j]
        (macro,) = (
            c
            for c in compare_scores(
                a.test.label, a.test.score, b.test.score, a.test.patient, "multilabel", a.test.classes,
                (a.threshold, b.threshold), (a.score_name, b.score_name), before=(a.before, b.before), resamples=4000,
            )
            if (c.metric, c.label) == ("auroc", "macro")
        )  # fmt: skip
        value[i], value[j], p[i, j] = macro.a, macro.b, macro.p
    # Holm, step by step: the smallest p against alpha / 15, the next against alpha / 14 … until one is not under it
    worse = set()
    for k, (pair, found) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        if found >= 0.05 / (15 - k):
            break
        worse.add(min(pair, key=lambda i: value[i]))
    expected = [i not in worse for i in range(6)]
    assert [row.figures[0].best for row in grid.table.rows if row.figures[0]] == expected
    assert expected[0]
    assert expected[4:] == [False, False]
    shown = compare_results([one.result.path for one in read], metrics=["auroc"], label="macro", resamples=4000)
    assert sum(expected) == len(shown.columns[0].best)


def test_nothing_is_marked_where_test_rows_are_others_or_nothing_is_compared(
    made: LabelledStore, make: Callable[..., LabelledStore]
) -> None:
    with_age(made)
    alone = run_grid(config(made.store, probes=("ridge",), options={}))
    assert [c.compared for c in alone.table.columns] == [0]
    assert alone.notes == ("probe ridge does not answer multilabel tasks, so it is left out of findings.",)
    unmarked = run_grid(config(made.store, tasks=("findings",), comparisons=0))
    assert not any(f.best for row in unmarked.table.rows for f in row.figures if f)
    fewer = make(n=100, backbone="fewer", seed=1)  # the same dataset, of which less was extracted
    made.relabel(made.y)
    grid = run_grid(config(made.store, fewer.store, tasks=("findings",)))
    (column,) = grid.table.columns
    assert column.compared == 0
    assert "other rows" in column.note
    assert not any(f.best for row in grid.table.rows for f in row.figures if f)
    assert any(note.startswith("nothing is marked in made findings auroc: ") for note in grid.notes)


def test_of_a_binary_task_the_class_itself_is_tested_by_its_covariance(make: Callable[..., LabelledStore]) -> None:
    """Its macro average is the same figure, and has the same test."""
    task = Task("covid", "binary", ("yes",))
    stores = [make(task, n=300, signal=signal, backbone=name).store for name, signal in (("good", 2.0), ("bad", 0.0))]
    grid = run_grid(config(*stores, probes=("knn",), options={}))
    (column,) = grid.table.columns
    assert (column.label, column.figure, column.title) == ("yes", "auroc", "made covid auroc")
    found = compare_results([c.result.path for c in grid.cells if c.result], metrics=["auroc"], label="yes")
    assert found.columns[0].pairs[0].method == "clustered covariance"
    assert [r.figures[0].best for r in grid.table.rows if r.figures[0]] == [True, False]


def test_the_average_of_a_binary_task_is_marked_as_its_class_is(make: Callable[..., LabelledStore]) -> None:
    """By a bootstrap of its own the average of the second was not shown to be worse: p .051, that of the class is .034."""
    task = Task("covid", "binary", ("yes",))
    made = [make(task, n=160, signal=signal, backbone=name, seed=1) for name, signal in (("good", 1.3), ("bad", 0.0))]
    for label in ("yes", "macro"):
        grid = run_grid(
            config(*(one.store for one in made), probes=("knn",), options={}, comparisons=10_000, label=label)
        )
        assert [c.label for c in grid.table.columns] == [label]
        assert [r.figures[0].best for r in grid.table.rows if r.figures[0]] == [True, False]


def test_nothing_is_marked_where_no_pair_can_be_tested(make: Callable[..., LabelledStore]) -> None:
    made = make(Task("covid", "binary", ("yes",)), given=lambda p: ("train", "validation", "test")[p % 3])
    tests = np.array([part == "test" for part in made.splits])
    y = made.y.copy()
    y[tests] = 0
    y[np.flatnonzero(tests)[:2]] = 1  # one patient
    made.relabel(y)
    grid = run_grid(config(made.store))
    (column,) = grid.table.columns
    assert column.compared == 0
    assert "a class has one patient" in column.note
    assert grid.notes == (f"nothing is marked in made covid auroc: {column.note}",)
    assert [r.figures[0].best for r in grid.table.rows if r.figures[0]] == [False, False]


def test_datasets_are_columns_and_their_backbone_is_one_row(
    made: LabelledStore, make: Callable[..., LabelledStore]
) -> None:
    other = make(seed=4, dataset="other", prefix="b")
    second = make(backbone="second")
    grid = run_grid(config(made.store, other.store, second.store))
    assert [c.dataset for c in grid.table.columns] == ["made", "other"]
    assert [(r.backbone, r.probe, [f is not None for f in r.figures]) for r in grid.table.rows] == [
        ("made-up", "logistic", [True, True]),
        ("made-up", "knn", [True, True]),
        ("second", "logistic", [True, False]),
        ("second", "knn", [True, False]),
    ]
    assert [c.compared for c in grid.table.columns] == [4, 2]


def test_a_grid_may_be_tested_elsewhere(made: LabelledStore, make: Callable[..., LabelledStore]) -> None:
    other = make(seed=4, dataset="other", prefix="b")
    second, there = (make(backbone="second", **how) for how in ({}, {"dataset": "other", "prefix": "b", "seed": 4}))
    grid = run_grid(config(made.store, second.store, shared={**QUICK, "test_store": other.store.parents[1]}))
    assert grid.failed == ()  # each with the store of its own recipe in that folder
    (column,) = grid.table.columns
    assert column.dataset == "made -> other"
    assert column.compared == 4
    tested = {c.result.source["test_store"] for c in grid.cells if c.result}
    assert tested == {there.store.name, other.store.name}


def test_groups_of_a_grid_that_is_tested_elsewhere_are_those_of_the_tested_store(
    made: LabelledStore, make: Callable[..., LabelledStore]
) -> None:
    other = make(seed=4, dataset="other", prefix="b", n=90)
    site = Task("site", "multiclass", ("A", "B", "C"))
    y = np.eye(3)[[int(p[2:]) % 3 for p in other.patients]]
    write_labels(other.store.parents[1], long_labels(site, other.samples, other.patients, y, other.splits))
    grid = run_grid(
        config(made.store, probes=("knn",), options={}, by="site", shared={**QUICK, "test_store": other.store})
    )
    assert [(r.group, r.figures[0].patients) for r in grid.table.rows if r.figures[0]] == [
        ("", 45), ("A", 15), ("B", 15), ("C", 15)
    ]  # fmt: skip


def test_groups_stand_below_their_row(made: LabelledStore) -> None:
    site = Task("site", "multiclass", ("A", "B"))
    y = np.array([[p % 2 == 0, p % 2 == 1] for p in (int(p[1:]) for p in made.patients)], dtype=float)
    write_labels(made.store.parents[1], long_labels(site, made.samples, made.patients, y, made.splits))
    grid = run_grid(config(made.store, tasks=("findings",), by="site"))
    assert [(r.probe, r.group) for r in grid.table.rows] == [
        ("logistic", ""), ("logistic", "A"), ("logistic", "B"), ("knn", ""), ("knn", "A"), ("knn", "B")
    ]  # fmt: skip
    assert grid.table.headings() == ("backbone", "probe", "group")
    whole, a, b = (row.figures[0] for row in grid.table.rows[:3])
    assert whole is not None
    assert a is not None
    assert b is not None
    assert a.patients + b.patients == whole.patients
    assert a.low is not None
    assert a.low < (a.value or 0) < (a.high or 0)
    assert not a.best
    with pytest.raises(UnknownNameError, match="unknown column of the labels 'scanner'"):
        run_grid(config(made.store, tasks=("findings",), by="scanner"))


def test_slices_stay_apart_for_tasks_of_slices_and_classes_are_of_findings(make: Callable[..., LabelledStore]) -> None:
    made = make(slices=2)
    with_age(made)
    box = Task("box", "binary", ("yes",), level="slice")
    labels = long_labels(
        box,
        [s for s in made.samples for _ in range(2)],
        [p for p in made.patients for _ in range(2)],
        np.repeat(made.y[:, :1], 2, axis=0),
        [""] * 2 * len(made.samples),
    )
    slices = np.tile(np.arange(2, dtype=np.int32), len(made.samples))
    write_labels(made.store.parents[1], replace(labels, slice=slices))
    grid = run_grid(
        config(made.store, probes=None, shared={**QUICK, "classes": ("Mass", "Nodule")}, metrics=("auroc", "mae"))
    )
    assert grid.failed == ()
    levels = {c.task: c.result.level for c in grid.cells if c.result}
    assert levels == {"age": "sample", "box": "slice", "findings": "sample"}
    assert [(c.task, c.metric) for c in grid.table.columns] == [
        ("age", "mae"), ("box", "auroc"), ("findings", "auroc")
    ]  # fmt: skip
    findings = next(c.result for c in grid.cells if c.task == "findings" and c.result)
    assert findings.inputs["config"]["classes"] == ["Mass", "Nodule"]


# --- formats --------------------------------------------------------------------------------------


@pytest.fixture
def table(made: LabelledStore, make: Callable[..., LabelledStore]) -> GridTable:
    make(backbone="a_b&c", task=replace(FINDINGS, name="find_ings"))
    made.relabel(made.y)
    stores = sorted(made.store.parents[1].glob("*/*.zarr"))
    grid: Grid = run_grid(config(*stores, tasks=("findings",), metrics=("auroc", "f1"), label="Mass"))
    return grid.table


def test_csv_reads_back(table: GridTable) -> None:
    read = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert len(read) == len(table.rows) == 4
    for line, row in zip(read, table.rows, strict=True):
        assert (line["backbone"], line["probe"]) == (row.backbone, row.probe)
        for column, figure in zip(table.columns, row.figures, strict=True):
            assert figure is not None
            title = f"made findings {column.metric} of Mass"
            assert float(line[title]) == figure.value
            assert [float(line[f"{title} {end}"]) for end in ("low", "high")] == [figure.low, figure.high]
            assert line[f"{title} best"] == str(int(figure.best))


def test_json_reads_back(table: GridTable, tmp_path: Path) -> None:
    document = json.loads(write_table(table, tmp_path / "t.json").read_text())
    assert document == json.loads(to_json(table))
    assert [row["backbone"] for row in document["rows"]] == [row.backbone for row in table.rows]
    assert document["rows"][0]["figures"][0]["value"] == table.rows[0].figures[0].value  # type: ignore[union-attr]
    assert [column["metric"] for column in document["columns"]] == ["auroc", "f1"]


def test_latex_is_escaped_and_its_rows_are_as_wide_as_it_says(table: GridTable) -> None:
    text = to_latex(table)
    assert r"a\_b\&c & logistic & " in text
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert r"\begin{tabular}{llcc}" in text
    for line in lines[3:]:
        assert line.replace(r"\&", "").count("&") == 3
    assert lines[0] == r" &  & \multicolumn{2}{c}{made} \\"
    assert lines[2] == r"backbone & probe & auroc of Mass & f1 of Mass \\"
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}") == 1
    best = sum(f.best for row in table.rows for f in row.figures if f)
    assert text.count(r"\textbf{") == best > 0


def test_latex_escapes_each_special_character() -> None:
    assert latex_escape(r"50% & #1_a ${x}$ ~^\ <a> -> |") == (
        r"50\% \& \#1\_a \$\{x\}\$ \textasciitilde{}\textasciicircum{}\textbackslash{} "
        r"\textless{}a\textgreater{} -\textgreater{} \textbar{}"
    )


def test_a_table_is_written_by_its_suffix(table: GridTable, tmp_path: Path) -> None:
    assert write_table(table, tmp_path / "t.csv").read_text() == to_csv(table)
    assert write_table(table, tmp_path / "t.tex").read_text() == to_latex(table)
    with pytest.raises(UnknownNameError, match="format of a table"):
        write_table(table, tmp_path / "t.txt")


def test_two_recipes_of_one_backbone_are_told_apart(made: LabelledStore) -> None:
    cache = FeatureCache.open(made.store)
    twin = replace(made, store=made.store.with_name("fedcba987654.zarr"))
    write_labelled_store(twin, {(2, "cls_token"): cache.features("cls").X}, size=56)
    table = run_grid(config(made.store, twin.store)).table
    assert [title[0] for title in table.titles()] == ["made-up (0123456789ab)"] * 2 + ["made-up (fedcba987654)"] * 2


# --- picture --------------------------------------------------------------------------------------


def test_a_picture_has_a_panel_per_column_and_fills_the_best(
    table: GridTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path: (drawn.append(self), save(self, path)))
    path = draw_grid(table, tmp_path / "grid.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    (figure,) = drawn
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left").split("\n") for axes in panels] == [
        ["made", "findings", "auroc of Mass"], ["made", "findings", "f1 of Mass"]
    ]  # fmt: skip
    for j, axes in enumerate(panels):
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        assert [float(line.get_xdata()[0]) for line in dots] == [row.figures[j].value for row in table.rows]  # type: ignore
        filled = [line.get_markerfacecolor() != "white" for line in dots]
        assert filled == [row.figures[j].best for row in table.rows]  # type: ignore[union-attr]
    assert all(not line.get_clip_on() for axes in panels for line in axes.lines if line.get_marker() == "o")
    told = figure.get_supxlabel()
    some_worse = any(not f.best for row in table.rows for f in row.figures if f is not None)
    assert ("filled dot" in told, "hollow dot" in told, "upright dash" in told) == (True, some_worse, False)
    apart = replace(table, rows=(*table.rows, replace(table.rows[0], group="M")))
    draw_grid(apart, tmp_path / "apart.png")
    draw_grid(replace(table, columns=tuple(replace(c, compared=0) for c in table.columns)), tmp_path / "none.png")
    groups, none = drawn.pop(1), drawn.pop(1)
    for axes in [axes for axes in groups.axes if axes.get_visible()]:
        marks = [line.get_marker() for line in axes.lines if len(line.get_xdata()) == 1]
        assert marks == ["o"] * len(table.rows) + ["|"], "a group that was not tested is no hollow dot"
    assert "upright dash: not tested" in groups.get_supxlabel().replace("\n", " ")
    assert "dot" not in none.get_supxlabel()
    twice = replace(table, columns=(*table.columns, replace(table.columns[0], dataset="other")))
    low = [replace(f, low=0.1) if f is not None else None for f in (row.figures[0] for row in table.rows)]
    twice = replace(
        twice,
        rows=tuple(replace(row, figures=(*row.figures, f)) for row, f in zip(table.rows, low, strict=True)),
    )
    draw_grid(twice, tmp_path / "twice.png")
    first, f1, other = [axes.get_xlim() for axes in drawn[1].axes if axes.get_visible()]
    assert first == other, "panels of one metric have one range"
    assert first[0] < 0.1
    assert first != f1
    with pytest.raises(InputError, match=r"use \.png"):
        draw_grid(table, tmp_path / "grid.xyz")
    with pytest.raises(InputError, match="no rows"):
        draw_grid(replace(table, rows=()), tmp_path / "grid.png")


def test_what_lies_beyond_the_axis_of_r2_has_an_arrow(
    table: GridTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path: (drawn.append(self), save(self, path)))
    seen = [(-12.25, -40.0, -2.0, False), (-0.5, -4.0, 0.1, True), (0.2, 0.1, 0.4, True), (-3.0, -9.0, 0.2, True)]
    rows = [
        replace(row, figures=(replace(figure, value=value, low=low, high=high, best=best),))
        for row, (value, low, high, best) in zip(table.rows, seen, strict=True)
        if (figure := row.figures[0])
    ]
    rows.append(replace(rows[0], group="M"))
    of_r2 = replace(table, columns=(replace(table.columns[0], metric="r2"),), rows=tuple(rows))
    draw_grid(of_r2, tmp_path / "r2.png")
    draw_grid(replace(of_r2, rows=(rows[2],)), tmp_path / "whole.png")
    some, whole = drawn
    (axes,) = [axes for axes in some.axes if axes.get_visible()]
    arrows = [line for line in axes.lines if line.get_marker() == "<"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in arrows] == [
        (-1.0, 0),
        (-1.0, 1),
        (-1.0, 3),
        (-1.0, 4),
    ]
    assert [line.get_markerfacecolor() == "white" for line in arrows] == [True, False, False, False]
    assert [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o"] == [1, 2], "no dot that is not seen"
    assert [(text.get_text(), text.xy[1]) for text in axes.texts] == [("-12.2", 0), ("-3", 3), ("-12.2", 4)]  # type: ignore
    assert axes.get_xlim()[0] == -1
    assert axes.get_xlim()[1] < 0.6, "nor does what lies far beyond make the right side wide"
    assert "arrow: goes on beyond the axis" in some.get_supxlabel().replace("\n", " ")
    assert "arrow" not in whole.get_supxlabel()

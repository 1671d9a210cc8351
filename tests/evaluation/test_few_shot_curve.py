from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import embedcache
from embedcache.errors import InputError
from embedcache.evaluation.few_shot import few_shot
from embedcache.evaluation.few_shot_config import FewShotConfig
from embedcache.evaluation.few_shot_curve import curve_names, draw_few_shot
from embedcache.evaluation.few_shot_result import FewShotResult


@pytest.fixture
def result(made: Any) -> FewShotResult:
    return few_shot(FewShotConfig(made.store, shots=(1, 2), seeds=4))


def test_a_curve_is_drawn_and_differs_with_what_it_shows(result: FewShotResult, tmp_path: Path) -> None:
    named = replace(result, source={**result.source, "backbone": "another"})
    higher = replace(
        result, points=(replace(result.points[0], figures=(replace(result.points[0].macro, value=0.9),)), *result.points[1:])
    )  # fmt: skip
    dashed = replace(result, setting="not few-shot: C was chosen on the whole validation part")
    pictures = []
    for i, curves in enumerate(
        ([result], [result, named], [higher], [dashed], [replace(result, points=result.points[:2])])
    ):
        path = draw_few_shot(curves, tmp_path / f"{i}.png")
        assert path.read_bytes().startswith(b"\x89PNG")
        pictures.append(path.read_bytes())
    assert len(set(pictures)) == len(pictures)
    assert embedcache.draw_few_shot([result], tmp_path / "same.png").read_bytes() == pictures[0]


def test_one_that_is_not_few_shot_says_so_in_the_picture(result: FewShotResult, tmp_path: Path) -> None:
    few = draw_few_shot([result], tmp_path / "few.svg").read_text()
    assert "not few-shot" not in few
    dashed = replace(result, setting="not few-shot: C was chosen on the whole validation part")
    for curves in ([dashed], [result, replace(dashed, source={**result.source, "backbone": "another"})]):
        # text is drawn as shapes, and its words stand in comments
        assert "(not few-shot)" in draw_few_shot(curves, tmp_path / "not.svg").read_text()


def test_a_point_over_fewer_classes_is_a_cross_and_names_them(
    result: FewShotResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Macros over other classes looked alike: a curve could rise because a hard class was left out."""

    def lacking(*names: str, points: slice) -> FewShotResult:
        changed = [
            replace(p, by_class={**p.by_class, **{n: (None, *p.by_class[n][1:]) for n in names}})
            for p in result.points[points]
        ]
        return replace(result, points=(*changed, *result.points[points.stop :]))

    def drawn(curve: FewShotResult) -> str:
        return draw_few_shot([result, curve], tmp_path / "x.svg").read_text()

    first, second = result.classes[:2]
    whole, some = drawn(result), drawn(lacking(first, points=slice(0, 1)))
    assert "fill: #ffffff; stroke: " not in some + whole, "a hollow dot has another meaning, in the picture of a grid"
    assert f"<!-- cross: without a class that a draw leaves undefined ({first}), so not comparable -->" in some
    assert "<!-- cross" not in whole
    from matplotlib.axes import Axes

    drawn_marks: list[str] = []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda self, *a, **k: (drawn_marks.append(k.get("marker", "")), plot(self, *a, **k))[1]
    )
    drawn(lacking(first, points=slice(0, 1)))
    assert drawn_marks.count("X") == 1
    everywhere = lacking(second, points=slice(0, len(result.points)))
    same = draw_few_shot([everywhere], tmp_path / "same.svg").read_text()
    assert f"<!-- undefined, in no point: {second} -->" in same
    assert f"<!-- Macro AUROC over {len(result.classes) - 1} classes -->" in same
    assert "<!-- cross" not in same


def test_a_single_draw_and_undefined_points_are_drawn(made: Any, tmp_path: Path) -> None:
    paper = few_shot(FewShotConfig(made.store, shots=(1, 4), preset="paper"))
    undefined = replace(paper.points[0], figures=(replace(paper.points[0].macro, value=None),))
    for i, curve in enumerate((paper, replace(paper, points=(undefined, *paper.points[1:])))):
        assert draw_few_shot([curve], tmp_path / f"{i}.pdf").exists()


def test_what_can_not_be_drawn_is_said(result: FewShotResult, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no curve to draw"):
        draw_few_shot([], tmp_path / "x.png")
    with pytest.raises(InputError, match="holds 6 curves"):
        draw_few_shot([result] * 7, tmp_path / "x.png")
    with pytest.raises(InputError, match="different tasks"):
        draw_few_shot([result, replace(result, classes=("Mass",))], tmp_path / "x.png")
    with pytest.raises(InputError, match="no curve has"):
        draw_few_shot([replace(result, points=result.points[-1:])], tmp_path / "x.png")
    with pytest.raises(InputError, match=r"use \.png"):
        draw_few_shot([result], tmp_path / "x.nothing")


def test_names_tell_curves_apart_with_as_few_words_as_it_takes(result: FewShotResult) -> None:
    a = replace(result, source={"backbone": "dinov2", "dataset": "nih"})
    b = replace(result, source={"backbone": "vit", "dataset": "nih"})
    assert curve_names([a, b]) == ("dinov2", "vit")
    c = replace(a, chosen={**a.chosen, "features": "mean"})
    assert curve_names([a, c]) == ("cls", "mean")
    assert len(set(curve_names([a, a]))) == 2

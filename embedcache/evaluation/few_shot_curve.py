"""A picture of few-shot curves: mean AUROC by patients of each class, several stores in one figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.errors import InputError
from embedcache.evaluation import figure_panels as panels
from embedcache.evaluation.few_shot_result import CurvePoint, FewShotResult
from embedcache.evaluation.figure_files import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = len(panels.COLOURS)
_GAP = 1.5
"""Between the last number of patients and all of them, in steps of twice as many."""


def draw_few_shot(results: Sequence[FewShotResult], path: str | Path) -> Path:
    """Draw the curves into `path` (the suffix names the format: `.png`, `.svg`, `.pdf`) and return it.

    Of each store the mean macro AUROC over draws; its band is the t interval of that mean over draws, its bars the interval over
    test patients. One that was not few-shot is dashed, and its name says so. A point whose macro lacks a class that others have,
    since a draw left it undefined, is a cross, and the class is named. Raises MissingPackageError without matplotlib,
    InputError for a format that it does not know, for curves of different tasks, or for too many of them.
    """
    _check(results)
    figure = new_figure(7.2, 5.2)
    axes = figure.subplots()
    names = curve_names(results)
    shots = sorted({point.shots for result in results for point in result.points if point.shots is not None})
    places = {n: float(np.log2(n)) for n in shots}
    end = float(np.log2(shots[-1])) + _GAP
    for i, (result, name) in enumerate(zip(results, names, strict=True)):
        # side by side, so that the bars of one do not hide those of another
        aside = 0.05 * (i - (len(results) - 1) / 2)
        _curve(
            axes,
            result,
            name,
            panels.COLOURS[i],
            [(end if p.shots is None else places[p.shots]) + aside for p in result.points],
            _never(results),
        )
    whole = any(point.shots is None for result in results for point in result.points)
    ticks = [*places.values(), *([end] if whole else [])]
    axes.set_xticks(ticks, [*(str(n) for n in shots), *(["all"] if whole else [])])
    axes.axhline(0.5, color=panels.PALE, linewidth=1, linestyle=":")
    axes.set_xlabel("Patients of each class in training (log scale)")
    averaged = len(results[0].classes) - len(_never(results))
    axes.set_ylabel("AUROC" if len(results[0].classes) == 1 else f"Macro AUROC over {averaged} classes")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.06 * (len(results) + 0.5) * (high - low))  # room for the names above the curves
    axes.legend(loc="upper left", fontsize=9, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=panels.INK, length=3)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    task = results[0].task.name.replace("_", " ")
    few = all(result.is_few_shot for result in results)
    title = f"Few-shot curve on {task}" if few else f"Curve by patients on {task} (dashed: not few-shot)"
    figure.suptitle(title, fontsize=13, fontweight="bold", color=panels.INK, x=0.01, ha="left")
    figure.supxlabel("\n".join(_said(results)), fontsize=8, color=panels.PALE, x=0.01, ha="left")
    return save_figure(figure, path)


def check_together(tasks: Sequence[tuple[str, tuple[str, ...]]]) -> None:
    """Hold that one figure can show curves of these tasks, each with its classes. Raises InputError."""
    if not tasks:
        raise InputError("there is no curve to draw.")
    if len(tasks) > _MOST:
        raise InputError(f"a figure holds {_MOST} curves. Got {len(tasks)}; draw fewer stores.")
    if len(set(tasks)) > 1:
        raise InputError("the curves are of different tasks or classes; draw those of one task.")


def curve_names(results: Sequence[FewShotResult]) -> tuple[str, ...]:
    """What tells curves apart, as few words as it takes: backbone, dataset, features, how C came about, who was drawn, file."""
    told = [
        (
            result.source.get("backbone", ""),
            result.source.get("dataset", ""),
            str(result.chosen.get("features", "")),
            _C_words(result),
            "first by id" if result.chosen.get("preset") else "",
            Path(result.path).stem,
        )
        for result in results
    ]
    if len(results) == 1:
        return (told[0][0] or told[0][-1],)
    differing = [i for i in range(len(told[0])) if len({words[i] for words in told}) > 1]
    for count in range(1, len(differing) + 1):
        names = tuple(", ".join(words[i] for i in differing[:count] if words[i]) for words in told)
        if len(set(names)) == len(names):
            return names
    return tuple(f"{words[0]} ({i})" for i, words in enumerate(told, start=1))


def _C_words(result: FewShotResult) -> str:
    by = str(result.chosen["C"])
    return f"C = {result.chosen['grid'][0]:g}" if by.startswith("fixed") else (
        "C by validation" if not result.is_few_shot else "C inside draws"
    )  # fmt: skip


def _check(results: Sequence[FewShotResult]) -> None:
    check_together([(result.task.name, result.classes) for result in results])
    if all(point.shots is None for result in results for point in result.points):
        raise InputError("no curve has a number of patients.")


def _without(point: CurvePoint) -> frozenset[str]:
    """Classes that a draw leaves undefined, and that the point's macro is not over."""
    return frozenset(name for name, each in point.by_class.items() if None in each)


def _never(results: Sequence[FewShotResult]) -> frozenset[str]:
    """Classes that no point's macro is over."""
    each = [_without(point) for result in results for point in result.points]
    return each[0].intersection(*each[1:])


def _curve(axes: "Axes", result: FewShotResult, name: str, colour: str, x: list[float], never: frozenset[str]) -> None:
    shown = [(at, point) for at, point in zip(x, result.points, strict=True) if point.macro.value is not None]
    few = [(at, point) for at, point in shown if point.shots is not None]
    lacking = {at: point for at, point in shown if _without(point) - never}
    dots = [i for i, (at, _) in enumerate(few) if at not in lacking]
    line = "-" if result.is_few_shot else "--"
    label = name if result.is_few_shot else f"{name} (not few-shot)"
    dotted: dict[str, Any] = {"marker": "o", "markersize": 4.5, "markevery": dots}
    axes.plot([at for at, _ in few], [_value(p) for _, p in few], color=colour, linestyle=line, label=label, **dotted)
    band = [(at, p.macro.draws_low, p.macro.draws_high) for at, p in few if p.macro.draws_low is not None]
    if band:
        at, low, high = (np.array(column, dtype=np.float64) for column in zip(*band, strict=True))
        axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
    for at_, point in shown:
        figure = point.macro
        if figure.test_low is not None and figure.test_high is not None:
            axes.plot([at_, at_], [figure.test_low, figure.test_high], color=colour, linewidth=1, alpha=0.8)
        if point.shots is None:
            if at_ not in lacking:
                axes.plot(at_, _value(point), color=colour, marker="D", markersize=6)
            if few:
                ends = [few[-1][0], at_]
                axes.plot(ends, [_value(few[-1][1]), _value(point)], color=colour, linestyle=":", linewidth=1.2)
    for at_, point in lacking.items():
        axes.plot(at_, _value(point), color=colour, marker=panels.LACKING_MARK, markersize=8, zorder=3)


def _value(point: CurvePoint) -> float:
    assert point.macro.value is not None  # undefined ones are not shown
    return point.macro.value


def _said(results: Sequence[FewShotResult]) -> list[str]:
    first = results[0]
    draws = sorted({len(p.seeds) for result in results for p in result.points if p.shots is not None})
    ways = list(dict.fromkeys(str(result.chosen["C"]) for result in results))
    test = f"test: {first.counts['test_rows']:,} rows of {first.counts['test_patients']:,} patients"
    bands = "band: 95% of the mean over draws" if draws[-1] > 1 else "one draw of each size"
    many = f"{draws[-1]} draws of each size" if draws[-1] > 1 else str(first.chosen["draws"])
    said = [f"{many}; {test}", f"C {' / '.join(ways)}", f"{bands}; bars: 95% over test patients, the draws given"]
    never = _never(results)
    some = {name for result in results for point in result.points for name in _without(point)} - never
    if never and len(first.classes) > 1:
        said.append(f"undefined, in no point: {', '.join(sorted(never))}")
    if some and len(first.classes) > 1:
        said.append(
            f"cross: without a class that a draw leaves undefined ({', '.join(sorted(some))}), so not comparable"
        )
    return said

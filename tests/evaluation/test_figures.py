from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_curve as reference_curve

from embedcache.errors import InputError
from embedcache.evaluation.figure_files import new_figure
from embedcache.evaluation.figure_panels import choice_path, roc_curve
from embedcache.evaluation.figures import draw_result, probe_figure
from embedcache.evaluation.predictions import read_predictions
from embedcache.evaluation.probe import ProbeConfig, run_probe


def test_a_figure_is_drawn_and_differs_with_what_it_shows(made: Any, tmp_path: Path) -> None:
    drawn = []
    for classes in (None, ("Mass",)):
        result = run_probe(ProbeConfig("knn", made.store, resamples=50, classes=classes))
        path = probe_figure(result, read_predictions(result), tmp_path / f"{len(drawn)}.png")
        with Image.open(path) as image:
            drawn.append(np.asarray(image.convert("L").resize((200, 100))))
    assert all(image.std() > 10 for image in drawn)  # a blank page has 0
    assert not np.array_equal(*drawn)
    with pytest.raises(InputError, match=r"use \.png"):
        probe_figure(result, read_predictions(result), tmp_path / "figure.nothing")


def test_a_result_is_drawn_from_the_predictions_beside_it(made: Any, tmp_path: Path) -> None:
    result = run_probe(ProbeConfig("knn", made.store, resamples=50))
    drawn = draw_result(result, str(tmp_path / "drawn.png"))
    same = probe_figure(result, read_predictions(result), tmp_path / "same.png")
    with Image.open(drawn) as left, Image.open(same) as right:
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))
    Path(result.path).with_suffix(".parquet").unlink()
    with pytest.raises(InputError, match="no predictions beside"):
        draw_result(result, tmp_path / "gone.png")


def test_paths_of_a_choice_are_told_apart_and_no_dot_is_cut() -> None:
    axes = new_figure(4, 4).subplots()
    path = {"values": [0.1, 1.0], "scores": [0.9, 1.0], "by": "macro auroc"}
    names = [f"vector {i}" for i in range(9)]
    choice_path(axes, dict.fromkeys(names, path), "C", names[8], 1.0)
    shown = {str(line.get_label()): (line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert len({shown[name] for name in names}) == 9
    faces = {str(line.get_label()): line.get_markerfacecolor() for line in axes.lines}
    assert [faces[name] == "white" for name in names] == [False] * 6 + [True] * 3, (
        "dashes do not show between many dots"
    )
    (ring,) = [line for line in axes.lines if line.get_markersize() == 10]
    assert not ring.get_clip_on()


def test_curves_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    y, score = (random.random(60) < 0.4).astype(float), random.integers(0, 9, 60).astype(float)
    false, true = roc_curve(y, score)
    expected = reference_curve(y, score, drop_intermediate=False)
    np.testing.assert_allclose(false, expected[0], rtol=1e-12)
    np.testing.assert_allclose(true, expected[1], rtol=1e-12)

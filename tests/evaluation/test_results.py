import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedcache.errors import InputError, NewerFormatError
from embedcache.evaluation.predictions import Predictions, encode_predictions, read_predictions
from embedcache.evaluation.results import (
    decode_result,
    find_result,
    kept_split,
    list_results,
    read_result,
    result_digest,
    write_result,
)
from embedcache.evaluation.splits import read_split, split_digest
from embedcache.types import Metric, Result, Split, Task, strings

TASK = Task("findings", "multilabel", ("a", "b"))
RESULT = Result(
    "logistic",
    {"store": "f" * 64, "config": {"C": [0.1, 1.0]}, "version": "0"},
    TASK,
    "sample",
    {"C": 0.1},
    (
        Metric("auroc", "macro", 0.75, 0.6, 0.9, "logit", 10, 4, 8),
        Metric("auroc", "b", None, None, None, "-", 10, 0, 8),
    ),
    {"test_samples": 10},
    {"fit": 1.5},
    {"numpy": "2"},
    ("look here",),
)
PREDICTIONS = Predictions(
    strings(["s1", "s2", "s3"]),
    np.array([-1, 4, 5], dtype=np.int32),
    strings(["validation", "test", "test"]),
    ("a", "b"),
    np.array([[0, 1], [np.nan, 0], [1, 1.0]]),
    np.array([[0.5, np.nan], [-3.25, np.nan], [1e-300, np.nan]]),
    strings(["p1", "p2", "p2"]),
    np.array([[np.nan, np.nan], [0.25, np.nan], [-0.125, np.nan]]),
)


def test_a_result_and_its_predictions_read_back(tmp_path: Path) -> None:
    written = write_result(RESULT, PREDICTIONS, tmp_path / "results")
    assert read_result(Path(written.path)) == written
    assert replace(written, path="") == RESULT
    back = read_predictions(written)
    for name in ("sample", "slice", "part", "label", "score", "patient", "before"):
        np.testing.assert_array_equal(getattr(back, name), getattr(PREDICTIONS, name))
    assert back.classes == PREDICTIONS.classes
    assert list_results(tmp_path / "results") == [written]


def test_predictions_that_were_encoded_before_are_written_as_they_are(tmp_path: Path) -> None:
    now = write_result(RESULT, PREDICTIONS, tmp_path / "now")
    before = write_result(RESULT, encode_predictions(PREDICTIONS), tmp_path / "before")
    written = [Path(result.path).with_suffix(".parquet").read_bytes() for result in (now, before)]
    assert written[0] == written[1]


def test_the_name_is_the_digest_of_the_inputs_alone(tmp_path: Path) -> None:
    written = write_result(RESULT, PREDICTIONS, tmp_path)
    assert Path(written.path).name == f"{result_digest(RESULT.inputs)[:16]}.json"
    reordered = dict(reversed(list(RESULT.inputs.items())))
    assert result_digest(reordered) == result_digest(RESULT.inputs)
    assert result_digest({**RESULT.inputs, "version": "1"}) != result_digest(RESULT.inputs)


def test_what_is_there_is_returned_and_never_overwritten(tmp_path: Path) -> None:
    first = write_result(RESULT, PREDICTIONS, tmp_path)
    bytes_before = Path(first.path).read_bytes()
    later = replace(RESULT, timings={"fit": 99.0})
    assert write_result(later, PREDICTIONS, tmp_path) == first
    forced = write_result(later, PREDICTIONS, tmp_path, force=True)
    assert Path(forced.path).stem == Path(first.path).stem + "-2"
    assert Path(first.path).read_bytes() == bytes_before
    assert find_result(RESULT.inputs, tmp_path) == first
    assert len(list_results(tmp_path)) == 2


def test_files_that_are_no_results_are_refused(tmp_path: Path) -> None:
    written = Path(write_result(RESULT, PREDICTIONS, tmp_path).path)
    document = json.loads(written.read_text())
    cases = {
        "not json": "no result",
        json.dumps({**document, "format": "other"}): "format is 'other'",
        json.dumps({k: v for k, v in document.items() if k != "metrics"}): "damaged",
    }
    for text, says in cases.items():
        written.write_text(text)
        with pytest.raises(InputError, match=says):
            read_result(written)
    written.write_text(json.dumps({**document, "version": 3}))
    with pytest.raises(NewerFormatError, match="version 3"):
        read_result(written)
    with pytest.raises(InputError, match="no result"):
        read_result(tmp_path / "none.json")


def test_a_result_of_version_1_is_read(tmp_path: Path) -> None:
    """It names no source, and its predictions neither patients nor scores before refitting."""
    written = Path(write_result(RESULT, PREDICTIONS, tmp_path).path)
    document = json.loads(written.read_text())
    del document["source"], document["selection"]
    written.write_text(json.dumps({**document, "version": 1}))
    table = pq.read_table(written.with_suffix(".parquet")).drop_columns(["patient", "before"])
    pq.write_table(table, written.with_suffix(".parquet"))
    result = read_result(written)
    assert (result.metrics, result.source, result.selection) == (RESULT.metrics, {}, {})
    back = read_predictions(result)
    np.testing.assert_array_equal(back.score, PREDICTIONS.score)
    assert back.patient.tolist() == ["", "", ""]
    assert np.isnan(back.before).all()


def test_the_split_of_a_result_lies_beside_it_once(tmp_path: Path) -> None:
    split = Split(strings(["s1", "s2", "s3"]), strings(["p1", "p2", "p2"]), strings(["validation", "test", "test"]))
    for force in (False, True):
        made = replace(RESULT, inputs={**RESULT.inputs, "split": split_digest(split)})
        write_result(made, PREDICTIONS, tmp_path, force, split)
    kept = kept_split(tmp_path, split_digest(split))
    assert [p.name for p in kept.parent.iterdir()] == [kept.name]
    assert split_digest(read_split(kept)) == split_digest(split)
    assert len(list_results(tmp_path)) == 2


def test_a_file_under_another_results_name_is_refused(tmp_path: Path) -> None:
    written = Path(write_result(RESULT, PREDICTIONS, tmp_path).path)
    other = {**RESULT.inputs, "version": "1"}
    written.rename(tmp_path / f"{result_digest(other)[:16]}.json")
    with pytest.raises(InputError, match="other inputs"):
        find_result(other, tmp_path)


@pytest.mark.parametrize("text", ["[]", "3", "null", "{}", '{"format": "embedcache-result", "version": "new"}', "{"])
def test_what_is_no_result_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"a\.json is no result of embedcache"):
        decode_result(text, "a.json")

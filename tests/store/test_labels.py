"""The label table: write, read and merge, held against plain Python."""

import hashlib
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcache.errors import InputError, NewerFormatError, StoreError
from embedcache.evaluation.label_files import labels_digest
from embedcache.store.labels import (
    DIGEST,
    LABELS,
    decode_labels,
    encode_labels,
    merge_labels,
    read_labels,
    write_labels,
)
from embedcache.types import Labels, Task, strings

EDEMA = Task("edema", "binary", ("edema",), positive="1", column="edema")
AGE = Task("age", "numeric", (), level="patient")
VIEW = Task("view", "multiclass", ("AP", "PA"))
TUMOUR = Task("tumour", "binary", ("tumour",), level="slice", positive="yes")


def labels(tasks, rows):
    """Labels of rows (task, sample, patient, slice, class, value, split)."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 7
    text = [strings(list(columns[i])) for i in (0, 1, 2, 4, 6)]
    return Labels(
        tuple(tasks), text[0], text[1], text[2], np.array(columns[3], np.int32), text[3],
        np.array(columns[5], np.float64), text[4],
    )  # fmt: skip


def rows(found):
    columns = (found.task, found.sample, found.patient, found.slice, found.klass, found.value, found.split)
    return sorted(
        tuple("missing" if isinstance(v, float) and np.isnan(v) else v for v in row)
        for row in zip(*(c.tolist() for c in columns), strict=True)
    )


BASIC = [
    ("edema", "s1", "p1", -1, "edema", 1.0, "train"),
    ("edema", "s2", "p2", -1, "edema", np.nan, "test"),
    ("age", "", "p1", -1, "", 61.5, "train"),
    ("view", "s1", "p1", -1, "PA", 1.0, "train"),
    ("tumour", "s1", "p1", 0, "tumour", 0.0, "train"),
    ("tumour", "s1", "p1", 7, "tumour", 1.0, "train"),
    ("", "s3", "p3", -1, "", np.nan, "validation"),
]


def basic():
    return labels([EDEMA, AGE, VIEW, TUMOUR], BASIC)


def test_equal_labels_have_equal_bytes_whatever_lay_in_memory_before():
    # Arrow writes memory that nothing was written to where a dictionary names a word twice, as two tasks' one level would
    first = encode_labels(basic())
    for filler in range(1, 60):
        junk = [np.full(filler * 10 + n, filler, np.uint8) for n in range(60)]
        del junk
        assert encode_labels(basic()) == first


def test_what_is_written_is_read(tmp_path):
    digest = write_labels(tmp_path, basic())
    found = read_labels(tmp_path)
    assert rows(found) == rows(basic())
    assert {t.name: t for t in found.tasks} == {t.name: t for t in basic().tasks}
    assert (tmp_path / DIGEST).read_text() == f"{digest}  {LABELS}\n"
    assert digest == hashlib.sha256((tmp_path / LABELS).read_bytes()).hexdigest()
    assert rows(read_labels(tmp_path / LABELS)) == rows(basic())


def test_columns_are_those_of_the_format(tmp_path):
    write_labels(tmp_path, basic())
    table = pq.read_table(tmp_path / LABELS)
    assert table.column_names == ["task", "level", "sample", "slice", "class", "value", "split", "patient"]
    assert table.schema.field("slice").type == pa.int32()
    assert pa.types.is_dictionary(table.schema.field("sample").type)
    assert table["slice"].null_count == 5
    assert table["value"].null_count == 2
    assert set(zip(table["task"].to_pylist(), table["level"].to_pylist(), strict=True)) == {
        ("edema", "sample"), ("age", "patient"), ("view", "sample"), ("tumour", "slice"), ("", "sample"),
    }  # fmt: skip
    described = json.loads(table.schema.metadata[b"embedcache"])
    assert (described["format"], described["version"]) == ("embedcache-labels", 1)


text = st.text(st.characters(codec="utf-8"), max_size=6)
entries = st.dictionaries(
    st.tuples(st.sampled_from(["edema", "tumour"]), text.filter(bool), st.integers(-1, 3), text),
    st.floats(allow_nan=True, allow_infinity=False),
    max_size=12,
)


@given(entries, st.randoms(use_true_random=False))
def test_bytes_depend_on_content_alone_and_read_back(entries, random):
    listed = [(t, s, "p" + s, i, c, v, "train") for (t, s, i, c), v in entries.items()]
    data = encode_labels(labels([EDEMA, TUMOUR], listed))
    assert rows(decode_labels(data)) == rows(labels([EDEMA, TUMOUR], listed))
    random.shuffle(listed)
    assert encode_labels(labels([TUMOUR, EDEMA], listed)) == data


@given(entries, entries)
def test_merge_is_that_of_a_dictionary(old, new):
    def built(entries):
        return labels([EDEMA, TUMOUR], [(t, s, "p", i, c, v, "") for (t, s, i, c), v in entries.items()])

    replaced = {(t, s) for t, s, _, _ in new}
    expected = {key: value for key, value in old.items() if key[:2] not in replaced} | new
    assert rows(merge_labels(built(old), built(new))) == rows(built(expected))


def test_the_same_again_writes_nothing(tmp_path):
    digest = write_labels(tmp_path, basic())
    before = {p.name: p.stat() for p in tmp_path.iterdir()}
    assert write_labels(tmp_path, basic()) == digest
    part = labels([EDEMA], BASIC[:1])
    assert write_labels(tmp_path, part) == digest
    assert {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in tmp_path.iterdir()} == {
        name: (s.st_ino, s.st_mtime_ns) for name, s in before.items()
    }


def test_new_rows_of_a_sample_replace_old_ones_and_others_stay(tmp_path):
    first = write_labels(tmp_path, basic())
    second = write_labels(tmp_path, labels([EDEMA], [("edema", "s1", "p9", -1, "edema", 0.0, "test")]))
    assert first != second
    found = rows(read_labels(tmp_path))
    assert ("edema", "s1", "p9", -1, "edema", 0.0, "test") in found
    assert ("edema", "s2", "p2", -1, "edema", "missing", "test") in found
    # the newest split and patient of a sample hold for all of its tasks
    assert ("view", "s1", "p9", -1, "PA", 1.0, "test") in found


def test_a_task_defined_anew_loses_its_old_rows(tmp_path):
    write_labels(tmp_path, basic())
    anew = Task("edema", "binary", ("oedema",), positive="1")
    write_labels(tmp_path, labels([anew], [("edema", "s1", "p1", -1, "oedema", 1.0, "train")]))
    found = read_labels(tmp_path)
    assert found.get("edema") == anew
    assert [r for r in rows(found) if r[0] == "edema"] == [("edema", "s1", "p1", -1, "oedema", 1.0, "train")]


def test_a_sample_that_gets_a_label_loses_its_row_without_one(tmp_path):
    write_labels(tmp_path, basic())
    write_labels(tmp_path, labels([EDEMA], [("edema", "s3", "p3", -1, "edema", 1.0, "validation")]))
    assert [r[0] for r in rows(read_labels(tmp_path)) if r[1] == "s3"] == ["edema"]


def test_a_patients_rows_are_replaced_by_patient(tmp_path):
    write_labels(tmp_path, labels([AGE], [("age", "", "p1", -1, "", 60.0, ""), ("age", "", "p2", -1, "", 50.0, "")]))
    write_labels(tmp_path, labels([AGE], [("age", "", "p1", -1, "", 61.0, "")]))
    assert [(r[2], r[5]) for r in rows(read_labels(tmp_path))] == [("p1", 61.0), ("p2", 50.0)]


def test_two_labels_for_one_thing_are_refused(tmp_path):
    with pytest.raises(InputError, match="task 'edema' has two rows for class 'edema' of sample 's1'"):
        write_labels(tmp_path, labels([EDEMA], [BASIC[0], BASIC[0]]))
    assert not (tmp_path / LABELS).exists()


def test_a_flipped_byte_is_noticed(tmp_path):
    write_labels(tmp_path, basic())
    data = bytearray((tmp_path / LABELS).read_bytes())
    data[100] ^= 1
    (tmp_path / LABELS).write_bytes(data)
    with pytest.raises(StoreError, match=r"labels.parquet of .* is not the one that labels.sha256 names") as said:
        read_labels(tmp_path)
    # a recipient who deletes it without the images has no labels any more
    assert str(said.value).index("copy both files again") < str(said.value).index("deleted")


def test_damage_without_a_digest_is_one_line(tmp_path):
    (tmp_path / LABELS).write_bytes(b"PAR1 and no more")
    with pytest.raises(StoreError, match="is damaged: it can not be read as Parquet"):
        read_labels(tmp_path)
    (tmp_path / LABELS).write_bytes(encode_labels(basic()))
    (tmp_path / DIGEST).write_text("nothing\n")
    with pytest.raises(StoreError, match=r"it names no labels\.parquet"):
        read_labels(tmp_path)


def test_no_table_another_table_and_a_newer_one_are_refused(tmp_path):
    with pytest.raises(StoreError, match=r"there is no labels.parquet in .*labels sync"):
        read_labels(tmp_path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / LABELS)
    with pytest.raises(StoreError, match="no label table of embedcache"):
        read_labels(tmp_path)
    table = pq.read_table(pa.BufferReader(encode_labels(basic())))
    later = json.dumps({"format": "embedcache-labels", "version": 2, "tasks": []}).encode()
    pq.write_table(table.replace_schema_metadata({b"embedcache": later}), tmp_path / LABELS)
    with pytest.raises(NewerFormatError, match="format version 2, this embedcache reads up to 1"):
        read_labels(tmp_path)
    none = json.dumps({"format": "embedcache-labels", "version": 1, "tasks": []}).encode()
    pq.write_table(table.replace_schema_metadata({b"embedcache": none}), tmp_path / LABELS)
    with pytest.raises(StoreError, match="rows of task 'age', which it does not define"):
        read_labels(tmp_path)
    pq.write_table(table.drop_columns(["value"]), tmp_path / LABELS)
    with pytest.raises(StoreError, match=r"column 'value' must be double\. Got None"):
        read_labels(tmp_path)


@pytest.mark.parametrize("renamed", [False, True])
def test_a_kill_between_the_two_files_leaves_a_table_that_reads(tmp_path, renamed):
    old = write_labels(tmp_path, basic())
    more = merge_labels(basic(), labels([EDEMA], [("edema", "s4", "p4", -1, "edema", 1.0, "test")]))
    new = hashlib.sha256(encode_labels(more)).hexdigest()
    (tmp_path / DIGEST).write_text(f"{new}  {LABELS}\n{old}  {LABELS}\n")
    if renamed:
        (tmp_path / LABELS).write_bytes(encode_labels(more))
    assert rows(read_labels(tmp_path)) == rows(more if renamed else basic())
    assert write_labels(tmp_path, more) == new
    assert (tmp_path / DIGEST).read_text() == f"{new}  {LABELS}\n"


def _write_own(folder: Path, k: int) -> None:
    for i in range(5):
        write_labels(folder, labels([EDEMA], [("edema", f"s{k}-{i}", f"p{k}", -1, "edema", 1.0, "train")]))


def test_processes_that_write_at_once_lose_no_row(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_own, args=(tmp_path, k)) for k in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [w.exitcode for w in writers] == [0, 0]
    assert len(rows(read_labels(tmp_path))) == 10


SEX = Task("sex", "binary", ("M",), positive="M")
NAMED = replace(SEX, negative="F")
OF_SEX = [("sex", f"s{i}", f"p{i}", -1, "M", float(i % 2), "train") for i in range(4)]


def test_the_name_of_a_zero_is_kept_beside_the_tasks(tmp_path):
    write_labels(tmp_path, labels([NAMED], OF_SEX))
    (task,) = read_labels(tmp_path).tasks
    assert (task.values, task) == (("F", "M"), SEX)
    described = json.loads(pq.read_table(tmp_path / LABELS).schema.metadata[b"embedcache"])
    assert described["negatives"] == {"sex": "F"}
    assert all("negative" not in task for task in described["tasks"])


def test_a_table_without_names_is_what_it_was_and_reads(tmp_path):
    write_labels(tmp_path, labels([SEX], OF_SEX))
    assert b"negative" not in (tmp_path / LABELS).read_bytes()
    (task,) = read_labels(tmp_path).tasks
    assert task.values == ("not M", "M")


def test_a_name_that_comes_later_takes_no_row_away_and_no_digest_along(tmp_path):
    write_labels(tmp_path, labels([SEX], OF_SEX))
    before = labels_digest(read_labels(tmp_path), SEX)
    write_labels(tmp_path, labels([NAMED], OF_SEX[:1]))
    found = read_labels(tmp_path)
    assert (rows(found), found.tasks[0].negative) == (rows(labels([SEX], OF_SEX)), "F")
    assert labels_digest(found, found.tasks[0]) == before


def test_a_name_that_is_no_text_is_damage(tmp_path):
    write_labels(tmp_path, labels([NAMED], OF_SEX))
    data = pq.read_table(tmp_path / LABELS)
    described = json.loads(data.schema.metadata[b"embedcache"]) | {"negatives": {"sex": 3}}
    (tmp_path / DIGEST).unlink()
    pq.write_table(data.replace_schema_metadata({b"embedcache": json.dumps(described)}), tmp_path / LABELS)
    with pytest.raises(StoreError, match="its task definitions can not be read"):
        read_labels(tmp_path)

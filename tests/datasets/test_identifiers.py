"""Pseudonyms: stable, under one key, and nothing natural in what they leave behind."""

import multiprocessing
import os
import stat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcache.datasets import DatasetOptions, open_dataset
from embedcache.datasets.identifiers import Key, assign_ids, export_key, import_key, load_key
from embedcache.errors import InputError
from embedcache.store.labels import write_labels
from embedcache.types import DatasetInfo, strings

text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
keys = st.binary(min_size=32, max_size=32).map(Key)


@given(keys, text, text)
def test_a_pseudonym_is_stable_and_says_nothing(key, dataset, natural):
    first = key.pseudonym("sample", dataset, natural)
    assert first == key.pseudonym("sample", dataset, natural)
    assert len(first) == 32
    assert set(first) <= set("0123456789abcdef")
    assert first != key.pseudonym("patient", dataset, natural)
    assert key.pseudonyms("sample", dataset, strings([natural, natural])).tolist() == [first, first]


@given(st.lists(st.tuples(keys, text, text), min_size=2, max_size=6, unique=True))
def test_another_key_dataset_or_id_is_another_pseudonym(cases):
    found = {key.pseudonym("sample", dataset, natural) for key, dataset, natural in cases}
    assert len(found) == len(cases)


def test_dataset_and_id_can_not_be_shifted_into_each_other():
    key = Key(bytes(32))
    assert key.pseudonym("sample", "a\0", "b") != key.pseudonym("sample", "a", "\0b")
    assert key.pseudonym("sample", "ab", "c") != key.pseudonym("sample", "a", "bc")


def test_a_pseudonym_is_what_it_was():
    # in stores for ever: this value must never change
    assert Key(bytes(range(32))).pseudonym("sample", "cases", "a/1.png") == "052e2713e6ba62d2ba8324969d158d15"
    assert Key(bytes(range(32))).id == "cf82a3f794e8d57d"


def test_the_secret_is_never_shown():
    key = Key(bytes(range(32)))
    assert key.secret.hex() not in repr(key)
    assert "secret" not in repr(key)


def test_the_key_is_made_once_and_private(home):
    key = load_key()
    assert load_key() == key
    assert load_key(create=False) == key
    assert stat.S_IMODE(os.stat(home / "ids.key").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(home).st_mode) == 0o700


def test_without_a_key_nothing_is_made_unless_asked_for(home):
    with pytest.raises(InputError, match="there is no key of pseudonyms on this machine yet"):
        load_key(create=False)
    assert not home.exists()


def _first_key(start, answers):
    start.wait()
    answers.put(load_key().id)


def test_two_processes_that_need_the_first_key_at_once_get_the_same():
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_first_key, args=(start, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    found = {answers.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert found == {load_key(create=False).id}


def test_a_key_travels(home, tmp_path, monkeypatch):
    key = load_key()
    assert export_key(tmp_path / "carried.key") == key
    assert stat.S_IMODE(os.stat(tmp_path / "carried.key").st_mode) == 0o600
    monkeypatch.setenv("EMBEDCACHE_HOME", str(tmp_path / "other"))
    assert import_key(tmp_path / "carried.key") == key
    assert load_key(create=False) == key
    assert import_key(tmp_path / "carried.key") == key


def test_another_key_is_refused_by_name_unless_it_is_to_replace(home, tmp_path, monkeypatch):
    old = load_key()
    export_key(tmp_path / "old.key")
    monkeypatch.setenv("EMBEDCACHE_HOME", str(tmp_path / "other"))
    new = load_key()
    with pytest.raises(InputError, match=f"another key of pseudonyms, {new.id}, and old.key holds {old.id}"):
        import_key(tmp_path / "old.key")
    assert load_key() == new
    assert import_key(tmp_path / "old.key", replace=True) == old
    assert load_key() == old
    # the replaced one is kept, and can come back
    assert import_key(tmp_path / "other" / f"ids-{new.id}.key", replace=True) == new


def test_bad_key_files_are_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="there is no key of pseudonyms"):
        export_key(tmp_path / "x.key")
    load_key()
    (tmp_path / "x.key").write_text("precious")
    with pytest.raises(InputError, match=r"x\.key exists, and a key is never written over a file"):
        export_key(tmp_path / "x.key")
    with pytest.raises(InputError, match="there is no folder gone to write"):
        export_key(tmp_path / "gone" / "x.key")
    with pytest.raises(InputError, match=r"x\.key is no key of pseudonyms"):
        import_key(tmp_path / "x.key")
    with pytest.raises(InputError, match=r"there is no key file y\.key"):
        import_key(tmp_path / "y.key")
    export_key(tmp_path / "z.key")
    content = (tmp_path / "z.key").read_text()
    digit = content.splitlines()[1][0]
    (tmp_path / "z.key").write_text(content.replace(f"1\n{digit}", f"1\n{'1' if digit != '1' else '2'}", 1))
    with pytest.raises(InputError, match=r"z\.key is damaged: its checksum does not fit"):
        import_key(tmp_path / "z.key")
    (tmp_path / "z.key").write_bytes(b"\xff\x00")
    with pytest.raises(InputError, match=r"z\.key is no key of pseudonyms"):
        import_key(tmp_path / "z.key")


# --- samples and labels under their pseudonyms -------------------------------------------------------

ROWS = [
    {"path": f"scans/{name}_{i}.png", "patient": name, "split": split, "edema": i % 2, "age": 40 + i}
    for i, (name, split) in enumerate([("Miller", "train"), ("Miller", "train"), ("Baker", "test"), ("Fuller", "test")])
]


def test_rows_follow_their_pseudonyms_and_labels_go_along(table):
    dataset = open_dataset(
        "table", str(table(ROWS)), DatasetOptions(level="patient", tasks=("edema=binary", "age=numeric"))
    )
    dataset = open_dataset("table", str(table(ROWS)))
    before, labels = dataset.samples(), dataset.labels()
    key = load_key()
    after, mapped, natural = assign_ids(dataset.info, before, labels, keep=False, key=key)
    assert after.id.tolist() == sorted(after.id.tolist())
    of_natural = dict(zip(natural.tolist(), range(4), strict=True))
    for i in range(4):
        j = of_natural[str(before.id[i])]
        assert after.id[j] == key.pseudonym("sample", "cases", str(before.id[i]))
        assert after.patient_id[j] == key.pseudonym("patient", "cases", str(before.patient_id[i]))
        assert (after.path[j], after.split[j], after.where(j)) == (before.path[i], before.split[i], before.where(i))
    assert set(mapped.sample.tolist()) == set(after.id.tolist())
    assert mapped.sample.tolist() == [key.pseudonym("sample", "cases", s) for s in labels.sample.tolist()]
    np.testing.assert_array_equal(mapped.value, labels.value)


def test_rows_of_a_patient_level_task_stay_without_a_sample(table):
    rows = [{**row, "edema": int(row["patient"] == "Miller")} for row in ROWS]
    dataset = open_dataset("table", str(table(rows)), DatasetOptions(level="patient", tasks=("edema=binary",)))
    _, mapped, _ = assign_ids(dataset.info, dataset.samples(), dataset.labels(), keep=False, key=load_key())
    assert set(mapped.sample[mapped.task == "edema"].tolist()) == {""}


def test_nothing_natural_is_in_the_label_table(table, tmp_path):
    dataset = open_dataset("table", str(table(ROWS)))
    samples, labels, _ = assign_ids(dataset.info, dataset.samples(), dataset.labels(), keep=False, key=load_key())
    write_labels(tmp_path / "cache", labels)
    content = b"".join(file.read_bytes() for file in (tmp_path / "cache").iterdir())
    assert bytes(str(samples.id[0]), "ascii") in content  # so a natural id would be seen, were it there
    for word in (b"Miller", b"Baker", b"Fuller", b"scans", b".png", str(tmp_path).encode()):
        assert word not in content


def test_public_ids_and_kept_ids_stay(table):
    dataset = open_dataset("table", str(table(ROWS)))
    samples, labels = dataset.samples(), dataset.labels()
    for info, keep in ((dataset.info, True), (DatasetInfo("d", public_ids=True), False)):
        same, same_labels, natural = assign_ids(info, samples, labels, keep, None)
        assert same is samples
        assert same_labels is labels
        assert natural.tolist() == samples.id.tolist()
    with pytest.raises(
        InputError, match="dataset cases needs a key for its pseudonyms; or keep its ids with --ids keep"
    ):
        assign_ids(dataset.info, samples, labels, keep=False, key=None)

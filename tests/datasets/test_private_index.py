"""The private index: which file is behind an id, kept apart from the cache."""

import multiprocessing
import os
import stat
from dataclasses import replace

import numpy as np
import pytest

from embedcache.datasets.index import IndexRow, PrivateIndex
from embedcache.errors import StoreError
from embedcache.types import Samples, strings

A = IndexRow("a", "/scans/a.png", 10, 1_700_000_000_000_000_001, "", 1)
B = IndexRow("b", "/scans/b", 2**40, 5, "d1", 30)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "cases"


def files(home):
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in home.rglob("*") if p.is_file()}


def test_what_was_saved_is_found_again(folder, home):
    index = PrivateIndex.open(folder)
    assert index.get("a") is None
    index.put([B, A])
    assert index.get("a") == A
    index.save()
    again = PrivateIndex.open(folder)
    assert (again.get("a"), again.get("b"), again.get("c"), len(again)) == (A, B, None, 2)
    assert not folder.exists()  # nothing of it in the cache


def test_it_is_private(folder, home):
    index = PrivateIndex.open(folder)
    index.put([A])
    index.save()
    index.note_digest("a", 1, 2, "d")
    for path in home.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path.name


def test_opening_and_saving_nothing_write_nothing(folder, home):
    PrivateIndex.open(folder).save()
    assert not home.exists()
    index = PrivateIndex.open(folder)
    index.put([A])
    index.save()
    before = files(home)
    index.save()
    again = PrivateIndex.open(folder)
    again.put([A])
    again.save()
    assert files(home) == before


def test_many_are_looked_up_at_once(folder):
    index = PrivateIndex.open(folder)
    index.put([A])
    index.save()
    index.put([B])
    found = index.lookup(strings(["b", "nobody", "a"]))
    assert found["found"].tolist() == [True, False, True]
    assert found["path"].tolist() == ["/scans/b", "", "/scans/a.png"]
    assert found["size"].tolist() == [2**40, -1, 10]
    assert found["mtime_ns"].tolist() == [5, -1, 1_700_000_000_000_000_001]
    assert found["digest"].tolist() == ["d1", "", ""]
    assert found["slices"].tolist() == [30, -1, 1]


def test_digests_are_kept_before_the_index_is_saved(folder):
    index = PrivateIndex.open(folder)
    index.put([A, B])
    index.save()
    index.note_digest("a", 11, 12, "d2")
    noted = replace(A, size=11, mtime_ns=12, digest="d2")
    assert index.get("a") == noted
    assert PrivateIndex.open(folder).get("a") == A  # as after a kill before a shard was whole
    index.settle()
    assert PrivateIndex.open(folder).get("a") == noted  # and behind its commit
    index.save()
    assert PrivateIndex.open(folder).get("a") == noted


def test_half_a_line_of_a_killed_process_costs_that_line_only(folder, home):
    index = PrivateIndex.open(folder)
    index.put([A, B])
    index.save()
    index.note_digest("a", 11, 12, "d2")
    index.settle()
    (journal,) = home.rglob("*.jsonl")
    with open(journal, "a") as file:
        file.write('{"id": "b", "si')
    other = PrivateIndex.open(folder)
    other.note_digest("b", 13, 14, "d3")
    other.settle()
    again = PrivateIndex.open(folder)
    assert (again.get("a").digest, again.get("b").digest) == ("d2", "d3")


def test_a_short_write_leaves_no_half_line(folder, monkeypatch):
    index = PrivateIndex.open(folder)
    index.put([A])
    index.save()
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, data[:5]))
        index.note_digest("a", 7, 8, "f" * 64)
        index.settle()
    assert PrivateIndex.open(folder).get("a").digest == "f" * 64


def test_the_journal_is_emptied_by_saving(folder, home):
    index = PrivateIndex.open(folder)
    index.put([A])
    index.save()
    index.note_digest("a", 11, 12, "d2")
    index.save()
    (journal,) = home.rglob("*.jsonl")
    assert journal.stat().st_size == 0


def _put_own(folder, k):
    for i in range(5):
        index = PrivateIndex.open(folder)
        index.put([IndexRow(f"{k}-{i}", "/x", 1, 1, "", 1)])
        index.save()
        index.note_digest(f"{k}-{i}", 1, 1, "d")
        index.settle()


def test_two_processes_lose_no_row_and_no_digest(folder):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_put_own, args=(folder, k)) for k in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0, 0]
    index = PrivateIndex.open(folder)
    assert len(index) == 10
    assert {index.get(f"{k}-{i}").digest for k in range(2) for i in range(5)} == {"d"}


def test_an_id_of_any_signs_and_many_notes_at_once(folder, home):
    index = PrivateIndex.open(folder)
    names = ['a "quoted"\n\\ \u00e9\U0001f600', *(f"s{i}" for i in range(100))]
    index.put([replace(A, id=name) for name in names])
    index.save()
    for i, name in enumerate(names):
        index.note_digest(name, i, i, f"d{i}")
    index.settle()
    (journal,) = home.rglob("*.jsonl")
    assert len(journal.read_text().splitlines()) == 101
    assert [PrivateIndex.open(folder).get(name).digest for name in names[:3]] == ["d0", "d1", "d2"]


def test_two_folders_have_two_indexes(folder, tmp_path):
    index = PrivateIndex.open(folder)
    index.put([A])
    index.save()
    assert PrivateIndex.open(tmp_path / "cache" / "others").get("a") is None
    assert PrivateIndex.open(folder / ".." / "cases").get("a") == A


def test_changed_redated_and_vanished_sources_are_suspects(folder, tmp_path, png):
    paths = [png(tmp_path / f"{i}.png") for i in range(5)]
    names = strings([str(i) for i in range(5)])
    samples = Samples(names, names, strings([str(p) for p in paths]), strings([""] * 5), np.arange(5), "cases.csv")
    index = PrivateIndex.open(folder)
    rows = [IndexRow(str(i), str(p), p.stat().st_size, p.stat().st_mtime_ns, "", 1) for i, p in enumerate(paths)]
    index.put(rows[:4])  # the last is not in the index, so nothing about it can be suspected
    assert index.suspects(samples).tolist() == []
    os.utime(paths[0], ns=(5, 5))
    paths[1].write_bytes(paths[1].read_bytes() + b"x")
    paths[3].unlink()
    paths[4].unlink()
    assert index.suspects(samples).tolist() == [0, 1, 3]


def test_a_damaged_index_is_one_clear_line(folder, home):
    index = PrivateIndex.open(folder)
    index.put([A])
    index.save()
    (file,) = home.rglob("*.parquet")
    file.write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"the private index .* is damaged; delete it, and the next extraction"):
        PrivateIndex.open(folder)

"""Parquet is read by the thread that asks: another that lets go of Python's memory while Python ends aborts the process."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedcache.evaluation.predictions import Predictions, encode_predictions
from embedcache.store.parquet import read_parquet
from embedcache.types import strings

READS = """
import os, sys
from pathlib import Path
from embedcache.store.parquet import read_parquet
before = len(os.listdir("/proc/self/task"))
for source in (Path(sys.argv[1]), Path(sys.argv[1]).read_bytes()):
    assert read_parquet(source).num_rows == 600
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    columns = {f"c{i}": [f"{i} {j % 7}" for j in range(600)] for i in range(20)}
    pq.write_table(pa.table(columns), tmp_path / "table.parquet", row_group_size=50)
    return tmp_path / "table.parquet"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted where Linux lists them")
def test_no_thread_is_started(table: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", READS, str(table)], capture_output=True, text=True, check=True)
    assert ended.stdout == "0\n"


def test_a_file_and_its_bytes_are_one_table(table: Path) -> None:
    assert read_parquet(table).equals(pq.ParquetFile(table).read())
    assert read_parquet(table.read_bytes()).equals(read_parquet(table))


def predictions() -> Predictions:
    """Samples and patients that come again, as of slices."""
    n = 40
    score = np.random.default_rng(0).normal(size=(n, 3))
    score[::7] = np.nan
    samples, patients = ([f"{what}{i // each}" for i in range(n)] for what, each in (("s", 2), ("p", 5)))
    parts = ["validation"] * 15 + ["test"] * 25
    index = np.arange(n, dtype=np.int32) % 2
    columns = strings(samples), index, strings(parts), ("a", "b", "c")
    return Predictions(*columns, (score > 0) * 1.0, score, strings(patients), score + 1)


def test_equal_predictions_have_equal_bytes_whatever_lay_in_memory_before() -> None:
    first = encode_predictions(predictions())
    for filler in range(1, 60):
        junk = [np.full(filler * 10 + n, filler, np.uint8) for n in range(60)]
        del junk
        assert encode_predictions(predictions()) == first


def test_predictions_are_plain_columns_a_row_per_prediction_and_class() -> None:
    given = predictions()
    found = pq.read_table(io.BytesIO(encode_predictions(given)), use_threads=False)
    assert {str(found.schema.field(name).type) for name in ("sample", "patient", "part", "class")} == {"string"}
    assert found["sample"].to_pylist() == np.repeat(given.sample, 3).tolist()
    assert found["patient"].to_pylist() == np.repeat(given.patient, 3).tolist()
    assert found["part"].to_pylist() == np.repeat(given.part, 3).tolist()
    assert found["slice"].to_pylist() == np.repeat(given.slice, 3).tolist()
    assert found["class"].to_pylist() == ["a", "b", "c"] * 40
    assert found["score"].null_count == int(np.isnan(given.score).sum())

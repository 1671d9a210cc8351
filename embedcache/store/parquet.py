"""Parquet files as tables, read by the thread that asks."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def read_parquet(source: Path | bytes) -> pa.Table:
    """The table in a file, or in the bytes of one. Raises pyarrow's errors and OSError.

    A thread of Arrow's that lets go of Python's memory while the interpreter ends takes the whole process down (`terminate called
    without an active exception`; apache/arrow issue 34314), so there is none; a million labels take 25 ms longer. `pq.read_table`
    would import pandas, where there is one.
    """
    file = pq.ParquetFile(pa.BufferReader(source) if isinstance(source, bytes) else source, pre_buffer=False)
    return file.read(use_threads=False)

"""Scores of single rows, in Parquet beside a result: what figures, comparisons and subgroups are made from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedcache.errors import InputError
from embedcache.probes.base import Matrix
from embedcache.store.parquet import read_parquet
from embedcache.store.texts import factorise, from_nullable, to_arrow, to_numbers
from embedcache.types import IntArray, Result, StringArray, strings


@dataclass(frozen=True)
class Predictions:
    """Scores per row and class. Validation rows are scored by the model before refitting, test rows by the one after."""

    sample: StringArray
    """(n,): store ids."""
    slice: npt.NDArray[np.int32]
    """(n,): slice index, -1 where slices were pooled."""
    part: StringArray
    """(n,): `validation` or `test`."""
    classes: tuple[str, ...]
    label: Matrix
    """(n, n_classes) of 0, 1 and NaN for missing; one-hot for multiclass; (n, 1) values for a numeric task."""
    score: Matrix
    """(n, n_classes), NaN for a label that could not be fitted."""
    patient: StringArray
    """(n,): store ids of patients; "" in predictions of a result of version 1."""
    before: Matrix
    """(n, n_classes): test rows' scores by the model before refitting, which a threshold from validation belongs to."""

    def take(self, mask: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "Predictions":
        """The rows of a mask, or at these places."""
        return Predictions(
            self.sample[mask],
            self.slice[mask],
            self.part[mask],
            self.classes,
            self.label[mask],
            self.score[mask],
            self.patient[mask],
            self.before[mask],
        )

    def of(self, part: str) -> "Predictions":
        """The rows of `validation` or of `test`."""
        return self.take(np.asarray(self.part == part))


def read_predictions(result: Result) -> Predictions:
    """The predictions beside a result that was written or read."""
    path = Path(result.path).with_suffix(".parquet")
    if not result.path or not path.exists():
        raise InputError(
            f"there are no predictions beside {Path(result.path).name or 'this result'}; run it with --force."
        )
    table = read_parquet(path)
    classes = tuple(dict.fromkeys(table["class"].to_pylist()))
    shape = (-1, len(classes))
    rows = table.take(np.arange(0, len(table), len(classes)))

    def matrix(column: str) -> Matrix:
        if column not in table.column_names:
            return np.full((len(rows), len(classes)), np.nan)
        result: Matrix = from_nullable(table[column], np.nan).reshape(shape)
        return result

    return Predictions(
        strings(rows["sample"].to_pylist()),
        from_nullable(rows["slice"], -1).astype(np.int32),
        strings(rows["part"].to_pylist()),
        classes,
        matrix("label"),
        matrix("score"),
        strings(rows["patient"].to_pylist() if "patient" in table.column_names else [""] * len(rows)),
        matrix("before"),
    )


def encode_predictions(predictions: Predictions) -> bytes:
    """Long rows: one per prediction and class, in order."""
    n, wide = predictions.score.shape
    each, each_class = np.repeat(np.arange(n), wide), np.tile(np.arange(wide), n)

    def text(values: StringArray, rows: IntArray) -> pa.Array:
        # as Parquet has it too; each word once, for of one that comes twice Arrow writes memory that nothing was written to
        words, codes = factorise(strings(values))
        return pa.DictionaryArray.from_arrays(to_numbers(codes[rows], pa.int32()), to_arrow(words).cast(pa.string()))

    def numbers(values: Matrix) -> pa.Array:
        flat = values.ravel()
        return to_numbers(flat, pa.float64(), np.isnan(flat))

    table = pa.table(
        {
            "sample": text(predictions.sample, each),
            "patient": text(predictions.patient, each),
            "slice": to_numbers(predictions.slice[each], pa.int32()),
            "part": text(predictions.part, each),
            "class": text(strings(predictions.classes), each_class),
            "label": numbers(predictions.label),
            "score": numbers(predictions.score),
            "before": numbers(predictions.before),
        }
    )
    sink = pa.BufferOutputStream()
    repeated = [name for name in table.column_names if name not in ("score", "before")]
    # store_schema: whoever reads it gets plain columns of texts
    pq.write_table(table, sink, compression="zstd", use_dictionary=repeated, store_schema=False)
    data: bytes = sink.getvalue().to_pybytes()
    return data

"""A store and its labels read without embedcache, into scikit-learn: `python read_labels.py STORE TASK`.

Shows which rows a sample owns, and the Parquet file of labels two folders above a store. Prints the shape of X, one row per
sample (the mean of its slices), and AUROC in three folds by patient.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import zarr
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score


def read_samples(store: str, array: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples that have a good row: the mean of those (n, d), ids (n,) and patients (n,)."""
    root = zarr.open_group(store, mode="r")
    good = np.flatnonzero(root["row_status"][:] == 1)
    owner = np.searchsorted(root["slice_start"][:], good, side="right") - 1  # samples own rows one after the other
    sample, first, count = np.unique(owner, return_index=True, return_counts=True)
    X = np.add.reduceat(root[array][:][good].astype(np.float32), first) / count[:, None].astype(np.float32)
    ids, patients = (np.array(root[name][:][sample].tolist()) for name in ("sample_id", "patient_id"))
    return X, ids, patients


def read_task(store: str, task: str, ids: np.ndarray) -> np.ndarray:
    """0, 1 or NaN for each of the samples, of a binary task at their level."""
    rows = pq.read_table(Path(store).resolve().parents[1] / "labels.parquet").to_pylist()
    value = {row["sample"]: row["value"] for row in rows if row["task"] == task}
    return np.array([value.get(name) for name in ids.tolist()], dtype=float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", help="a .zarr store with its labels beside it")
    parser.add_argument("task", help="a binary task at the level of samples")
    parser.add_argument("--array", default="layer_12/cls_token", help="`ls STORE` shows the layers")
    arguments = parser.parse_args()

    X, ids, patients = read_samples(arguments.store, arguments.array)
    y = read_task(arguments.store, arguments.task, ids)
    known, head = ~np.isnan(y), LogisticRegression(C=0.01, max_iter=1000)
    folds = {"groups": patients[known], "cv": StratifiedGroupKFold(3), "scoring": "roc_auc"}
    print(X[known].shape, "AUROC", *cross_val_score(head, X[known], y[known], **folds).round(3))


if __name__ == "__main__":
    main()

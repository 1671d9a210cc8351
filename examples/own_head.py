"""Any scikit-learn estimator on a cache, cross-validated by patient: `python own_head.py STORE TASK`.

Shows `X, y, groups` of a store, which every estimator takes. Prints AUROC in three folds.
"""

import argparse

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from embedcache import FeatureCache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", help="a .zarr store with its labels beside it")
    parser.add_argument("task", help="a binary task of the labels")
    arguments = parser.parse_args()

    X, y, groups = FeatureCache.open(arguments.store).features("cls+mean", task=arguments.task)
    known = ~np.isnan(y)
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    scores = cross_val_score(
        head, X[known], y[known], groups=groups[known], cv=StratifiedGroupKFold(3), scoring="roc_auc"
    )
    print(f"AUROC in {len(scores)} folds by patient: {', '.join(f'{s:.3f}' for s in scores)}")


if __name__ == "__main__":
    main()

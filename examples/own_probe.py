"""A probe of your own, written by hand in numpy: `python own_probe.py STORE TASK`.

Shows what a probe is: options, and a fit for all values of one. Prints that it keeps its promises, the choice, and test AUROC.
"""

import argparse
from dataclasses import dataclass, replace

import numpy as np

import embedcache
from embedcache.testing import check_probe, plugged_in


@dataclass(frozen=True)
class FittedMeans:
    values: tuple[float, ...]
    model: np.ndarray  # (n_values, d + 1, n_classes): slopes, an intercept; NaN for a label that could not be fitted
    threshold, score_name, diagnostics = 0.0, "closeness", embedcache.Diagnostics()

    def scores(self, X):
        return np.column_stack([X, np.ones(len(X))]) @ self.model

    def only(self, value):
        return replace(self, values=(value,), model=self.model[[self.values.index(value)]])


@dataclass(frozen=True)
class Means:
    share: tuple[float, ...] = (0.9, 0.5, 0.1)  # of the largest difference of means: features with less are left out
    parameter, answers, standardize = "share", ("binary", "multilabel"), True

    def grid(self, n_train):
        return self.share  # the smoothest first: it wins a tie

    def fit_path(self, X, y, kind, values, n_classes, groups=None):
        model = np.full((len(values), X.shape[1] + 1, n_classes), np.nan)
        for k, label in enumerate(embedcache.label_matrix(y, kind, n_classes).T):
            if {0, 1} <= set(label):  # a row whose label is missing, NaN, is in neither mean
                means = np.stack([X[label == v].mean(axis=0, dtype=np.float64) for v in (0, 1)])
                apart, middle = means[1] - means[0], means.mean(axis=0)
                slopes = [apart * (abs(apart) >= share * abs(apart).max()) for share in values]
                model[..., k] = [[*slope, -slope @ middle] for slope in slopes]
        return FittedMeans(values, model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", help="a .zarr store with its labels beside it")
    parser.add_argument("task", nargs="?", help="binary or multilabel; by default the only one")
    arguments = parser.parse_args()
    with plugged_in(__file__, probes={"means": "Means"}):
        check_probe("means")
        found = embedcache.probe(embedcache.ProbeConfig("means", arguments.store, arguments.task))
        print(f"means keeps them; share {found.chosen['share']}: AUROC {found.metric('auroc').value}")


if __name__ == "__main__":
    main()

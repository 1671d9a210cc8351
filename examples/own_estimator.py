"""A scikit-learn estimator as a probe: `python own_estimator.py STORE TASK`.

Shows `estimator_probe`: validation chooses one parameter, the choice is refitted and tested once. Prints that it holds to what
every probe promises, what was chosen, and AUROC on the test part with a 95% interval over patients.
"""

import argparse

from sklearn.svm import SVC

import embedcache
from embedcache.testing import check_probe, plugged_in

Curved = embedcache.estimator_probe(SVC, parameter="C", grid=(0.1, 1.0, 10.0), kernel="rbf")


def told(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", help="a .zarr store with its labels beside it")
    parser.add_argument("task", nargs="?", help="a binary, multilabel or multiclass task; by default the only one")
    arguments = parser.parse_args()

    with plugged_in(__file__, probes={"curved": "Curved"}):
        check_probe("curved")
        print("curved holds to what every probe promises")
        result = embedcache.probe(embedcache.ProbeConfig("curved", arguments.store, arguments.task))
        auroc = result.metric("auroc")
        interval = f"{told(auroc.low)} to {told(auroc.high)}"
        print(f"C {result.chosen['C']}: AUROC {told(auroc.value)} ({interval}), {auroc.patients} patients")


if __name__ == "__main__":
    main()

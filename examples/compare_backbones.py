"""Is one backbone better than another, or is it chance? `python compare_backbones.py cases.csv TASK BACKBONE BACKBONE...`.

Shows one reading of the images for all backbones, the same probe on each store, and a paired test on the same test patients.
Prints AUROC of each, then for each pair the difference, its 95% interval and p (of several pairs after Holm's correction).
"""

import argparse
from itertools import combinations

import embedcache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="CSV or Parquet with a path per row, and patient and label columns")
    parser.add_argument("task", help="a label column")
    parser.add_argument("backbones", nargs="+", metavar="BACKBONE", help="two or more hub names or local folders")
    parser.add_argument("--probe", default="logistic", help="see `embedcache probe run --help`")
    parser.add_argument("--seed", type=int, default=0, help="of the split that is drawn where the table has none")
    parser.add_argument("--cache", default="cache")
    arguments = parser.parse_args()

    report = embedcache.extract(
        embedcache.ExtractConfig("table", arguments.table, tuple(arguments.backbones), cache=arguments.cache)
    )
    print(f"{report.decoded} slices decoded for {len(report.stores)} stores")
    results = [
        embedcache.probe(embedcache.ProbeConfig(arguments.probe, store.path, arguments.task, seed=arguments.seed))
        for store in report.stores
    ]
    compared = embedcache.compare_results([result.path for result in results], metrics=["auroc"])
    column = compared.column("auroc")  # of several classes the macro average
    for name, value in zip(compared.names, column.values, strict=True):
        print(f"{name}: AUROC {value:.3f} on {compared.rows} test samples of {compared.patients} patients")
    for (a, b), pair, p in zip(combinations(compared.names, 2), column.pairs, column.adjusted, strict=True):
        between = "no interval" if pair.low is None else f"{pair.low:+.3f} to {pair.high:+.3f}"
        print(f"{a} - {b}: {pair.difference:+.3f} ({between}), p {p} by {pair.method}. {pair.note}")


if __name__ == "__main__":
    main()

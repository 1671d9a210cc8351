"""A table of one's own, from files to a score with an interval: `python own_table.py cases.csv BACKBONE TASK`.

Shows an extraction and two probes. Prints the store and how many slices were decoded for it (none, the second time), then per
probe AUROC on the test part with a 95% interval over patients.
"""

import argparse

import embedcache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="CSV or Parquet with a path per row, and patient, split and label columns")
    parser.add_argument("backbone", help="hub name or local folder")
    parser.add_argument("task", help="a label column")
    parser.add_argument("--cache", default="cache")
    arguments = parser.parse_args()

    report = embedcache.extract(
        embedcache.ExtractConfig(
            dataset="table", root=arguments.table, backbones=(arguments.backbone,), cache=arguments.cache
        )
    )
    (store,) = report.stores
    print(f"{store.path}: {store.slices - store.quarantined} slices, {report.decoded} of them decoded now")

    for probe in ("knn", "logistic"):
        result = embedcache.probe(embedcache.ProbeConfig(probe=probe, store=store.path, task=arguments.task))
        auroc = result.metric("auroc")
        print(f"{probe}: AUROC {auroc.value} ({auroc.low} to {auroc.high}), {auroc.patients} patients. {auroc.note}")


if __name__ == "__main__":
    main()

"""A dataset of your own: `python own_dataset.py FOLDER`, which holds cases.json and the images that it names.

Shows the one function that a dataset is, here of an annotation tool's export: `[{"image": "a.png", "patient": "P1", "findings":
["mass"]}, …]`. Prints that it holds to what every dataset promises, what it found, and with --backbone the store that it made.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import embedcache
from embedcache import Adapter, Dataset, DatasetInfo, DatasetOptions, InputError, OwnTask, Samples, Task, strings
from embedcache.testing import check_dataset, plugged_in

INFO = DatasetInfo("own", homepage="cases.json of an annotation tool")


def list_cases(root: Path, options: DatasetOptions) -> Dataset:
    """The cases in the order of the file. Raises InputError where there is none."""
    options.only(INFO.name, "name")
    if not (file := root / "cases.json").is_file():
        raise InputError(f"{root.name} holds no cases.json; --root is the folder that the tool exports to.")
    cases = json.loads(file.read_text())
    classes = tuple(sorted({finding for case in cases for finding in case["findings"]}))
    samples = Samples(
        id=strings([case["image"] for case in cases]),
        patient_id=strings([case["patient"] for case in cases]),
        path=strings([str(root / case["image"]) for case in cases]),
        split=strings([""] * len(cases)),  # none of its own: one is drawn, by patient
        row=np.arange(1, len(cases) + 1),
        listing="cases.json",
    )
    said = np.array([[float(name in case["findings"]) for name in classes] for case in cases])
    findings = OwnTask(Task("findings", "multilabel", classes), said)
    return embedcache.published_dataset(INFO, None, options, samples, [findings], columns={})


own = Adapter(INFO, list_cases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="the folder of cases.json")
    parser.add_argument("--backbone", help="hub name or local folder: extract with it")
    parser.add_argument("--cache", default="cache")
    arguments = parser.parse_args()
    with plugged_in(__file__, datasets={"own": "own"}):
        check_dataset(own, arguments.root)
        labels = embedcache.open_dataset("own", arguments.root).labels()
        print(f"own holds to what every dataset promises; its findings are {', '.join(labels.tasks[0].classes)}")
        if arguments.backbone:
            asked = embedcache.ExtractConfig("own", arguments.root, (arguments.backbone,), cache=arguments.cache)
            print(embedcache.FeatureCache.open(embedcache.extract(asked).stores[0].path))


if __name__ == "__main__":
    main()

"""Does a probe find what is not there? Patients' blocks of labels are dealt to other patients, 200 times.

`nih_128` (2,911 radiographs of 780 patients), tokens of the trained ViT-S/14 from the cache that `nih128.py` made. In each
permutation every patient gets the labels of another one: as many images as that patient has, cycled through if the new
owner has more. So the labels of a patient stay together, and say nothing of the images. The whole job then runs: the
split, the choice on validation, the refit, the test. Of 200 intervals of Effusion's AUROC at 95% some 10 exclude .5 if
they are what they say; fewer than 3 or more than 19 do so by chance with a probability of about .4%. A few-shot curve is
fitted to the first 20: 20 draws of 4 patients each, of which the interval over test patients is looked at (0 to 4 exclude .5).

tried: permutations, over all probes; held: those whose interval holds .5. `--quick`: 40 permutations, for which 0 to 7
exclude it.
"""

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import ROOT, finish
from nih128 import find_stores

from embedcache.evaluation.few_shot import FewShotConfig, few_shot
from embedcache.evaluation.probe import ProbeConfig, answer
from embedcache.evaluation.question import ask
from embedcache.store.labels import write_labels
from embedcache.types import Labels

FINDING = "Effusion"
PROBES = {
    "logistic": ProbeConfig("logistic", Path(), features="cls+mean"),
    "knn": ProbeConfig("knn", Path(), features="cls+mean"),
    "knn, votes by ML-kNN": ProbeConfig("knn", Path(), features="cls+mean", options={"votes": "ml-knn"}),
    "knn, k by leave-patient-out": ProbeConfig("knn", Path(), features="cls+mean", select="leave-patient-out"),
    "linear, 8 heads": ProbeConfig("linear", Path()),
}
BACKBONE = "trained-vit-s14"
SHOTS, FEW, MOST_OF_FEW = 4, 20, 4
"""Five or more of 20 exclude it by chance with a probability of .3%."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 permutations")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument(
        "--work", default=str(ROOT / ".benchmark-cache" / "nih128"), help="where nih128.py left its cache"
    )
    options = parser.parse_args()
    n = 40 if options.quick else options.n
    work = Path(options.work)
    os.environ["EMBEDCACHE_HOME"] = str(work / "home")
    stores = find_stores(work / "cache")
    if BACKBONE not in stores:
        raise SystemExit(
            f"there is no finished store of {BACKBONE} in {work / 'cache'}; run benchmarks/nih128.py first."
        )
    store = Path(stores[BACKBONE].path)
    excluded = {name: excluding(replace(config, store=store), n, name) for name, config in PROBES.items()}
    low, high = (3, 19) if n == 200 else (0, round(0.05 * n + 3.5 * np.sqrt(0.0475 * n)))
    few_shot = few_shot_excluding(store)
    checks = {f"{name}: {low} to {high}": low <= count <= high for name, count in excluded.items()}
    checks[f"few-shot of {SHOTS} patients: at most {MOST_OF_FEW} of {FEW}"] = few_shot <= MOST_OF_FEW
    excluded["few-shot"] = few_shot
    tried = n * len(PROBES) + FEW
    finish(
        "permutations",
        checks,
        tried=tried,
        held=tried - sum(excluded.values()),
        ratio=1 - sum(excluded.values()) / tried,
        excluded=excluded,
        permutations=n,
    )


def excluding(config: ProbeConfig, n: int, name: str) -> int:
    """In how many of `n` permutations the interval excludes one half."""
    config = replace(config, classes=(FINDING,), resamples=20)  # AUROC's interval is not drawn, so few resamples do
    question = ask(config)
    count = 0
    for seed in range(n):
        dealt = replace(question, labels=deal(question.labels, question.task.name, np.random.default_rng(seed)))
        found = answer(dealt, config).result.metric("auroc", FINDING)
        assert found.low is not None
        assert found.high is not None
        count += not found.low <= 0.5 <= found.high
        if seed % 20 == 19:
            print(f"{name}: {count} of {seed + 1} intervals exclude .5", flush=True)
    return count


def few_shot_excluding(store: Path) -> int:
    """The same of few-shot curves at one size."""
    question = ask(ProbeConfig("logistic", store))
    count = 0
    for seed in range(FEW):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_labels(folder, deal(question.labels, question.task.name, np.random.default_rng(seed)))
            asked = FewShotConfig(
                store, shots=(SHOTS,), whole=False, classes=(FINDING,), labels=folder, results=folder / "results"
            )
            macro = few_shot(asked).points[0].macro
        assert macro.test_low is not None
        assert macro.test_high is not None
        count += not macro.test_low <= 0.5 <= macro.test_high
    print(f"few-shot: {count} of {FEW} intervals exclude .5", flush=True)
    return count


def deal(labels: Labels, task: str, random: np.random.Generator) -> Labels:
    """Each patient gets the labels of another one's samples, in their order, again from the first if those run out."""
    rows = np.flatnonzero(labels.task == task)
    sample, patient = (np.array(column[rows].tolist()) for column in (labels.sample, labels.patient))
    classes = len(np.unique(labels.klass[rows]))
    assert len(rows) == classes * len(np.unique(sample))  # a row for each sample and class, sample by sample
    blocks: dict[str, list[int]] = {}
    for i, name in enumerate(patient[::classes]):
        blocks.setdefault(name, []).append(i)
    names = sorted(blocks)
    source = np.empty(len(rows) // classes, dtype=int)
    for name, giver in zip(names, random.permutation(len(names)), strict=True):
        given = blocks[names[giver]]
        source[blocks[name]] = np.resize(given, len(blocks[name]))
    value = labels.value.copy()
    value[rows] = labels.value[rows].reshape(-1, classes)[source].ravel()
    return replace(labels, value=value)


if __name__ == "__main__":
    main()

"""Every classification probe and few-shot curves on real radiographs: trained, random, CNN and pixels in one grid.

On the cache that `nih128.py` leaves (and makes, if it is not there) `probe all` fits logistic regression, kNN, the linear
heads, a linear SVM and prototypes to the seven commonest findings, then `few-shot` draws 1 to 16 patients per finding, 20
times. Of the two ViTs the last four blocks are extracted too, so that the linear heads are the study's 16. Tables and
pictures are written to the work folder.

ours: macro AUROC of the trained ViT-S/14 under logistic regression; baseline: the better of raw pixels and a random ViT-S
under the very same probe. `--quick`: kNN and logistic regression on what a finished cache holds (else 600 images), 20
draws of 1 and 4 patients.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

from common import ROOT, SHARED_DATA, finish
from nih128 import COMMONEST, PIXELS, extract, find_stores

import embedcache
from embedcache.testing.trained_cnn import make_trained_cnn
from embedcache.testing.trained_vit import make_random_vit, make_trained_vit

PROBES = ("logistic", "knn", "linear", "linear-svm", "prototypes")
QUICK_PROBES = ("logistic", "knn")
FLOORS = ("random-vit-s14", "pixels-32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two probes, draws of 1 and 4 patients")
    parser.add_argument("--root", default=str(SHARED_DATA / "nih_128"))
    parser.add_argument("--work", default=str(ROOT / ".benchmark-cache" / "nih128"), help="cache, weights and home")
    options = parser.parse_args()
    work = Path(options.work)
    out = work / ("quick" if options.quick else "all")
    out.mkdir(parents=True, exist_ok=True)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["EMBEDCACHE_HOME"] = str(work / "home")
    stores = prepare(options.root, work, options.quick)

    shared = {"classes": COMMONEST, "results": out / "results"}
    config = embedcache.GridConfig(
        tuple(stores.values()), QUICK_PROBES if options.quick else PROBES, shared=shared, out=out / "grid.csv"
    )
    grid = embedcache.probe_all(config, lambda done, total, what: print(f"{done} of {total}: {what}", flush=True))
    again = embedcache.probe_all(replace(config, out=out / "grid.tex"))
    embedcache.draw_grid(grid.table, out / "grid.png")
    print((out / "grid.csv").read_text())
    for note in grid.notes:
        print(f"note: {note}")

    curves = [
        embedcache.few_shot(
            embedcache.FewShotConfig(
                store,
                shots=(1, 4) if options.quick else (1, 2, 4, 8, 16),
                classes=COMMONEST,
                results=out / "results",
            )
        )
        for store in stores.values()
    ]
    embedcache.draw_few_shot(curves, out / "few_shot.png")
    means = {curve.source["backbone"]: [point.macro.value or 0.0 for point in curve.points] for curve in curves}
    for name, values in means.items():
        print(f"{name}: " + ", ".join(f"{value:.3f}" for value in values))

    auroc = {(cell.backbone, cell.probe): cell.result.metric("auroc") for cell in grid.cells if cell.result is not None}
    ours = auroc["trained-vit-s14", "logistic"].value or 0.0
    baseline = max(auroc[name, "logistic"].value or 0.0 for name in FLOORS)
    trained = means["trained-vit-s14"]
    finish(
        "nih128_all",
        {
            "every_cell_answered": not grid.failed and len(grid.cells) == len(stores) * len(config.probes or ()),
            "a_rerun_fits_nothing": not any(cell.computed for cell in again.cells),
            "a_rerun_has_the_same_table": again.table == grid.table,
            "trained_above_random_and_pixels": ours > baseline,
            "more_patients_do_better": trained[0] < trained[-2] <= trained[-1],
        },
        ours=round(ours, 4),
        baseline=round(baseline, 4),
        baseline_name="the better of raw 32x32 pixels and a random ViT-S/14, same probe",
        ratio=round(ours / baseline, 3),
        few_shot={name: [round(value, 4) for value in values] for name, values in means.items()},
        table={f"{backbone}, {probe}": [m.value, m.low, m.high] for (backbone, probe), m in auroc.items()},
    )


def prepare(root: str, work: Path, quick: bool) -> dict[str, Path]:
    """Stores by backbone, trained first; extracted where they are not finished."""
    weights = ROOT / ".test-weights"
    vits = (
        str(make_trained_vit(weights / "trained-vit-s14")),
        str(make_random_vit(weights / "random-vit-s14", seed=0)),
    )
    backbones = (vits[0], str(make_trained_cnn(weights / "efficientnet-lite0")), vits[1], PIXELS)
    cache = work / "cache"
    if not (quick and len(find_stores(cache)) == len(backbones)):
        limit = 600 if quick else None
        extract(root, backbones, cache, limit)
        if not quick:
            extract(root, vits, cache, None, layers="last:4")
    found = find_stores(cache)
    return {name: Path(found[name].path) for name in (Path(b).name.replace(":", "-") for b in backbones)}


if __name__ == "__main__":
    main()

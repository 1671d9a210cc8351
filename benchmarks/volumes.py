"""Real volumes through the whole path: hippocampus MR and a CT series, four backbones, `probe all`, a table and a picture.

Hippocampus (60 volumes of the Medical Segmentation Decathlon, one a patient): is the anterior part larger than the median of
the volumes that are fitted (a sample's slices pooled by their mean); how large is the hippocampus in mm3 (a number, ridge);
which slices show it (slices apart, a patient's on one side). Every third volume tests.

CT (one series of 30 slices): has a tumour box been drawn on the slice. There is one patient, so this says whether the tokens of
one chest tell its slices apart, and nothing about other patients: two neighbouring slices stand for a "patient" (the run of
boxed slices is five such pairs), every third pair tests.

Few-shot curves: the slices of 1 to 16 volumes, 20 times each, on the task of the slices that show the hippocampus.

Inputs have 112 pixels, the CNN's 128 (the crops have about 50). ours: AUROC of the trained ViT-S/14 (a trained ViT in DINOv2's
format; not DINOv2's weights), logistic, on the slices that show the hippocampus. baseline: the better of raw pixels and a random
ViT-S under the very same probe. Pixels tie: where a slice lies in a crop shows in its coarse brightness. So this says that the
path holds on volumes, with intervals, and nothing in favour of a backbone. `--quick` takes 12 volumes, pixels, and a small ViT of
random weights instead of the trained one.
"""

import argparse
import csv
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, SHARED_DATA, finish

import embedcache
from embedcache.testing.trained_cnn import make_trained_cnn
from embedcache.testing.trained_vit import make_random_vit, make_trained_vit

PIXELS = "pixels:32"
CNN = "efficientnet-lite0"
PROBES = ("logistic", "knn", "linear", "ridge")
SIZE, CNN_SIZE = 112, 128
"""The nearest that patches of 14 and strides of 32 divide."""
EVERY = 3
"""Every third volume, or pair of slices, tests."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="12 volumes, a random ViT and pixels alone")
    parser.add_argument("--data", default=str(SHARED_DATA), help="folder of msd_hippocampus and ct_lung_a0002")
    parser.add_argument("--work", default=str(ROOT / ".benchmark-cache" / "volumes"), help="cache, tables and home")
    parser.add_argument(
        "--threads", type=int, default=None, help="of the forward pass: 1 where others use the machine too"
    )
    parser.add_argument("--out", default=None, help="folder of table and pictures; the work folder unless given")
    options = parser.parse_args()
    work = Path(options.work) / ("quick" if options.quick else "whole")
    work.mkdir(parents=True, exist_ok=True)
    out = Path(options.out) if options.out else work
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["EMBEDCACHE_HOME"] = str(work / "home")
    weights = backbones(options.quick, work)
    names = {Path(weight).name.replace(":", "-"): title for weight, title in weights.items()}
    hippocampus(
        Path(options.data) / "msd_hippocampus", tuple(weights), work, options.threads, 12 if options.quick else 60
    )
    chest(Path(options.data) / "ct_lung_a0002", tuple(weights), work, options.threads)

    found = [s for s in embedcache.list_stores(work / "cache") if s.state == "complete"]
    stores = [s.path for s in sorted(found, key=lambda s: (s.dataset, list(names).index(s.backbone)))]
    config = embedcache.GridConfig(tuple(stores), PROBES, out=out / "volumes.csv")
    grid = embedcache.probe_all(config, tell)
    again = embedcache.probe_all(replace(config, out=out / "volumes.tex"))
    embedcache.draw_grid(grid.table, out / "volumes.png")
    curves = few_shot_curves([s.path for s in found if s.dataset == "hippocampus"], options.quick)
    embedcache.draw_few_shot(curves, out / "few_shot.png")
    print((out / "volumes.csv").read_text())
    for note in grid.notes:
        print(f"note: {note}")
    for cell in grid.failed:
        print(f"failed: {cell.dataset} {cell.backbone} {cell.probe} {cell.task}: {cell.error}")
    shown = {
        names[cell.backbone]: cell.result.metric("auroc")
        for cell in grid.cells
        if (cell.dataset, cell.task, cell.probe) == ("hippocampus", "shown", "logistic") and cell.result is not None
    }
    scores = {name: m.value or 0.0 for name, m in shown.items()}
    lows = {name: m.low or 0.0 for name, m in shown.items()}
    ours = scores["trained ViT-S/14" if not options.quick else "random ViT"]
    baseline = max(value for name, value in scores.items() if name.startswith(("pixels", "random")))
    per_store = {"hippocampus": 3 + 1 + 3, "chest": 3}
    checks = {
        "every_cell_answered": not grid.failed and len(grid.cells) == sum(per_store.values()) * len(names),
        "a_rerun_fits_nothing": not any(cell.computed for cell in again.cells),
        "a_rerun_has_the_same_table": again.table == grid.table,
        "every_slice_of_every_volume": slices_are_all_there(found),
        "the_best_are_marked_in_every_column": options.quick or all(c.compared > 1 for c in grid.table.columns),
    }
    if not options.quick:
        # Pixels do as well as anything here, so nothing is asked of the order: only that each backbone tells the slices apart.
        checks["every_backbone_tells_slices_apart"] = all(low > 0.5 for low in lows.values())
    finish(
        "volumes",
        checks,
        ours=round(ours, 4),
        baseline=round(baseline, 4),
        baseline_name="the better of raw 32x32 pixels and a random ViT-S/14, same probe",
        ratio=round(ours / baseline, 3),
        few_shot={
            curve.source["backbone"]: [round(point.macro.value or 0.0, 4) for point in curve.points] for curve in curves
        },
        table={
            f"{' '.join(title)}: {column.title}": [figure.value, figure.low, figure.high, figure.best]
            for title, row in zip(grid.table.titles(), grid.table.rows, strict=True)
            for column, figure in zip(grid.table.columns, row.figures, strict=True)
            if figure is not None
        },
    )


def backbones(quick: bool, work: Path) -> dict[str, str]:
    """What `extract` calls a backbone → what the picture calls it; the folders are made where they are not there."""
    if quick:
        small = make_random_vit(work / "random-vit", hidden_size=64, layers=4, heads=4, image_size=SIZE)
        return {str(small): "random ViT", PIXELS: "pixels 32x32"}
    weights = ROOT / ".test-weights"
    return {
        str(make_trained_vit(weights / "trained-vit-s14")): "trained ViT-S/14",
        str(make_trained_cnn(weights / CNN)): "EfficientNet-Lite0",
        str(make_random_vit(weights / "random-vit-s14", seed=0)): "random ViT-S/14",
        PIXELS: "pixels 32x32",
    }


def hippocampus(root: Path, weights: tuple[str, ...], work: Path, threads: int | None, volumes: int) -> None:
    """Extract the volumes, then add the labels of slices, which stand in a table of their own."""
    with (root / "index.csv").open() as file:
        rows = list(csv.DictReader(file))[:volumes]
    anterior = np.array([int(row["vox_label1_anterior"]) for row in rows])
    whole = anterior + np.array([int(row["vox_label2_posterior"]) for row in rows])
    tests = np.arange(len(rows)) % EVERY == EVERY - 1
    large = anterior > np.median(anterior[~tests])
    table = write_csv(
        work / "hippocampus.csv",
        ("id", "path", "patient", "split", "large_anterior", "volume_mm3"),
        [
            (row["file"], root / "images" / row["file"], row["file"], part(test), int(is_large), int(size))
            for row, test, is_large, size in zip(rows, tests, large, whole, strict=True)
        ],
    )
    tasks = ("large_anterior=binary", "volume_mm3=numeric")
    extract("hippocampus", table, weights, work, threads, embedcache.DatasetOptions(tasks=tasks))
    shown = write_csv(
        work / "hippocampus_slices.csv",
        ("id", "slice", "shown"),
        [
            (row["file"], k, int(there))
            for row in rows
            for k, there in enumerate(shown_on(root / "labels" / row["file"]))
        ],
    )
    of_slices = embedcache.DatasetOptions(tasks=("shown=binary",), label_table=str(shown), level="slice")
    embedcache.sync_labels(
        embedcache.ExtractConfig("table", str(table), (), cache=str(work / "cache"), options=of_slices)
    )


def shown_on(mask: Path) -> np.ndarray[Any, Any]:
    """Whether each slice, as the file stores them, has a voxel of the hippocampus."""
    from embedcache.images import open_image

    opened = open_image(str(mask))
    return opened.read(0, opened.n_slices).pixels.any(axis=(1, 2))


def chest(root: Path, weights: tuple[str, ...], work: Path, threads: int | None) -> None:
    """Each slice of the series is a sample, each pair of neighbours a patient."""
    with (root / "boxes.csv").open() as file:
        boxed = {row["dicom_file"] for row in csv.DictReader(file)}
    rows = []
    for path in sorted((root / "dicom").glob("*.dcm")):
        pair = (int(path.stem.split("-")[1]) - 1) // 2
        part_of_pair = ("train", "test", "validation")[pair % EVERY]
        rows.append((path.name, path, f"pair {pair}", part_of_pair, int(path.name in boxed)))
    table = write_csv(work / "chest.csv", ("id", "path", "patient", "split", "boxed"), rows)
    extract(
        "chest", table, weights, work, threads, embedcache.DatasetOptions(tasks=("boxed=binary",)), window="ct-lung"
    )


def extract(
    name: str,
    table: Path,
    weights: tuple[str, ...],
    work: Path,
    threads: int | None,
    options: embedcache.DatasetOptions,
    window: str = "auto",
) -> None:
    """Extract once; a second run finds its stores finished. Pixels keep the size that their name says."""
    by_size: dict[int | None, list[str]] = {}
    for weight in weights:
        size = None if weight == PIXELS else CNN_SIZE if weight.endswith(CNN) else SIZE
        by_size.setdefault(size, []).append(weight)
    for size, backbones in by_size.items():
        report = embedcache.extract(
            embedcache.ExtractConfig(
                dataset="table",
                root=str(table),
                backbones=tuple(backbones),
                cache=str(work / "cache"),
                window=window,
                size=size,
                threads=threads,
                rows_per_shard=256,
                options=replace(options, name=name),
            )
        )
        print(
            f"{name}: {report.decoded} slices for {', '.join(Path(b).name for b in backbones)} in {report.seconds:.0f} s",
            flush=True,
        )


def few_shot_curves(stores: list[str], quick: bool) -> list[embedcache.FewShotResult]:
    """Which slices show the hippocampus, learned from all slices of 1 to 16 volumes."""
    return [
        embedcache.few_shot(
            embedcache.FewShotConfig(
                store, task="shown", shots=(1, 2) if quick else (1, 2, 4, 8, 16), pool=None, whole=not quick
            )
        )
        for store in stores
    ]


def slices_are_all_there(stores: list[Any]) -> bool:
    return all(s.quarantined == 0 and s.slices > 0 for s in stores) and len({s.slices for s in stores}) == 2


def part(tests: bool) -> str:
    return "test" if tests else "train"


def write_csv(path: Path, header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def tell(done: int, total: int, what: str) -> None:
    if what.endswith("reading features"):
        print(f"{done} of {total}: {what.partition(':')[0]}", flush=True)


if __name__ == "__main__":
    main()

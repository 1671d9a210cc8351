"""Do frozen patch tokens segment better than what needs no learning? On real radiographs, in every one of five splits.

24 chest radiographs of 24 patients with human lung masks (`cxr_hannover_lungmask`; 255 is lung, 127 a device over it,
ignored), 448x448, 32x32 patches. Five splits by patient, half for training, a quarter for validation, a quarter tested
once. Every head is `probe patch-linear`: C, and the layer where there are several, chosen on validation.

ours: mean test Dice of the trained ViT-S/14 (a trained ViT in DINOv2's format; not DINOv2's weights), layers 4, 8
and 12. baseline: the best of raw 14x14 patches, a random ViT-S/14, the mean mask, and the head on positions alone. Each
must lie at least .05 below in every split. `--quick` runs two splits. A finished cache is reused.
"""

import argparse
import csv
import os
from pathlib import Path

import numpy as np
from common import ROOT, SHARED_DATA, finish

import embedcache
from embedcache.testing.trained_vit import make_random_vit, make_trained_vit

MARGIN = 0.05
LAYERS, PATCHES = "4,8,12", "patches:14"
OURS, PIXELS, RANDOM, MEAN, POSITION = (
    "trained ViT-S/14",
    "raw patches",
    "random ViT-S/14",
    "mean mask",
    "position only",
)
MASK_VALUES = "255=lung,127=ignore"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two splits")
    parser.add_argument("--root", default=str(SHARED_DATA / "cxr_hannover_lungmask"))
    parser.add_argument("--work", default=str(ROOT / ".benchmark-cache" / "patch-linear"), help="cache, table and home")
    options = parser.parse_args()
    work = Path(options.work)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["EMBEDCACHE_HOME"] = str(work / "home")
    table = write_table(Path(options.root), work)
    stores = extract(table, work / "cache")
    seeds = range(2 if options.quick else 5)
    dice: dict[str, list[float]] = {name: [] for name in (OURS, PIXELS, RANDOM, MEAN, POSITION)}
    print("| split | layer | " + " | ".join(dice) + " |")
    for seed in seeds:
        results = {name: segment(store, table, seed) for name, store in stores.items()}
        for name, result in results.items():
            dice[name].append(value(result, "dice"))
        dice[MEAN].append(value(results[OURS], "mean_mask_dice"))
        dice[POSITION].append(value(results[OURS], "position_dice"))
        (layer,) = results[OURS].chosen["layers"]
        print(f"| {seed} | {layer} | " + " | ".join(f"{values[-1]:.3f}" for values in dice.values()) + " |", flush=True)
    mean = {name: float(np.mean(values)) for name, values in dice.items()}
    print("| mean | | " + " | ".join(f"{m:.3f}" for m in mean.values()) + " |")
    lead = {name: min(a - b for a, b in zip(dice[OURS], dice[name], strict=True)) for name in dice if name != OURS}
    baseline = max(lead, key=lambda name: mean[name])
    finish(
        "patch_linear",
        {f"at_least_.05_above_{name.replace(' ', '_')}": least >= MARGIN for name, least in lead.items()},
        ours=round(mean[OURS], 4),
        baseline=round(mean[baseline], 4),
        baseline_name=f"{baseline}, the best of raw patches, random weights, mean mask and position only",
        ratio=round(mean[OURS] / mean[baseline], 3),
        unit="mean Dice",
        least_lead={name: round(least, 4) for name, least in lead.items()},
        splits=len(seeds),
        dice={name: [round(v, 4) for v in values] for name, values in dice.items()},
    )


def write_table(root: Path, work: Path) -> Path:
    """The data set's own index with paths that `table` understands."""
    work.mkdir(parents=True, exist_ok=True)
    with open(root / "index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    table = work / "radiographs.csv"
    with open(table, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "patient", "path", "mask"])
        for row in rows:
            image, mask = (
                root.resolve() / folder / row[column] for folder, column in (("images", "image"), ("masks", "mask"))
            )
            writer.writerow([Path(row["image"]).stem, row["patient"], image, mask])
    return table


def extract(table: Path, cache: Path) -> dict[str, Path]:
    """The three stores: two ViTs share one reading, raw patches have one layer only."""
    trained = make_trained_vit(ROOT / ".test-weights" / "trained-vit-s14")
    random = make_random_vit(ROOT / ".test-weights" / "random-vit-s14", seed=0)
    for backbones, layers in (((str(trained), str(random)), LAYERS), ((PATCHES,), "last")):
        report = embedcache.extract(
            embedcache.ExtractConfig(
                dataset="table",
                root=str(table),
                backbones=backbones,
                cache=str(cache),
                tokens="patch",
                layers=layers,
                size=448,
                device="cpu",
            )
        )
        print(
            f"{report.decoded} images decoded for {', '.join(Path(b).name for b in backbones)}: {report.seconds:.0f} s"
        )
    found = {s.backbone: Path(s.path) for s in embedcache.list_stores(cache)}
    return {OURS: found[trained.name], PIXELS: found[PATCHES.replace(":", "-")], RANDOM: found[random.name]}


def segment(store: Path, table: Path, seed: int) -> embedcache.Result:
    return embedcache.probe_patches(
        embedcache.PatchProbeConfig(
            store=store,
            dataset="table",
            root=str(table),
            mask_values=MASK_VALUES,
            validation=1 / 3,
            test=0.25,
            seed=seed,
        )
    )


def value(result: embedcache.Result, name: str) -> float:
    found = result.metric(name).value
    assert found is not None  # every radiograph shows lungs
    return found


if __name__ == "__main__":
    main()

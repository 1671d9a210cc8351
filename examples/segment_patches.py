"""Segmentation by a linear head on cached patch tokens: `python segment_patches.py cases.csv BACKBONE`.

Shows a patch-level probe from images with masks; no image is decoded for it once its tokens are stored. Prints the Dice of each
class with a 95% interval over patients, beside two floors that see no image: the mean mask, and the same head on positions.
"""

import argparse

import embedcache


def told(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="CSV or Parquet with the columns path, patient and mask (a file per row)")
    parser.add_argument("backbone", help="hub name or local folder; `patches:14` is the floor of raw pixels")
    parser.add_argument("--mask-values", help="such as 255=lung,127=ignore; by default a class for each value but 0")
    parser.add_argument("--size", type=int, help="input pixels, a multiple of the patch; the finer, the more patches")
    parser.add_argument("--cache", default="cache")
    arguments = parser.parse_args()

    extraction = embedcache.ExtractConfig(
        "table", arguments.table, (arguments.backbone,), cache=arguments.cache, tokens="patch", size=arguments.size
    )
    (store,) = embedcache.extract(extraction).stores
    result = embedcache.probe_patches(
        embedcache.PatchProbeConfig(store.path, "table", arguments.table, mask_values=arguments.mask_values)
    )
    print(f"layer {result.chosen['layers'][0]} and C {result.chosen['C']}, chosen on validation; on test:")
    for floor, said in (("", "patch tokens"), ("mean_mask_", "the mean mask"), ("position_", "positions")):
        for name in result.task.classes:
            dice = result.metric(f"{floor}dice", name)
            print(
                f"{said}: Dice of {name} {told(dice.value)} ({told(dice.low)} to {told(dice.high)}), {dice.patients} patients"
            )


if __name__ == "__main__":
    main()

"""How many patients does a head need? `python few_shot_curve.py STORE... --task effusion --figure curve.png`.

Shows few-shot curves, one per store: heads fitted to some patients of each class, drawn anew many times. Prints per number of
patients the mean AUROC, its 95% interval over draws and that over test patients; with --figure it draws the curves.
"""

import argparse

import embedcache


def told(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="+", metavar="STORE", help="a .zarr store with its labels beside it")
    parser.add_argument("--task", help="a binary, multilabel or multiclass task; by default the only one")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="patients of each class")
    parser.add_argument("--seeds", type=int, default=20, help="draws of each size")
    parser.add_argument("--figure", help="a picture of the curves: .png, .svg or .pdf")
    arguments = parser.parse_args()

    curves = []
    for store in arguments.stores:
        asked = embedcache.FewShotConfig(store, arguments.task, shots=tuple(arguments.shots), seeds=arguments.seeds)
        curves.append(embedcache.few_shot(asked))
        print(f"{curves[-1].source['backbone']}, task {curves[-1].task.name}:")
        for point in curves[-1].points:
            auroc = point.macro
            print(
                f"  {point.shots or 'all'} patients of each class: AUROC {told(auroc.value)}, over {auroc.draws} draws "
                f"{told(auroc.draws_low)} to {told(auroc.draws_high)}, over test patients {told(auroc.test_low)} to "
                f"{told(auroc.test_high)}"
            )
    if arguments.figure:
        print(embedcache.draw_few_shot(curves, arguments.figure))


if __name__ == "__main__":
    main()

"""Copies planted among real radiographs, and how many of them `embedcache leaks` finds.

Of `--n` images of `nih_128`, four copies each are put into the other part of the split, under patients of their own: encoded
anew (JPEG, quality 75), cropped by 3%, with a gamma of 1.05 or 1 / 1.05, and turned left to right. The features are the pixels
themselves (`--backbone pixels:32`), or any backbone's.

ours: the share of the planted pairs (a copy and its original) that are reported. baseline: that of a 64-bit perceptual hash
of each image and of its mirror image, at the greatest distance at which no more than 1% of its pairs are false. A reported
pair is false if it is neither planted nor of one patient.
"""

import argparse
import csv
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import SHARED_DATA, finish, sandbox
from PIL import Image
from scipy.fft import dctn

import embedcache

KINDS = ("jpeg", "crop", "gamma", "flip")
MOST_FALSE, LEAST_FOUND = 0.01, 0.95


@dataclass(frozen=True)
class Planted:
    """One image of the set that is searched."""

    name: str
    patient: str
    origin: str
    """The image that it is a copy of, or itself."""
    kind: str
    """How it was made, "" for an original."""
    part: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 images with four copies each among 800")
    parser.add_argument("--n", type=int, help="images that are copied; 200")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backbone", default="pixels:32")
    parser.add_argument("--root", default=str(SHARED_DATA / "nih_128"))
    options = parser.parse_args()
    n, among = (options.n or 60, 800) if options.quick else (options.n or 200, None)
    with sandbox() as folder:
        images = plant(Path(options.root), folder / "planted", n, among, options.seed)
        config = embedcache.ExtractConfig(
            dataset="table",
            root=str(folder / "planted" / "images.csv"),
            backbones=(options.backbone,),
            cache=str(folder / "cache"),
            tokens="cls",
            options=embedcache.DatasetOptions(id_column="image"),
            ids="keep",
        )
        embedcache.extract(config)
        started = time.perf_counter()
        (report,) = embedcache.find_leaks(folder / "cache")
        took = time.perf_counter() - started
        (blind,) = embedcache.find_leaks(folder / "cache", pixels=False)
        pairs = {(pair.first, pair.second) for pair in report.pairs}
        ours, false, by_kind = judged(pairs, images)
        by_vectors = judged({(pair.first, pair.second) for pair in (*blind.pairs, *blind.candidates)}, images)
        baseline, distance = best_hash(images, folder / "planted")
    print(f"{len(pairs):,} pairs reported in {took:.1f} s, {ours:.1%} of the planted, {false:.2%} false: {by_kind}")
    finish(
        "leaks",
        {"at_least_95%_found": ours >= LEAST_FOUND, "at_most_1%_false": false <= MOST_FALSE},
        ours=round(ours, 4),
        baseline=round(baseline, 4),
        baseline_name=f"64-bit perceptual hash, both ways round, distance {distance}",
        ratio=round(ours / baseline, 3) if baseline else None,
        unit="share of planted pairs found",
        found=round(ours, 4),
        false_share=round(false, 4),
        by_kind=by_kind,
        by_vectors_alone={"found": round(by_vectors[0], 4), "false_share": round(by_vectors[1], 4)},
        pairs=len(pairs),
        images=len(images),
        planted=n * len(KINDS),
        looked_at=report.looked_at,
        seconds=round(took, 1),
        backbone=Path(options.backbone).name,
        seed=options.seed,
    )


# --- planting -------------------------------------------------------------------------------------


def plant(root: Path, folder: Path, n: int, among: int | None, seed: int) -> list[Planted]:
    """A table of originals (links) and of copies (files) in `folder`."""
    random = np.random.default_rng(seed)
    with (root / "Data_Entry_2017.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:among]
    tests = set((root / "test_list.txt").read_text().split())
    folder.mkdir()
    images = []
    for row in rows:
        name = row["Image Index"]
        os.symlink((root / "images" / name).resolve(), folder / name)
        images.append(Planted(name, row["Patient ID"], name, "", "test" if name in tests else "train"))
    for i in random.choice(len(rows), n, replace=False).tolist():
        original = images[i]
        with Image.open(folder / original.name) as opened:
            pixels = np.asarray(opened)
        for kind in KINDS:
            name = f"{kind}-{i}.{'jpg' if kind == 'jpeg' else 'png'}"
            Image.fromarray(changed(pixels, kind, random)).save(folder / name, quality=75)
            part = "train" if original.part == "test" else "test"
            images.append(Planted(name, f"copied-{i}", original.name, kind, part))
    with (folder / "images.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "image", "patient", "split"])
        writer.writerows([image.name, image.name, image.patient, image.part] for image in images)
    return images


def changed(pixels: np.ndarray, kind: str, random: np.random.Generator) -> np.ndarray:
    """A copy as it is saved; `jpeg` is made by saving."""
    if kind == "crop":
        cut = round(0.03 * len(pixels))
        top, left = random.integers(0, cut + 1, 2)
        return np.ascontiguousarray(pixels[top : len(pixels) - cut + top, left : pixels.shape[1] - cut + left])
    if kind == "gamma":
        gamma = 1.05 if random.random() < 0.5 else 1 / 1.05
        return np.rint(255 * (pixels / 255) ** gamma).astype(np.uint8)
    return np.ascontiguousarray(pixels[:, ::-1]) if kind == "flip" else pixels


def judged(pairs: set[tuple[str, str]], images: list[Planted]) -> tuple[float, float, dict[str, float]]:
    """(share of the planted that is found, share of the reported that is false, found by kind)."""
    of = {image.name: image for image in images}
    either = pairs | {(b, a) for a, b in pairs}
    found = {kind: [(image.origin, image.name) in either for image in images if image.kind == kind] for kind in KINDS}
    whose = {image.name: of[image.origin].patient for image in images}  # a copy shows whom its original shows
    false = sum(of[a].origin != of[b].origin and whose[a] != whose[b] for a, b in pairs)
    together = [hit for hits in found.values() for hit in hits]
    by_kind = {kind: round(float(np.mean(hits)), 4) for kind, hits in found.items()}
    return float(np.mean(together)), false / max(len(pairs), 1), by_kind


# --- the baseline ---------------------------------------------------------------------------------


def best_hash(images: list[Planted], folder: Path) -> tuple[float, int]:
    """The share that perceptual hashes find at their best distance, and that distance."""
    pixels = [_small(folder / image.name) for image in images]
    straight, turned = (np.stack([_hash(p[:, ::step]) for p in pixels]) for step in (1, -1))
    part = np.array([image.part for image in images])
    names = np.array([image.name for image in images])
    signs = np.where(straight, 1.0, -1.0).astype(np.float32)
    other = np.where(turned, 1.0, -1.0).astype(np.float32)
    distance = (64 - np.maximum(signs @ signs.T, signs @ other.T)) / 2
    torn = np.triu(part[:, None] != part[None, :], 1)
    best = (0.0, 0)
    for most in range(17):
        a, b = np.nonzero(torn & (distance <= most))
        found, false, _ = judged(set(zip(names[a].tolist(), names[b].tolist(), strict=True)), images)
        if false <= MOST_FALSE:
            best = max(best, (found, most))
    return best


def _small(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float32)


def _hash(pixels: np.ndarray) -> np.ndarray:
    """(64,) bool: the 8x8 lowest frequencies against their median."""
    low = dctn(pixels, norm="ortho")[:8, :8].ravel()
    return low > np.median(low[1:])


if __name__ == "__main__":
    main()

"""How fast one core decodes through our reader, against the fastest bare decoder of what is installed.

ours: files a second of `open_image(path).read(...)`, as the decode process does it: read, digest for the private index, headers,
checks, geometry, pixels in the stored dtype. baseline: the fastest of PIL, OpenCV, imagecodecs, pydicom and nibabel, those that
are installed (`compared` names them), from the path to an array; imagecodecs by its fastest function for the kind. Seconds are of
processor time, and memory that one image frees is kept for the next, as in a decode process. Rounds are interleaved, file
by file, and the medians compared; `ratio` is the worst kind's. `digest_share` is what SHA-256 takes of our time, which no
baseline pays.

Kinds: PNG 1024x1024 radiographs, CT 512x512 as it comes (raw) and as JPEG 2000, JPEG lossless (1024x256, as many pixels, of 16
bits; pydicom's own file), and a NIfTI volume (.nii.gz, 197x233x189).
"""

import argparse
import hashlib
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from common import SHARED_DATA, finish, median
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames
from pydicom.uid import JPEG2000Lossless

from embedcache.images import open_image
from embedcache.images.memory import keep_freed_images
from embedcache.testing.files import write_dicom, write_png

Decoder = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Kind:
    """Files of one kind and the bare decoders that read them."""

    name: str
    files: list[str]
    decoders: dict[str, Decoder]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer files and rounds")
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    rounds, most = (options.rounds or 7, 4) if options.quick else (options.rounds or 15, 12)
    keep_freed_images()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # a rate per core: a library's threads share it
    table, equal, compared = {}, {}, set()
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds(Path(folder), most):
            compared |= set(kind.decoders)
            equal[f"{kind.name}_equal"] = all(same(kind, path) for path in kind.files)
            table[kind.name] = line = measured(kind, rounds)
            print(
                f"{kind.name}: ours {line['ours']:.1f} files/s, {line['baseline_name']} {line['baseline']:.1f}, "
                f"ratio {line['ratio']:.2f}, digest {line['digest_share']:.0%} of our time"
            )
    worst = min(table, key=lambda name: table[name]["ratio"])
    finish(
        "decode",
        {**equal, "at_least_.9": table[worst]["ratio"] >= 0.9},
        ours=table[worst]["ours"],
        baseline=table[worst]["baseline"],
        baseline_name=f"{worst}: {table[worst]['baseline_name']}, the fastest of those installed",
        ratio=table[worst]["ratio"],
        unit="files/s",
        compared=sorted(compared),
        kinds=table,
    )


def measured(kind: Kind, rounds: int) -> dict[str, object]:
    """Rates over all files; each round takes every decoder over one file after another."""
    readers: dict[str, Decoder] = {"ours": ours, **kind.decoders}
    times: dict[str, list[list[float]]] = {name: [[] for _ in kind.files] for name in [*readers, "digest"]}
    for number in range(rounds + 1):
        for i, path in enumerate(kind.files):
            for name in sorted(
                readers, key=lambda name: hash((name, number)) % 97
            ):  # nobody always follows the same one
                times[name][i].append(seconds(partial(readers[name], path)))
            data = Path(path).read_bytes()
            times["digest"][i].append(seconds(partial(hashlib.sha256, data)))
    # the first round warms caches and imports
    total = {name: sum(median(t[1:]) for t in per_file) for name, per_file in times.items()}
    best = min(kind.decoders, key=lambda name: total[name])
    rate = {name: round(len(kind.files) / t, 2) for name, t in total.items()}
    return {
        "ours": rate["ours"],
        "baseline": rate[best],
        "baseline_name": best,
        "ratio": round(total[best] / total["ours"], 3),
        "digest_share": round(total["digest"] / total["ours"], 3),
        "ratio_without_digest": round(total[best] / (total["ours"] - total["digest"]), 3),
        "all": {name: rate[name] for name in kind.decoders},
        "files": len(kind.files),
    }


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call, of all threads: what others do on the machine counts little."""
    started = time.process_time()
    work()
    return time.process_time() - started


def ours(path: str) -> np.ndarray:
    image = open_image(path)
    return image.read(0, image.n_slices).pixels


def same(kind: Kind, path: str) -> bool:
    """Whether each decoder gives the pixels that we give, whichever way it lays out the axes."""
    pixels = np.sort(ours(path), axis=None)
    return all(np.array_equal(np.sort(decode(path), axis=None), pixels) for decode in kind.decoders.values())


# --- files and bare decoders ----------------------------------------------------------------------


def kinds(folder: Path, most: int) -> Iterator[Kind]:
    radiographs = sorted(map(str, (SHARED_DATA / "nih_chestxray14").rglob("*.png")))[:most] or made_radiographs(folder)
    yield Kind("png_1024", radiographs, {"PIL": pil, **optional("cv2", opencv), **optional("imagecodecs", png_codec)})
    slices = sorted(map(str, (SHARED_DATA / "ct_lung_a0002").rglob("*.dcm")))[:most] or made_slices(folder)
    yield Kind("ct_512_raw", slices, {"pydicom": pydicom})
    compressed = [jpeg_2000(path, folder / f"{i}-j2k.dcm") for i, path in enumerate(slices)]
    yield Kind("ct_512_jpeg_2000", compressed, {"pydicom": pydicom, **optional("imagecodecs", codec("jpeg2k_decode"))})
    lossless = get_testdata_file("JPEG-LL.dcm", download=False)
    # one file, as often as there are others: its medians are as steady as theirs
    yield Kind(
        "jpeg_lossless", [str(lossless)] * most, {"pydicom": pydicom, **optional("imagecodecs", codec("jpeg8_decode"))}
    )
    spec = importlib.util.find_spec("nilearn")
    assert spec is not None, "the volume comes with nilearn, of the dev extra"
    assert spec.submodule_search_locations is not None
    (brain,) = Path(spec.submodule_search_locations[0]).rglob("mni_icbm152_t1_*.nii.gz")
    yield Kind("nifti_gz", [str(brain)], {"nibabel": nibabel})


def optional(package: str, decoder: Decoder) -> dict[str, Decoder]:
    name = {"cv2": "OpenCV"}.get(package, package)
    return {name: decoder} if importlib.util.find_spec(package) else {}


def pil(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def opencv(path: str) -> np.ndarray:
    import cv2  # only where it is installed

    pixels: np.ndarray = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    return pixels


def png_codec(path: str) -> np.ndarray:
    import imagecodecs  # only where it is installed

    pixels: np.ndarray = imagecodecs.png_decode(Path(path).read_bytes())
    return pixels


def pydicom(path: str) -> np.ndarray:
    pixels: np.ndarray = dcmread(path).pixel_array
    return pixels


def codec(function: str) -> Decoder:
    """imagecodecs on the codestream that pydicom finds in the file."""

    def decode(path: str) -> np.ndarray:
        import imagecodecs  # only where it is installed

        pixels: np.ndarray = getattr(imagecodecs, function)(
            next(generate_frames(dcmread(path).PixelData, number_of_frames=1))
        )
        return pixels

    return decode


def nibabel(path: str) -> np.ndarray:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    unscaled = image.dataobj.get_unscaled()  # type: ignore[union-attr]  # of a file it is a proxy
    return np.asarray(unscaled)


def jpeg_2000(path: str, to: Path) -> str:
    """The same slice, compressed without loss."""
    dataset = dcmread(path)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dataset.save_as(to)
    return str(to)


def made_radiographs(folder: Path) -> list[str]:
    """Where the shared images are not: smooth noise."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (64, 64)).astype(np.uint8))
    large = np.asarray(small.resize((1024, 1024), Image.Resampling.BICUBIC)) // 2 + rng.integers(0, 8, (1024, 1024))
    return [str(write_png(folder / "made.png", large.astype(np.uint8)))]


def made_slices(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 4000, (32, 32)).astype(np.float32))
    large = np.asarray(small.resize((512, 512), Image.Resampling.BICUBIC)).clip(0, 4095).astype(np.uint16)
    return [str(write_dicom(folder / "made.dcm", large, modality="CT", intercept=-1024.0))]


if __name__ == "__main__":
    main()

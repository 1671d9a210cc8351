"""How near an extraction comes to what the machine can do: its rate over 1 / (1 / F + 1 / D).

F is the fastest bare forward (transformers' own AutoModel, SDPA or eager, batch 1 to 64, all cores), D the fastest bare
decode (PIL, one process a core): on a CPU both need the same cores, so no pipeline can be faster than doing one after
the other. Every round measures decode, forward and extraction one after another; the ratio is the median over rounds.

F is measured with glibc told to keep freed memory, as embedcache tells it; what a plain script gets is printed beside it
as `F_plain`.

`dataloader` is what a skilled user would write for the same images: a torch DataLoader (batch 8, 2 workers, PIL, bicubic resize),
AutoModel and one array at the end; each round runs it too, in a process of its own as the extraction is one, and counts from the
first batch that is asked for to the array on disk. `processor_seconds` are of both as whole processes, start-up and all: they say
something on a busy machine too.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from common import COMMAND, ROOT, SHARED_DATA, finish, median, of_children, sandbox, seconds
from PIL import Image

CORES = len(os.sched_getaffinity(0))
DECODE_SECONDS = 1.0
"""The images are decoded again and again for about so long: 40 small ones take no measurable time."""


@dataclass(frozen=True)
class Effort:
    """How long a run may take."""

    images: int
    rounds: int
    batches: tuple[int, ...]
    forwards: int
    """Images of one round's bare forward; the screening of attention and batch takes fewer."""


QUICK = Effort(images=40, rounds=3, batches=(1, 8, 16), forwards=16)
WHOLE = Effort(images=512, rounds=5, batches=(1, 2, 4, 8, 16, 32, 64), forwards=128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="40 images, three rounds")
    parser.add_argument("--backbone", help="a Hugging Face folder; else the trained ViT-S/14 of the tests")
    parser.add_argument("--images", type=int, help="how many")
    parser.add_argument("--rounds", type=int, help="how many")
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION", help="passed on to `embedcache extract`")
    asked = parser.parse_args()
    effort = QUICK if asked.quick else WHOLE
    n_images, rounds = asked.images or effort.images, asked.rounds or effort.rounds

    with sandbox() as folder:
        backbone = asked.backbone or trained_backbone()
        images, source = choose_images(folder, n_images)
        table = write_table(folder, images)
        plain = plain_forward(backbone)
        forward, screened = fastest_forward(backbone, effort.batches)
        decode = BareDecode(images)
        command = [str(COMMAND), "extract", "--dataset", "table", "--root", str(table), "--backbone", backbone]
        command += ["--id-column", "case", "--ids", "keep", "--device", "cpu", "--json", *asked.set]

        f, d, ours, loop = [], [], [], []
        processor: dict[str, list[float]] = {"ours": [], "dataloader": []}

        def plain_loop() -> None:
            started = of_children()
            loop.append(dataloader_rate(folder, images, backbone))
            processor["dataloader"].append(of_children() - started)

        for i in range(rounds):
            d.append(decode.rate())
            before = forward.rate(effort.forwards)
            if i % 2:  # the one that goes first has another machine
                plain_loop()
            started = of_children()
            report, _ = run([*command, "--cache", str(folder / f"cache-{i}")])
            processor["ours"].append(of_children() - started)
            store = Path(report["stores"][0]["path"])
            ours.append(len(images) / (working_seconds(store) + 1 / d[-1]))
            if not i % 2:
                plain_loop()
            f.append((before + forward.rate(effort.forwards)) / 2)  # the machine's mood before and after
            said = f"F {f[-1]:.2f}  D {d[-1]:.0f}  ours {ours[-1]:.2f}  DataLoader {loop[-1]:.2f}"
            print(f"round {i + 1}: {said} images a second", flush=True)
        decode.close()
        again, again_seconds = run([*command, "--cache", str(folder / f"cache-{rounds - 1}")])
        equal = tokens_equal(store, backbone, images, forward)
        rows_ok = all_rows_ok(store, len(images))

    bounds = [1 / (1 / f[i] + 1 / d[i]) for i in range(rounds)]
    ratios = [ours[i] / bounds[i] for i in range(rounds)]
    finish(
        "extract",
        ours=median(ours),
        baseline=median(bounds),
        baseline_name="1 / (1 / F + 1 / D): transformers' AutoModel alone, then PIL alone",
        ratio=median(ratios),
        ratios=[round(r, 3) for r in ratios],
        unit="images a second, from the first decode to the last commit",
        F=median(f),
        D=median(d),
        F_setup={"attention": forward.attention, "batch": forward.batch, "threads": CORES},
        F_screened=screened,
        F_plain=plain,
        dataloader=median(loop),
        ratio_dataloader=median([ours[i] / loop[i] for i in range(rounds)]),
        processor_seconds={name: median(values) for name, values in processor.items()},
        D_setup=decode.setup,
        binds=report["binds"],
        second_run_seconds=round(again_seconds, 2),
        images=len(images),
        source=source,
        checks={
            "tokens_equal": equal,
            "all_rows_ok": rows_ok,
            "second_run_decodes_nothing": again["decoded"] == 0,
            "second_run_under_3_s": again_seconds < 3,
        },
    )


def trained_backbone() -> str:
    from embedcache.testing.trained_vit import make_trained_vit  # heavy, and not needed by the decode processes

    return str(make_trained_vit(ROOT / ".test-weights" / "trained-vit-s14"))


def choose_images(folder: Path, count: int) -> tuple[list[Path], str]:
    """Real images as PNG files: NIH radiographs where they are, else slices of the T1 volume that nilearn ships."""
    radiographs = sorted((SHARED_DATA / "nih_128" / "images").glob("*.png"))[:count]
    if radiographs:
        return radiographs, "nih_128, 128x128 radiographs"
    import nibabel  # only where it is needed

    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise SystemExit("no images: neither EMBEDCACHE_SHARED_DATA nor the package nilearn is there")
    data = Path(spec.origin).parent / "datasets" / "data"
    volume = np.asarray(nibabel.load(data / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz").dataobj)
    shown = (255 * (volume / volume.max())).astype(np.uint8)
    for i in range(min(count, 3 * 160)):
        pixels = np.moveaxis(shown, i % 3, 0)[20 + i // 3]  # in turn sagittal, coronal, axial
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"slice{i:04}.png")
    return sorted(folder.glob("slice*.png")), "nilearn's MNI152 T1, slices"


def write_table(folder: Path, images: list[Path]) -> Path:
    table = folder / "cases.csv"
    table.write_text("path,case\n" + "".join(f"{path.resolve()},{path.stem}\n" for path in images))
    return table


# --- the bare parts -------------------------------------------------------------------------------


class BareForward:
    """transformers' own model on batches that are there already."""

    def __init__(self, backbone: str, attention: str, batch: int) -> None:
        import torch

        from embedcache import describe_backbone
        from embedcache.backbones.torchvision_pair import complete_torchvision

        complete_torchvision()
        from transformers import AutoModel

        from embedcache.backbones.quiet import quiet_transformers

        torch.set_num_threads(CORES)
        self.attention, self.batch = attention, batch
        self.size = describe_backbone(backbone).size
        with quiet_transformers():
            self.model: Any = AutoModel.from_pretrained(backbone, attn_implementation=attention).eval()

    def rate(self, images: int) -> float:
        """Images a second over at least so many images."""
        import torch

        x = torch.randn((self.batch, 3, *self.size), generator=torch.Generator().manual_seed(0))
        batches = -(-images // self.batch)
        with torch.inference_mode():
            return batches * self.batch / seconds(lambda: [self.model(pixel_values=x) for _ in range(batches)])


def plain_forward(backbone: str) -> float:
    """Images a second of transformers' default attention at batch 8, before the allocator is told anything."""
    forward = BareForward(backbone, "sdpa", 8)
    forward.rate(1)
    return forward.rate(8)


def fastest_forward(backbone: str, batches: tuple[int, ...]) -> tuple[BareForward, dict[str, float]]:
    """The fastest attention and batch, and the rates of all, from one pass over each after a warm-up."""
    from embedcache.backbones.device import keep_freed_memory

    keep_freed_memory()
    rates: dict[str, float] = {}
    best: BareForward | None = None
    for attention in ("sdpa", "eager"):
        for batch in batches:
            forward = BareForward(backbone, attention, batch)
            forward.rate(1)
            rates[f"{attention} {batch}"] = round(forward.rate(8), 2)
            if best is None or rates[f"{attention} {batch}"] > rates[f"{best.attention} {best.batch}"]:
                best = forward
    assert best is not None
    return best, rates


class BareDecode:
    """A straight PIL loop, in one process and in one process a core; whichever is faster."""

    def __init__(self, images: list[Path]) -> None:
        self.paths = [str(path) for path in images]
        self.repeats = max(1, round(DECODE_SECONDS / max(1e-6, decode_all(self.paths))))
        self.pool = ProcessPoolExecutor(CORES, mp_context=get_context("spawn"))
        self.setup = ""
        self._in_pool()  # the processes start here

    def rate(self) -> float:
        """Images a second."""
        alone = len(self.paths) * self.repeats / sum(decode_all(self.paths) for _ in range(self.repeats))
        together = self._in_pool()
        self.setup = "PIL in one process" if alone > together else f"PIL in {CORES} processes"
        return max(alone, together)

    def _in_pool(self) -> float:
        work = self.paths * self.repeats
        parts = [work[i::CORES] for i in range(CORES)]
        return len(work) / seconds(lambda: list(self.pool.map(decode_all, parts)))

    def close(self) -> None:
        self.pool.shutdown()


def decode_all(paths: list[str]) -> float:
    """Decode every file to an array; returns the seconds it took."""
    started = time.perf_counter()
    for path in paths:
        np.asarray(Image.open(path))
    return time.perf_counter() - started


# --- what a user would write ------------------------------------------------------------------------

LOOP = """
import sys, time
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from embedcache.backbones.torchvision_pair import complete_torchvision

complete_torchvision()
from transformers import AutoModel

backbone, output, height, width, *paths = sys.argv[1:]
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


class Images(Dataset):
    def __len__(self):
        return len(paths)

    def __getitem__(self, i):
        image = Image.open(paths[i]).convert("RGB").resize((int(width), int(height)), Image.Resampling.BICUBIC)
        return torch.from_numpy((np.asarray(image, dtype=np.float32) / 255 - MEAN) / STD).permute(2, 0, 1)


torch.set_num_threads(THREADS)
model = AutoModel.from_pretrained(backbone).eval()
started = time.perf_counter()
found = []
with torch.inference_mode():
    for x in DataLoader(Images(), batch_size=8, num_workers=2):
        found.append(model(pixel_values=x).last_hidden_state[:, 0].half().numpy())
np.save(output, np.concatenate(found))
print(time.perf_counter() - started)
"""


def dataloader_rate(folder: Path, images: list[Path], backbone: str) -> float:
    """Images a second of the plain loop, start-up and loading not counted."""
    from embedcache import describe_backbone

    size = map(str, describe_backbone(backbone).size)
    script = LOOP.replace("THREADS", str(CORES))
    command = [sys.executable, "-c", script, backbone, str(folder / "loop.npy"), *size, *map(str, images)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return len(images) / float(done.stdout.split()[-1])


# --- ours -----------------------------------------------------------------------------------------


def run(command: list[str]) -> tuple[dict[str, Any], float]:
    """The command's JSON document and its wall-clock time as a whole process."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    document: dict[str, Any] = json.loads(done.stdout)
    return document, took


def working_seconds(store: Path) -> float:
    """From the first shard's first image, just decoded, to the last commit."""
    from embedcache import FeatureCache

    cache = FeatureCache.open(store)
    commits = [commit for p in cache.passes for commit in cache.commits(p.id)]
    first = min(datetime.fromisoformat(c.started) for c in commits)
    return (max(datetime.fromisoformat(c.finished) for c in commits) - first).total_seconds()


def all_rows_ok(store: Path, count: int) -> bool:
    from embedcache import FeatureCache

    status = FeatureCache.open(store).row_status
    return int((status == 1).sum()) == count


def tokens_equal(store: Path, backbone: str, images: list[Path], fastest: BareForward) -> bool:
    """Whether the first batch in the store is bit-equal to transformers' own forward on the same pixels.

    Same attention (SDPA), batch and threads as the store's pass; only the preprocessing is ours.
    """
    import torch

    from embedcache import FeatureCache
    from embedcache.backbones.preprocess import preprocess
    from embedcache.images.source import open_image

    cache = FeatureCache.open(store)
    (p,) = cache.passes
    by_name = {path.stem: str(path) for path in images}
    names = cache.index.plan.sample_id[: p.batch_size].tolist()
    inputs = torch.zeros((p.batch_size, 3, *cache.recipe.image.size))
    for i in range(len(names)):
        image = open_image(by_name[names[i]])
        limits = image.limits(cache.recipe.image.window, 0, 1)
        inputs[i] = preprocess(image.read(0, 1), limits, cache.recipe.image, "cpu")[0]
    model = fastest.model if fastest.attention == "sdpa" else BareForward(backbone, "sdpa", p.batch_size).model
    torch.set_num_threads(p.threads)
    with torch.inference_mode():
        hidden = model(pixel_values=inputs).last_hidden_state
    expected = hidden[: len(names), 0].to(torch.float16).numpy()
    stored = cache.layer(-1).cls_token.read()[: len(names)]
    return bool(np.array_equal(stored, expected))


if __name__ == "__main__":
    main()

"""An extraction on a GPU beside the loop that a skilled user would write for it, on the same images and the same weights.

Backbones of DINOv2's sizes with random weights, bfloat16 autocast at 224 pixels, PNG of 512x512 (192 different ones, again and
again under other names). ours: `embedcache.extract`, from the first image that a shard is begun with to the last commit, synced
to disk. baseline: a torch DataLoader with a process on every core but one (PIL, resize, uint8 in pinned memory), batches of 64,
copied without blocking and normalised on the device, `AutoModel` under autocast, tokens as float16 to main memory, one `np.save`
at the end; from its first batch to the file on disk. Both keep the CLS token, or (`patch`) all patch tokens.

ratio: the least over the cases; `cases` has each, and its rate as a share of `bound`, the slowest of decode, forward,
preprocessing and write alone, as `plan --calibrate` measures them. `--quick`: ViT-S/14 and fewer images. Without a GPU the CPU
is measured, in float32 and a few images, which says that the script runs and nothing of a GPU.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import finish, sandbox
from device_rates import MAKERS

import embedcache
from embedcache import ExtractConfig, FeatureCache
from embedcache.backbones.device import prepare_device
from embedcache.extraction.device_samples import write_images
from embedcache.extraction.device_trial import stage_rates, wanted_device

CASES = {"dinov2-small": ("cls", "patch"), "dinov2-large": ("cls", "patch")}
IMAGES = {"cls": 16_384, "patch": 4_096}
ALIKE = 0.99
"""Cosine of our tokens and the loop's, which PIL has resized in 8 bits: the median over images."""

LOOP = """
import os, sys, time
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from embedcache.backbones.torchvision_pair import complete_torchvision

complete_torchvision()
from transformers import AutoModel

backbone, output, device, kind, folder = sys.argv[1:]
paths = [os.path.join(folder, line.split(",")[0]) for line in open(os.path.join(folder, "trial.csv")).read().split()[1:]]
cuda = device.startswith("cuda")


class Images(Dataset):
    def __len__(self):
        return len(paths)

    def __getitem__(self, i):
        image = Image.open(paths[i]).resize((224, 224), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.asarray(image).copy())


def main():
    model = AutoModel.from_pretrained(backbone).eval().to(device)
    mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)
    workers = max(1, len(os.sched_getaffinity(0)) - 1)
    loader = DataLoader(Images(), batch_size=64 if cuda else 8, num_workers=workers, pin_memory=cuda, prefetch_factor=4)
    found, started = [], None
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=cuda):
        for grey in loader:
            started = started or time.perf_counter()
            x = (grey.to(device, non_blocking=True)[:, None].float() / 255 - mean) / std
            hidden = model(pixel_values=x).last_hidden_state
            found.append((hidden[:, 0] if kind == "cls" else hidden[:, 1:]).half().cpu().numpy())
    with open(output, "wb") as file:
        np.save(file, np.concatenate(found))
        os.fsync(file.fileno())
    print(time.perf_counter() - started)


main()
"""


@dataclass(frozen=True)
class Case:
    """One backbone and kind of token."""

    backbone: str
    kind: str
    device: torch.device
    images: int

    @property
    def name(self) -> str:
        return f"{self.backbone} {self.kind}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ViT-S/14, fewer images")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--case", action="append", help="only this one, as in dinov2-large:patch; repeat it")
    asked = parser.parse_args()
    device = prepare_device(wanted_device(asked.device), torch.get_num_threads())
    on_gpu = device.type == "cuda"
    pairs = [(name, kind) for name, kinds in CASES.items() for kind in kinds]
    if asked.case:
        pairs = [(name, kind) for name, kind in pairs if f"{name}:{kind}" in asked.case]
    elif asked.quick or not on_gpu:
        pairs = [(name, kind) for name, kind in pairs if name == "dinov2-small"]
    found: dict[str, dict[str, Any]] = {}
    with sandbox() as folder:
        for name, kind in pairs:
            images = (IMAGES[kind] // (4 if asked.quick else 1)) if on_gpu else 24
            case = Case(name, kind, device, images)
            place = folder / "weights" / name
            if not place.is_dir():
                with device:
                    MAKERS[name](place)
            if not (folder / str(images)).is_dir():
                write_images(folder / str(images), device.type, images)
            found[case.name] = compared(case, folder, place)
            print(json.dumps({case.name: found[case.name]}), flush=True)
    worst = min(found.values(), key=lambda line: line["ratio"])
    finish(
        "extract_device",
        {
            "same_tokens": all(line["cosine"] >= ALIKE for line in found.values()),
            "all_rows_ok": all(line["rows_ok"] for line in found.values()),
        },
        ours=worst["ours"],
        baseline=worst["dataloader"],
        baseline_name="a DataLoader with a process on every core but one, pinned memory, batches of 64, AutoModel under autocast",
        ratio=worst["ratio"],
        unit="images/s",
        device=torch.cuda.get_device_name(device) if on_gpu else "no GPU here: the CPU",
        cases=found,
    )


def compared(case: Case, folder: Path, weights: Path) -> dict[str, Any]:
    """Ours and the loop, one after the other, and what each stage alone could do."""
    images = folder / str(case.images)
    config = ExtractConfig(
        dataset="table", root=str(images / "trial.csv"), backbones=(str(weights),), tokens=case.kind, ids="keep",
        device=str(case.device), compute_dtype="bfloat16" if case.device.type == "cuda" else "float32",
        cache=str(folder / "cache" / case.name.replace(" ", "-")), fit="squash",
    )  # fmt: skip
    report = embedcache.extract(config)
    store = FeatureCache.open(report.stores[0].path)
    commits = [commit for p in store.passes for commit in store.commits(p.id)]
    began = min(datetime.fromisoformat(commit.started) for commit in commits)
    took = (max(datetime.fromisoformat(commit.finished) for commit in commits) - began).total_seconds()
    ours = case.images / took
    loop, theirs = dataloader(case, folder, images, weights)
    layer = store.layer(-1)
    first = (layer.cls_token if case.kind == "cls" else layer.patch_tokens).read()[: len(theirs)]
    a, b = (values.reshape(len(theirs), -1).astype(np.float64) for values in (first, theirs))
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    stages = stage_rates(
        replace(config, cache=config.cache + "-rates", batch_size=64 if case.device.type == "cuda" else 8)
    )
    bound = min(stages.values())
    return {
        "images": case.images,
        "ours": round(ours, 1),
        "dataloader": round(loop, 1),
        "ratio": round(ours / loop, 3),
        "stages": {stage: round(rate, 1) for stage, rate in stages.items()},
        "of_bound": round(ours / bound, 3),
        "binds": report.binds,
        "cosine": round(float(np.median(cosine)), 5),
        "rows_ok": int((store.row_status == 1).sum()) == case.images,
    }


def dataloader(case: Case, folder: Path, images: Path, weights: Path) -> tuple[float, np.ndarray]:
    """Images a second of the plain loop, and its first tokens."""
    output = folder / "loop.npy"
    command = [sys.executable, "-c", LOOP, str(weights), str(output), str(case.device), case.kind, str(images)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} if case.device.type == "cuda" else None
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    tokens = np.load(output, mmap_mode="r")[:64].copy()
    output.unlink()
    return case.images / float(done.stdout.split()[-1]), tokens


if __name__ == "__main__":
    main()

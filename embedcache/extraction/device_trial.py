"""The process behind `doctor --device`: extracts a few images on the device and on the CPU, compares, and measures.

`python -m embedcache.extraction.device_trial` reads one JSON document from standard input and answers with one, last. All of
it is one path of torch: on a GPU and on a CPU the same functions run. Imports torch.
"""

import gc
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from embedcache.backbones import Backbone, describe_backbone, load_backbone
from embedcache.backbones.device import prepare_device
from embedcache.errors import EmbedcacheError, InputError
from embedcache.extraction.calibrate import timed
from embedcache.extraction.config import ExtractConfig, asked_arrays
from embedcache.extraction.device import default_workers
from embedcache.extraction.device_check import Agreement, BackboneOnDevice, DeviceReport, Speed
from embedcache.extraction.device_samples import Samples, tiny_model, write_samples
from embedcache.extraction.forward import out_of_memory
from embedcache.extraction.job import extract
from embedcache.extraction.plan import plan
from embedcache.extraction.progress import Listener, Progress
from embedcache.extraction.recompute import FLOAT32_LIMITS
from embedcache.store import layout
from embedcache.store.reader import FeatureCache
from embedcache.types import ArraySpec

BATCH = {"cpu": 8, "cuda": 64}
BATCH_OF_VOLUMES = {"cpu": 2, "cuda": 4}
REFERENCE_BATCH = 3
"""Of the CPU's run that the device is held against: other batches take other paths through the kernels."""
MATRIX = {"cpu": 1536, "cuda": 8192}
PRODUCTS = 5
LARGEST_BATCH = {"cpu": 16, "cuda": 512}
SECONDS_A_BATCH = {"cpu": 2.0, "cuda": 0.2}
REPEATS = 3
GAIN = 1.03
"""A doubling that yields less than this has found the rate."""
DTYPES = ("float32", "bfloat16")
TINY = "a tiny random ViT"


def _attention_flops(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]


UNCOUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
"""torch counts the attention kernels of CUDA, and not this one of the CPU."""


def main() -> None:
    """Answer one request."""
    asked = json.loads(sys.stdin.read())
    try:
        report = run(asked["device"], asked["backbones"], asked["weights"], Path(asked["folder"]))
    except EmbedcacheError as error:
        print(json.dumps({"error": str(error)}))
        return
    print(json.dumps(asdict(report)))


def run(asked: str, backbones: list[str], weights: str | None, folder: Path) -> DeviceReport:
    """Try one device in `folder`, which is empty."""
    threads = len(os.sched_getaffinity(0))
    wanted = wanted_device(asked)
    missing = ""
    try:
        device = prepare_device(wanted, threads)
    except InputError as error:
        if wanted.partition(":")[0] != "cuda":
            raise
        missing, device = str(error), prepare_device("cpu", threads)
    kind = device.type
    matmul = {dtype: matrix_rate(device, dtype) for dtype in DTYPES}
    samples = cache(partial(write_samples, folder, kind))
    names = {TINY: str(tiny_model(folder / "tiny-random-vit")), **{name: name for name in backbones}}
    return DeviceReport(
        asked=asked,
        device=str(device),
        hardware=torch.cuda.get_device_name(device) if kind == "cuda" else f"{threads} cores",
        torch=torch.__version__,
        missing=missing,
        compared_with="the CPU" if kind == "cuda" else "itself with one thread, other batches and eager attention",
        matmul=matmul,
        backbones=tuple(
            try_backbone(shown, name, weights, device, samples, Path(tempfile.mkdtemp(dir=folder)), matmul)
            for shown, name in names.items()
        ),
    )


def wanted_device(asked: str) -> str:
    """`auto` is a GPU where torch sees one."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked


def try_backbone(
    shown: str,
    name: str,
    weights: str | None,
    device: torch.device,
    samples: Callable[[bool], Samples],
    folder: Path,
    matmul: dict[str, float],
) -> BackboneOnDevice:
    """One backbone: its agreement with the CPU, then its rates; `samples` of whole volumes, or not. `folder` is empty."""
    try:
        whole = describe_backbone(name, weights=weights).volume is not None
        tried = samples(whole)
        config = ExtractConfig(
            dataset="table", root=str(tried.table), backbones=(name,), weights=weights, tokens="cls,mean,patch,pooled",
            dtype="float32", ids="keep", device=str(device), batch_size=(BATCH_OF_VOLUMES if whole else BATCH)[device.type],
            cache=str(folder / "device"),
        )  # fmt: skip
        reference = replace(
            config, cache=str(folder / "reference"), device="cpu", batch_size=REFERENCE_BATCH,
            threads=1 if device.type == "cpu" else None, attention="eager" if device.type == "cpu" else "sdpa",
        )  # fmt: skip
        end_to_end = extraction_rate(config)
        extract(reference)
        agreement = compare(config, reference)
        stages = stage_rates(replace(config, cache=config.cache + "-rates", limit=None))
        flops, speeds = forward_rates(name, weights, device, matmul)
    except EmbedcacheError as error:
        return BackboneOnDevice(shown, str(error))
    except RuntimeError as error:  # what a device raises has no type of its own
        return BackboneOnDevice(shown, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    binds = min(stages, key=lambda stage: stages[stage])
    return BackboneOnDevice(shown, "", agreement, flops, speeds, end_to_end, binds, stages, tried.what)


# --- the same tokens ------------------------------------------------------------------------------


def extraction_rate(config: ExtractConfig) -> float:
    """Extract, and return images a second between the first and the last piece: start-up left out."""
    seen: list[tuple[float, int]] = []

    def progress(p: Progress) -> None:
        seen.append((time.monotonic(), p.done))

    extract(config, Listener(progress=progress))
    (started, first), (ended, last) = seen[0], seen[-1]
    return (last - first) / (ended - started) if ended > started else 0.0


def compare(config: ExtractConfig, reference: ExtractConfig) -> tuple[Agreement, ...]:
    """Per array the largest relative L2 difference of a token between the two stores."""
    ours, theirs = (FeatureCache.open(next(Path(c.cache).glob("*/*/*.zarr"))) for c in (config, reference))
    good = (ours.row_status == layout.OK) & (theirs.row_status == layout.OK)
    if int(good.sum()) != int((ours.index.plan.slice_index >= 0).sum()):
        raise InputError(
            "some of the trial's images were set aside, on the device or on the CPU; this is a bug to report."
        )
    found = []
    for spec in sorted((a for p in ours.passes for a in p.arrays), key=lambda a: a.path):
        a, b = (read(cache, spec)[good].astype(np.float64) for cache in (ours, theirs))
        norm = np.maximum(np.linalg.norm(b, axis=-1), np.finfo(np.float32).tiny)
        worst = float(np.max(np.linalg.norm(a - b, axis=-1) / norm))
        found.append(Agreement(spec.path, int(norm.size), worst, FLOAT32_LIMITS[spec.kind]))
    return tuple(found)


def read(cache: FeatureCache, spec: ArraySpec) -> np.ndarray[Any, np.dtype[Any]]:
    """One array of a store, whole."""
    return cache.tokens(spec.layer, spec.kind).read()


# --- rates ----------------------------------------------------------------------------------------


def stage_rates(config: ExtractConfig) -> dict[str, float]:
    """Images a second of decode, forward (and preprocessing, as `rates.run_time` takes them) and write, each alone."""
    report = plan(config, calibrate=True)
    rates, (p,) = report.rates, report.passes
    assert rates is not None
    decode = rates.decode / min(rates.workers or default_workers(rates.device), rates.cores)
    both = (next(iter(rates.batch.values())) / (config.batch_size or 1), next(iter(rates.preprocess.values())))
    forward = sum(both) if rates.device == "cpu" else max(both)
    write = sum(p.arrays.values()) / max(1, p.pending_slices) * rates.byte
    seconds = {"decode": decode, "forward": forward, "write": write}
    return {stage: 1 / s if s > 0 else math.inf for stage, s in seconds.items() if s > 0}


def forward_rates(
    name: str, weights: str | None, device: torch.device, matmul: dict[str, float]
) -> tuple[float, tuple[Speed, ...]]:
    """Operations of one image, and the speed in each compute dtype."""
    flops, speeds = 0.0, []
    for dtype in DTYPES:
        info = describe_backbone(name, weights=weights, compute_dtype=dtype)
        config = ExtractConfig("table", "", (name,), tokens="cls,mean,pooled,patch")
        arrays = tuple(a for a in asked_arrays(config, info, info.shape) if a.kind != "patch_tokens") or asked_arrays(
            config, info, info.shape
        )
        backbone = load_backbone(info, str(device))
        flops = flops or operations(backbone, arrays, device)
        tried, memory_bound = doubled(backbone, arrays, device)
        if tried:
            best = max(tried.values())
            batch = next(b for b, rate in tried.items() if rate * GAIN >= best)
            share = tried[batch] * flops / matmul[dtype]
            speeds.append(Speed(dtype, tried[batch], share, batch, {str(b): r for b, r in tried.items()}, memory_bound))
        del backbone
        release(device)
    return flops, tuple(speeds)


def operations(backbone: Backbone, arrays: tuple[ArraySpec, ...], device: torch.device) -> float:
    """Floating-point operations of one image, counted as they run: the same number on every device."""
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        backbone.tokens(image_batch(backbone, 1, device), arrays)
    return float(counter.get_total_flops())


def doubled(backbone: Backbone, arrays: tuple[ArraySpec, ...], device: torch.device) -> tuple[dict[int, float], bool]:
    """Images a second of batches of 1, 2, 4, … until memory or no gain; and whether it was memory."""
    tried: dict[int, float] = {}
    batch = 1
    while batch <= LARGEST_BATCH[device.type]:
        try:
            seconds = batch_seconds(backbone, arrays, batch, device)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            release(device)
            return tried, True
        rate = batch / seconds
        gained = not tried or rate > GAIN * max(tried.values())
        tried[batch] = rate
        if not gained or seconds > SECONDS_A_BATCH[device.type]:
            break
        batch *= 2
    return tried, False


def batch_seconds(backbone: Backbone, arrays: tuple[ArraySpec, ...], batch: int, device: torch.device) -> float:
    """Of one batch, the middle of a few after one to warm up."""
    x = image_batch(backbone, batch, device)
    work = partial(backbone.tokens, x, arrays)
    timed(work, device)
    return median(timed(work, device) for _ in range(REPEATS))


def image_batch(backbone: Backbone, batch: int, device: torch.device) -> torch.Tensor:
    """Random input of the backbone's own shape."""
    info = backbone.info
    channels = 3 if info.volume is None else 1
    return torch.rand((batch, channels, *info.shape), device=device)


@torch.inference_mode()
def matrix_rate(device: torch.device, dtype: str) -> float:
    """Floating-point operations a second of one large square product."""
    n = MATRIX[device.type]
    a, b = (torch.rand((n, n), device=device).to(getattr(torch, dtype)) for _ in range(2))
    work = partial(torch.mm, a, b)
    timed(work, device)
    seconds = median(timed(work, device) for _ in range(PRODUCTS))
    release(device)
    return 2 * n**3 / seconds


def release(device: torch.device) -> None:
    """Give memory back before the next thing is tried."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

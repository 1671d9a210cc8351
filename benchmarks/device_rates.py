"""What one device does with backbones of the study's real sizes (random weights): forward, end to end, share of its own peak.

For each backbone: floating-point operations of an image; images a second of the forward pass in float32 and in bfloat16 at
the best batch, and that as a share of the device's measured rate of matrix products in the same dtype; images a second of a
whole extraction in bfloat16 (PNG of 512x512, CLS and mean tokens; on a GPU 4,096 of them) with the stage that binds. Weights are
of transformers' and timm's own initialisation, made on the device, written to a temporary folder: up to 4.5 GB for ViT-g.

ours: the extraction's rate of the backbone that comes least near to its bound; baseline: that bound, the slowest of decode,
forward and write alone, as `plan` measures them. `--quick` takes ViT-S/14 and ResNet-152 only. On a machine without a GPU it says
so, and measures the CPU.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import finish, sandbox

from embedcache.backbones.device import prepare_device
from embedcache.backbones.torchvision_pair import complete_torchvision
from embedcache.extraction.config import ExtractConfig
from embedcache.extraction.device_samples import write_images
from embedcache.extraction.device_trial import (
    BATCH,
    DTYPES,
    extraction_rate,
    forward_rates,
    matrix_rate,
    stage_rates,
    wanted_device,
)

complete_torchvision()
import transformers  # noqa: E402 its models import torchvision where it is installed

IMAGES = {"cpu": 16, "cuda": 4096}
Maker = Callable[[Path], None]
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
HUGE = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "intermediate_size": 5120}
SQUARE = {"size": {"height": 224, "width": 224}, "do_center_crop": False, "resample": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two small backbones")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--backbone", action="append", help="only this one; repeat it")
    options = parser.parse_args()
    device = prepare_device(wanted_device(options.device), torch.get_num_threads())
    names = options.backbone or (QUICK if options.quick else list(MAKERS))
    with sandbox() as folder:
        table = write_images(folder / "images", device.type, IMAGES[device.type]).table
        matmul = {dtype: matrix_rate(device, dtype) for dtype in DTYPES}
        found = {name: measured(name, folder, table, device, matmul) for name in names}
    worst = min(found, key=lambda name: found[name]["ratio"])
    finish(
        "device_rates",
        {
            "rates_are_positive": all(line["end_to_end"] > 0 and line["forward"] for line in found.values()),
            # a larger share would be a count of operations that is wrong; convolutions by Winograd's method (3x3 on tiles of
            # 2x2) need 2.25 times fewer products than are counted
            "shares_are_possible": all(s <= 2.25 for line in found.values() for s in line["share"].values()),
        },
        ours=found[worst]["end_to_end"],
        baseline=found[worst]["bound"],
        baseline_name=f"{worst}: the slowest of decode, forward and write alone",
        ratio=found[worst]["ratio"],
        unit="images/s",
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU here: the CPU",
        matmul_tflops={dtype: round(rate / 1e12, 2) for dtype, rate in matmul.items()},
        backbones=found,
    )


def measured(name: str, folder: Path, table: Path, device: torch.device, matmul: dict[str, float]) -> dict[str, Any]:
    """One backbone's line, printed as it is found."""
    place = folder / "weights" / name
    with device:  # a CPU takes longer to draw a billion numbers than all that is measured
        MAKERS[name](place)
    flops, speeds = forward_rates(str(place), None, device, matmul)
    config = ExtractConfig(
        dataset="table", root=str(table), backbones=(str(place),), ids="keep", device=str(device),
        compute_dtype="bfloat16", batch_size=BATCH[device.type], cache=str(folder / "cache" / name),
    )  # fmt: skip
    rate = extraction_rate(config)
    stages = stage_rates(replace(config, cache=config.cache + "-rates"))
    bound = min(stages.values())
    for file in place.iterdir():
        file.unlink()
    line = {
        "gflop": round(flops / 1e9, 1),
        "forward": {s.compute_dtype: round(s.forward, 1) for s in speeds},
        "share": {s.compute_dtype: round(s.share, 3) for s in speeds},
        "batch": {s.compute_dtype: s.batch for s in speeds},
        "end_to_end": round(rate, 1),
        "bound": round(bound, 1),
        "binds": min(stages, key=lambda stage: stages[stage]),
        "ratio": round(rate / bound, 3),
    }
    print(json.dumps({name: line}), flush=True)
    return line


# --- backbones of real sizes ------------------------------------------------------------------------


def of_transformers(
    model: str, config: str, folder: Path, processor: Mapping[str, Any] = SQUARE, **numbers: Any
) -> None:
    """A model of transformers' own initialisation, with a processor of its input size."""
    torch.manual_seed(0)
    getattr(transformers, model)(getattr(transformers, config)(**numbers)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def of_timm(architecture: str, folder: Path) -> None:
    """A model of timm's own initialisation, in timm's own format."""
    import timm  # behind complete_torchvision
    from timm.models import save_for_hf

    torch.manual_seed(0)
    save_for_hf(timm.create_model(architecture, pretrained=False), folder)


def dinov2(width: int, depth: int, heads: int, swiglu: bool = False) -> Maker:
    numbers = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "use_swiglu_ffn": swiglu}
    return partial(of_transformers, "Dinov2Model", "Dinov2Config", image_size=518, patch_size=14, **numbers)


SAM = {k: v for k, v in LARGE.items() if k != "intermediate_size"} | {"global_attn_indexes": [5, 11, 17, 23]}
CLIP = ("CLIPVisionModelWithProjection", "CLIPVisionConfig")
MAKERS: dict[str, Maker] = {
    "dinov2-small": dinov2(384, 12, 6),
    "dinov2-base": dinov2(768, 12, 12),
    "dinov2-large": dinov2(1024, 24, 16),
    "dinov2-giant": dinov2(1536, 40, 24, swiglu=True),
    "vit-large-16": partial(of_transformers, "ViTModel", "ViTConfig", **LARGE),
    "clip-large-14": partial(of_transformers, *CLIP, **LARGE, patch_size=14, projection_dim=768),
    "clip-huge-14": partial(of_transformers, *CLIP, **HUGE, patch_size=14, projection_dim=1024),
    "densenet201": partial(of_timm, "densenet201"),
    "resnet152": partial(of_timm, "resnet152"),
    "vgg19": partial(of_timm, "vgg19"),
    "sam-large": partial(of_transformers, "SamVisionModel", "SamVisionConfig", **SAM),
}
"""Table 2 of the study and SAM; MAE's encoder is the same ViT-L/16."""
QUICK = ["dinov2-small", "resnet152"]


if __name__ == "__main__":
    main()

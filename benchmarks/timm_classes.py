"""How much of timm runs here: the smallest model of every class that timm registers, held to timm's own forward passes.

Random weights, each model's own size (rounded up to its strides) and, where it takes others, a smaller one that is no
square. ours: classes whose last layer is `forward_features`, whose pooled vector (or class token, or mean patch) is
`forward_head(pre_logits=True)`, and whose layers have the shapes that describing told. baseline: classes that there are.
The rest must be refused in one clear line; what is refused, and why, is printed. Classes whose smallest model has 100 million
parameters or more are not tried, and not counted.
"""

import argparse
import logging
import warnings
from typing import Any

import torch
from common import finish

from embedcache.backbones.timm_models import Request, Shape
from embedcache.backbones.timm_shape import on_meta, shape_of
from embedcache.backbones.timm_tower import TimmTower, as_tokens, build
from embedcache.errors import EmbedcacheError

import timm  # isort: skip  # behind timm_tower, which makes it importable beside a torch without CUDA

LARGEST = 100_000_000
"""Parameters from which a class is not tried."""
BOUND = 1e-4
"""Relative L2 of all tokens of a layer, of two ways of computing them in float32."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="only classes whose smallest model has under 5 million parameters"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    held, refused, wrong, large = [], {}, {}, []
    for kind, (name, parameters) in sorted(smallest_of_each_class().items()):
        if parameters >= (5_000_000 if options.quick else LARGEST):
            large.append(kind)
            continue
        request = Request(name, {}, {}, {})
        try:
            breaches = compare(request, shape_of(request))
        except EmbedcacheError as e:
            refused[kind] = str(e)
            print(f"refused: {kind}: {e}", flush=True)
            continue
        except Exception as e:  # noqa: BLE001 whatever else is raised is what is looked for
            breaches = [f"{type(e).__name__}: {e}"]
        if breaches:
            wrong[kind] = breaches
        else:
            held.append(kind)
        print(f"{'wrong' if breaches else 'held'}: {kind} ({name}) {'; '.join(breaches)}", flush=True)
    total = len(held) + len(refused) + len(wrong)
    finish(
        "timm_classes",
        {"none_wrong": not wrong, "refusals_in_one_line": all("\n" not in line for line in refused.values())},
        ours=len(held),
        baseline=total,
        baseline_name="classes of models that timm registers",
        ratio=round(len(held) / total, 3),
        refused=sorted(refused),
        not_tried=large,
        wrong=wrong,
        timm=timm.__version__,
    )


def smallest_of_each_class() -> dict[str, tuple[str, int]]:
    """Class → its registered model with the fewest parameters, and how many."""
    found: dict[str, tuple[str, int]] = {}
    for name in timm.list_models():
        try:
            model = on_meta(Request(name, {}, {}, {}), {})
        except Exception as e:  # noqa: BLE001 some need what is not installed
            print(f"not built: {name}: {e}", flush=True)
            continue
        kind, count = type(model).__name__, sum(p.numel() for p in model.parameters())
        if kind not in found or count < found[kind][1]:
            found[kind] = (name, count)
    return found


@torch.inference_mode()
def compare(request: Request, shape: Shape) -> list[str]:
    """In what the tokens of a random model differ from timm's own passes."""
    torch.manual_seed(0)
    plain: Any = build(request, None)
    tower = TimmTower(build(request, shape.free_size, plain.state_dict()), shape).eval()
    step = max(stride for _, stride in shape.stages)
    native = tuple(-(-side // step) * step for side in shape.size)
    breaches = []
    found = run(tower, native)
    x = pictures(native)
    features = plain.forward_features(x)
    last = found[len(shape.stages)]
    if far(last, as_tokens(plain, features)[:, -last.shape[1] :]):
        breaches.append("the last layer is not forward_features")
    try:
        vector = plain.forward_head(features, pre_logits=True)
    except Exception:  # noqa: BLE001 an encoder without a head
        vector = None
    if isinstance(vector, torch.Tensor) and vector.ndim == 2:
        known = [found[0]] if shape.pooled_size else [last[:, shape.prefix :].mean(dim=1)]
        known += [last[:, 0]] if shape.class_token and not shape.pooled_size else []
        if all(far(one, vector) for one in known):
            breaches.append("no vector is forward_head")
    if shape.free_size is not None:
        breaches += shapes_that_differ(run(tower, (step * 2, step * 3)), shape, (step * 2, step * 3))
    return breaches + shapes_that_differ(found, shape, native)


def pictures(size: tuple[int, ...]) -> torch.Tensor:
    return torch.randn((1, 3, *size), generator=torch.Generator().manual_seed(1))


def run(tower: TimmTower, size: tuple[int, ...]) -> dict[int, torch.Tensor]:
    layers = set(range(1, len(tower.shape.stages) + 1))
    return tower(pictures(size), layers | ({0} if tower.shape.pooled_size else set()))


def far(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape != b.shape or not bool(torch.linalg.norm(a - b) <= BOUND * torch.linalg.norm(b))


def shapes_that_differ(found: dict[int, torch.Tensor], shape: Shape, size: tuple[int, ...]) -> list[str]:
    told = {
        layer: (1, shape.prefix + (size[0] // stride) * (size[1] // stride), width)
        for layer, (width, stride) in enumerate(shape.stages, start=1)
    }
    return [
        f"layer {layer} at {size} is {tuple(found[layer].shape)}, and {t} was told"
        for layer, t in told.items()
        if tuple(found[layer].shape) != t
    ]


if __name__ == "__main__":
    main()

"""What several layers, and several backbones, cost beside the least that they can.

Layers: one forward pass that keeps every layer's tokens, over one that keeps the last layer's. Backbones: one extraction
with four of them, over their bare forward passes on batches that are there already plus one bare decode of the images.
Processor time on one thread, both sides in turn: on a shared machine a clock on the wall measures the neighbours.
`ratio` is the smaller of expected over measured, which 1 / 1.05 is asked of.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
from common import SHARED_DATA, finish, median, of_children, sandbox
from PIL import Image

if TYPE_CHECKING:
    from embedcache import ExtractConfig

ASKED = 1 / 1.05
BATCH = 8


@dataclass(frozen=True)
class Effort:
    """How long a run may take."""

    images: int
    rounds: int
    layer_rounds: int
    widths: tuple[int, ...]
    """Of the four backbones; each has heads of 64."""
    depth: int


QUICK = Effort(images=32, rounds=2, layer_rounds=8, widths=(192, 256, 256, 384), depth=8)
WHOLE = Effort(images=96, rounds=5, layer_rounds=12, widths=(192, 256, 384, 384), depth=12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="32 images, small backbones, two rounds")
    parser.add_argument("--images", type=int, help="how many")
    parser.add_argument("--rounds", type=int, help="how many")
    asked = parser.parse_args()
    effort = QUICK if asked.quick else WHOLE
    with sandbox() as folder:
        table = write_images(folder, asked.images or effort.images)
        backbones = make_backbones(folder, effort)
        layers = LayersTrial(backbones[-1])
        for _ in range(effort.layer_rounds):
            layers.round()
        trial = BackbonesTrial(folder, table, backbones, effort.widths[-1])
        for i in range(asked.rounds or effort.rounds):
            trial.round(i)
            print(
                f"round {i + 1}: expected {trial.expected[-1]:.2f} s, measured {trial.measured[-1]:.2f} s", flush=True
            )
        equal = layers.equal()
        one_decode, alone_equal = trial.check()
        unlike_equal = trial.check_unlike_shards()

    ratio_layers = median([last / every for last, every in zip(layers.last, layers.every, strict=True)])
    ratio_backbones = median([e / m for e, m in zip(trial.expected, trial.measured, strict=True)])
    finish(
        "multi",
        ours=median(trial.measured),
        baseline=median(trial.expected),
        baseline_name="the forward passes of four backbones, each alone on ready batches, plus one decode of the images",
        ratio=min(ratio_layers, ratio_backbones),
        ratio_layers=ratio_layers,
        ratio_backbones=ratio_backbones,
        asked=round(ASKED, 3),
        unit="seconds of processor time",
        forward_last_layer=median(layers.last),
        forward_every_layer=median(layers.every),
        layers=layers.depth,
        forwards=median(trial.forwards),
        decode=median(trial.decodes),
        images=trial.count,
        widths=effort.widths,
        checks={
            "every_layer_equals_itself_alone": equal,
            "decoded_once": one_decode,
            "stores_equal_those_of_single_runs": alone_equal,
            "stores_of_unlike_rows_per_shard_equal_those_of_single_runs": unlike_equal,
            "layers_within_1.05": ratio_layers >= ASKED,
            "backbones_within_1.05": ratio_backbones >= ASKED,
        },
    )


def write_images(folder: Path, count: int) -> Path:
    """A table of real radiographs where they are, as they are; else of noise of their size, as PNG files."""
    found = sorted((SHARED_DATA / "nih_128" / "images").glob("*.png"))[:count]
    rng = np.random.default_rng(0)
    while len(found) < count:
        path = folder / f"noise{len(found):04}.png"
        Image.fromarray(rng.integers(0, 255, (128, 128), dtype=np.uint8)).save(path)
        found.append(path)
    table = folder / "cases.csv"
    table.write_text("path,case\n" + "".join(f"{path.resolve()},{i:05}\n" for i, path in enumerate(found)))
    return table


def make_backbones(folder: Path, effort: Effort) -> list[str]:
    """Four random DINOv2 models: time does not depend on what weights know."""
    from embedcache.testing.trained_vit import make_random_vit

    return [
        str(
            make_random_vit(
                folder / f"vit{i}-{width}",
                seed=i,
                hidden_size=width,
                layers=effort.depth,
                heads=width // 64,
                image_size=224,
            )
        )
        for i, width in enumerate(effort.widths)
    ]


def processor_seconds(work: Callable[[], object]) -> float:
    """Of this process, in one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


# --- layers ---------------------------------------------------------------------------------------


class LayersTrial:
    """One forward pass for the last layer, and one for every layer, in turn."""

    def __init__(self, name: str) -> None:
        import torch

        from embedcache.backbones import describe_backbone, load_backbone
        from embedcache.backbones.device import prepare_device
        from embedcache.types import ArraySpec

        prepare_device("cpu", 1)
        info = describe_backbone(name)
        self.depth = info.layers
        self.backbone = load_backbone(info)
        self.x = torch.randn((BATCH, 3, *info.size), generator=torch.Generator().manual_seed(0))
        self.specs = [
            ArraySpec(layer, kind, "float16", (info.hidden_size,))
            for layer in range(1, info.layers + 1)
            for kind in ("cls_token", "patch_mean")
        ]
        self.last: list[float] = []
        self.every: list[float] = []
        self.backbone.tokens(self.x, self.specs)

    def round(self) -> None:
        """One more figure of each, the one that goes first taking turns."""
        sides = [(self.last, self.specs[-2:]), (self.every, self.specs)]
        for times, specs in sides if len(self.last) % 2 else sides[::-1]:
            times.append(processor_seconds(lambda specs=specs: self.backbone.tokens(self.x, specs)))

    def equal(self) -> bool:
        """Whether a layer that is asked for among all is what it is alone, bit by bit."""
        import torch

        every = self.backbone.tokens(self.x, self.specs)
        return all(
            torch.equal(self.backbone.tokens(self.x, [spec])[spec.path], every[spec.path]) for spec in self.specs
        )


# --- backbones ------------------------------------------------------------------------------------


@dataclass
class BackbonesTrial:
    """Four backbones in one extraction, and their parts alone."""

    folder: Path
    table: Path
    backbones: Sequence[str]
    widest: int
    """Features of the last backbone."""
    count: int = 0
    measured: list[float] = field(default_factory=list)
    expected: list[float] = field(default_factory=list)
    forwards: list[float] = field(default_factory=list)
    decodes: list[float] = field(default_factory=list)
    decoded: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.count = len(self.table.read_text().splitlines()) - 1

    def config(self, cache: str, backbones: Sequence[str]) -> "ExtractConfig":
        """An extraction on one thread, with one decode process."""
        from embedcache import DatasetOptions, ExtractConfig

        return ExtractConfig(
            dataset="table",
            root=str(self.table),
            backbones=tuple(backbones),
            cache=str(self.folder / cache),
            ids="keep",
            device="cpu",
            threads=1,
            workers=1,
            batch_size=BATCH,
            options=DatasetOptions(id_column="case"),
        )

    def round(self, i: int) -> None:
        """The parts, the whole, the parts again: the machine's mood before and after."""
        before = self.parts()
        self.measured.append(self.whole(f"cache-{i}"))
        after = self.parts()
        self.forwards.append((before[0] + after[0]) / 2)
        self.decodes.append((before[1] + after[1]) / 2)
        self.expected.append(self.forwards[-1] + self.decodes[-1])

    def whole(self, cache: str) -> float:
        """From the first decoded image to the last commit, with all of the decode process."""
        import embedcache

        first: list[float] = []

        def progress(_: object) -> None:
            if not first:
                first.append(time.process_time())

        children = of_children()
        report = embedcache.extract(self.config(cache, self.backbones), embedcache.Listener(progress=progress))
        self.decoded.append(report.decoded)
        return time.process_time() - first[0] + of_children() - children

    def parts(self) -> tuple[float, float]:
        """Processor seconds of all forward passes, and of one decode of all images by an equal process."""
        import torch

        from embedcache.backbones import describe_backbone, load_backbone
        from embedcache.types import ArraySpec

        forward = 0.0
        batches = -(-self.count // BATCH)
        for name in self.backbones:
            info = describe_backbone(name)
            backbone = load_backbone(info)
            x = torch.randn((BATCH, 3, *info.size), generator=torch.Generator().manual_seed(0))
            specs = [
                ArraySpec(info.layers, kind, "float16", (info.hidden_size,)) for kind in ("cls_token", "patch_mean")
            ]
            backbone.tokens(x[:1], specs)
            forward += processor_seconds(lambda b=backbone, x=x, s=specs: [b.tokens(x, s) for _ in range(batches)])
        children = of_children()
        own = processor_seconds(self.decode)
        return forward, own + of_children() - children

    def decode(self) -> None:
        """Every image through a decode process, and no further."""
        from embedcache.extraction.decode import DecodePool
        from embedcache.extraction.pieces import Request
        from embedcache.images import ImageOptions, parse_window

        paths = [line.split(",")[0] for line in self.table.read_text().splitlines()[1:]]
        requests = [Request(i, path, 1, 0, 1) for i, path in enumerate(paths)]
        with DecodePool(1, parse_window("auto"), ImageOptions(), 120.0, 2 * BATCH, lambda: False) as pool:
            for _ in pool.pieces(requests):
                pass

    def check(self) -> tuple[bool, bool]:
        """Whether every run decoded each image once, and the last one's stores are those of single runs."""
        import embedcache
        from embedcache.testing.stores import differences

        same = True
        for name in self.backbones[:2]:
            single = embedcache.extract(self.config("alone", [name]))
            path = Path(single.stores[0].path)
            together = self.folder / f"cache-{len(self.measured) - 1}" / path.relative_to(self.folder / "alone")
            same &= differences(path, together) == []
        return all(decoded == self.count for decoded in self.decoded), same

    def check_unlike_shards(self) -> bool:
        """Whether the widest and the narrowest backbone give together, in either order, what each gives alone, where a shard
        holds fewer rows of the one than of the other: of the widest a quarter of all, while a batch has 2 images.
        """
        import embedcache
        from embedcache.store import layout
        from embedcache.store.reader import FeatureCache
        from embedcache.testing.stores import differences

        ends = [self.backbones[-1], self.backbones[0]]
        alone: dict[str, Path] = {}
        rows, same = set(), True
        longest = layout.choose_quantum(self.count) // 4 * 2 * self.widest
        with patch.object(layout, "MAX_SHARD_BYTES", longest):
            for name in ends:
                alone[name] = Path(embedcache.extract(self.small_batches("unlike-alone", [name])).stores[0].path)
                rows |= {p.rows_per_shard for p in FeatureCache.open(alone[name]).passes}
            for order in (ends, ends[::-1]):
                report = embedcache.extract(self.small_batches(f"unlike-{Path(order[0]).name}", order))
                same &= report.decoded == self.count
                same &= all(differences(alone[store.backbone], Path(store.path)) == [] for store in report.stores)
        return same and len(rows) == 2

    def small_batches(self, cache: str, backbones: Sequence[str]) -> "ExtractConfig":
        """So small that a shard is longer than what is asked of the decoders ahead."""
        return replace(self.config(cache, backbones), tokens="cls", batch_size=2)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

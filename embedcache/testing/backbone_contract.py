"""What every backbone of slices must hold to, ours and other packages': `check_backbone(name)`. Imports torch."""

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import numpy as np
import torch

from embedcache.backbones import describe_backbone, image_recipe, load_backbone
from embedcache.backbones.preprocess import preprocess
from embedcache.datasets.base import DatasetOptions
from embedcache.errors import InputError, TokenOverflowError
from embedcache.extraction.config import ExtractConfig
from embedcache.extraction.job import extract
from embedcache.extraction.stored import stored_tokens
from embedcache.store.reader import FeatureCache
from embedcache.testing.backbone_subject import BOUNDS, EVERYTHING, Subject, Tokens, apart, relative_l2, unequal
from embedcache.testing.files import write_png
from embedcache.types import Calibration, TokenKind, Volume, Window

PLACES = 12
"""So many squares at most, one image each."""


def check_backbone(*names: str, device: str = "cpu", **settings: str) -> None:
    """Describe and load each backbone of `names` and hold it, on small inputs, to what an extraction relies on.

    Its description imports no torch; all layers and kinds that it tells of come in the shape told, in float32, the same each
    time, from each load and in any batch; a layer asked for alone is the layer asked for with all others; a bright square that
    moves is followed by its patch; a grey image is the colour image of the same; sizes that do not fit are refused by
    InputError, tokens that are no numbers before they are stored; and what a store returns is what the model computed.
    settings: of `describe_backbone`. Raises AssertionError with every breach, InputError for an encoder of whole volumes.
    """
    infos = [describe_backbone(name, **settings) for name in names]  # type: ignore[arg-type]  # `weights` is a string too
    for info in infos:
        if info.volume is not None:
            raise InputError(f"{info.store_name} sees whole volumes; check_backbone is for backbones of slices.")
    subjects = [Subject(load_backbone(info, device), torch.device(device)) for info in infos]
    breaches = [*_of_describing(names, settings), *_of_store(subjects, settings)]
    for subject in subjects:
        breaches += [f"{subject.info.store_name}: {line}" for line in breaches_of(subject)]
    if breaches:
        raise AssertionError("backbones break their contract: " + "; ".join(breaches))


def breaches_of(subject: "Subject") -> Iterator[str]:
    """What a loaded backbone does not hold to."""
    for check in CHECKS:
        yield from check(subject)


# --- its description --------------------------------------------------------------------------------


def _of_description(subject: Subject) -> Iterator[str]:
    info = subject.info
    unknown = set(info.kinds) - set(get_args(TokenKind))
    if unknown or not info.kinds:
        yield f"its kinds are {', '.join(info.kinds) or 'none'}; there is {', '.join(get_args(TokenKind))}"
    if ("pooled" in info.kinds) != (info.pooled_size > 0):
        yield f"pooled_size is {info.pooled_size} and its kinds are {', '.join(info.kinds)}"
    if min(min(stage.width, stage.stride) for stage in info.stages) < 1:
        yield "it has a layer without width or stride"
    if len(info.mean) != 3 or len(info.std) != 3 or min(info.std) <= 0:
        yield f"mean and std are three numbers each, std above 0. Got {info.mean} and {info.std}"
    if not info.norm:
        yield "it does not say what norm its layers have passed through"


def _of_describing(names: Sequence[str], settings: Mapping[str, str]) -> Iterator[str]:
    """In a process of its own, where nothing was imported before."""
    code = (
        "import sys; from embedcache.backbones import describe_backbone\n"
        f"for name in {list(names)!r}: describe_backbone(name, **{dict(settings)!r})\n"
        "print(*sorted({'torch', 'transformers', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        yield f"another process can not describe them: {done.stderr.strip().splitlines()[-1]}"
    elif done.stdout.strip():
        yield f"describing them imports {done.stdout.strip()}"


# --- its tokens -------------------------------------------------------------------------------------


def _of_shapes(subject: Subject) -> Iterator[str]:
    for size in subject.sizes:
        arrays = subject.arrays(size)
        found = subject.tokens(subject.pictures(2, size))
        if found.keys() != {spec.path for spec in arrays}:
            yield f"asked for {len(arrays)} arrays it returns {', '.join(sorted(found))}"
            return
        for spec in arrays:
            values = found[spec.path]
            if values.shape != (2, *spec.shape) or values.dtype != torch.float32 or values.requires_grad:
                told = (2, *spec.shape)
                yield f"{spec.path} at {_by(size)} is {values.dtype} of shape {tuple(values.shape)}, and float32 {told} was told"
            elif not bool(torch.isfinite(values).all()):
                yield f"{spec.path} at {_by(size)} is not finite"


def _of_repetition(subject: Subject) -> Iterator[str]:
    size = subject.grid_size
    x = subject.pictures(2, size)
    before = x.clone()
    first = subject.tokens(x)
    if not torch.equal(x, before):
        yield "it changes its input"
    if not subject.info.fixed_size:
        subject.tokens(subject.pictures(1, subject.info.size))  # what ran before must not show
    yield from unequal(first, subject.tokens(x), "computed twice, after another size")
    again = replace(subject, backbone=load_backbone(subject.info, str(subject.device)))
    yield from unequal(first, again.tokens(x), "loaded twice")


def _of_batches(subject: Subject) -> Iterator[str]:
    x = subject.pictures(4, subject.grid_size)
    whole = subject.tokens(x)
    filled = x.clone()
    filled[2:] = 0
    two = {path: values[:2] for path, values in subject.tokens(filled).items()}
    yield from unequal({path: values[:2] for path, values in whole.items()}, two, "with other images in the batch")
    alone = [subject.tokens(x[i : i + 1]) for i in range(len(x))]
    for path, values in whole.items():
        distance = relative_l2(torch.cat([row[path] for row in alone]), values)
        if distance > BOUNDS[path.rpartition("/")[2]]:
            yield f"{path} of an image alone is {distance:.1e} (relative L2) from that in a batch"


def _of_layers(subject: Subject) -> Iterator[str]:
    size = subject.grid_size
    x, arrays = subject.pictures(2, size), subject.arrays(size)
    together = subject.tokens(x)
    for layer, specs in itertools.groupby(arrays, key=lambda spec: spec.layer):
        own = list(specs)
        expected = {spec.path: together[spec.path] for spec in own}
        yield from unequal(expected, subject.tokens(x, own), f"asked for without the layers other than {layer}")
    for spec, later in itertools.combinations(arrays, 2):
        if (
            spec.kind == later.kind
            and spec.shape == later.shape
            and torch.equal(together[spec.path], together[later.path])
        ):
            yield f"{spec.path} and {later.path} are the same"


def _of_constants(subject: Subject) -> Iterator[str]:
    for value in (0.0, 1.0, -3.0):
        x = torch.full((1, 3, *subject.grid_size), value, device=subject.device)
        for path, values in subject.tokens(x).items():
            if not bool(torch.isfinite(values).all()):
                yield f"{path} of a constant image of {value} is not finite"


def _of_places(subject: Subject) -> Iterator[str]:
    """Of a square of the coarsest patches' size, put on dark ground at many places.

    For each layer: what changes in each patch is measured against what changes in it on average over the places.
    """
    size, info = subject.grid_size, subject.info
    arrays = [spec for spec in subject.arrays(size) if spec.kind == "patch_tokens"]
    if not arrays:
        return
    step = max(stage.stride for stage in info.stages)
    grid = (size[0] // step, size[1] // step)
    everywhere = list(itertools.product(range(grid[0]), range(grid[1])))
    places = [
        everywhere[i] for i in np.linspace(0, len(everywhere) - 1, min(PLACES, len(everywhere))).round().astype(int)
    ]
    dark = torch.zeros((1, 3, *size), device=subject.device)
    before = subject.tokens(dark, arrays)
    change: dict[str, list[torch.Tensor]] = {spec.path: [] for spec in arrays}
    for y, x in places:
        bright = dark.clone()
        bright[:, :, y * step : (y + 1) * step, x * step : (x + 1) * step] = 2
        for path, values in subject.tokens(bright, arrays).items():
            change[path].append(_per_cell((values - before[path])[0], grid, places))
    for path, rows in change.items():
        yield from _not_followed(path, places, torch.stack(rows))


def _not_followed(path: str, places: Sequence[tuple[int, int]], change: torch.Tensor) -> Iterator[str]:
    """change: (place of the square, patch).

    A convolution spreads it to the patches around, to each as much as to its own, and the deepest layers of a CNN see all of
    so small an image: a square may show one patch off, though not on average, and a few of them anywhere.
    """
    shown = [places[i] for i in (change / change.mean(dim=0)).argmax(dim=1).tolist()]
    off = np.array(shown) - np.array(places)
    lost = np.flatnonzero(np.abs(off).max(axis=1) > 1).tolist()
    if len(lost) > len(places) / 4:
        first = lost[0]
        yield (
            f"{path}: of {len(places)} squares {len(lost)} do not show where they are, that at (y, x) = {places[first]} at "
            f"{shown[first]}"
        )
    y, x = off.mean(axis=0)
    if max(abs(y), abs(x)) >= 0.5:
        yield f"{path}: squares show {y:+.1f} patches lower and {x:+.1f} to the right of where they are"


def _per_cell(difference: torch.Tensor, grid: tuple[int, int], places: Sequence[tuple[int, int]]) -> torch.Tensor:
    """(places,): how much the tokens (y, x, E) under each patch of the coarsest grid have changed, at `places`."""
    y, x, _ = difference.shape
    energy = difference.double().square().sum(dim=-1)
    cells = energy.reshape(grid[0], y // grid[0], grid[1], x // grid[1]).sum(dim=(1, 3))
    return torch.stack([cells[place] for place in places])


# --- its inputs -------------------------------------------------------------------------------------


def _of_odd_sizes(subject: Subject) -> Iterator[str]:
    height, width = subject.grid_size
    for size in ((height + 1, width), (height, width - 1), (1, 1), (height, 2 * height + 1)):
        try:
            arrays = subject.arrays(size)
            found = subject.tokens(subject.pictures(1, size), arrays)
            wrong = [spec.path for spec in arrays if found[spec.path].shape != (1, *spec.shape)]
        except InputError:
            continue
        except Exception as error:  # noqa: BLE001 whatever else it raises is the breach
            yield f"an input of {_by(size)} ends in {type(error).__name__}, and not in an InputError"
            continue
        if wrong:
            yield f"{wrong[0]} of an input of {_by(size)} has not the shape that was told"


def _of_grey(subject: Subject) -> Iterator[str]:
    info = subject.info
    image = image_recipe(info, Window("range"), size=subject.grid_size)
    grey = np.random.default_rng(0).integers(0, 256, (1, 50, 40), dtype=np.uint8)
    calibration = Calibration(np.ones(1), np.zeros(1))
    one, limits = Volume(grey, calibration, "raster"), np.array([[[0.0, 255.0]]])
    three = Volume(np.repeat(grey[..., np.newaxis], 3, axis=3), calibration, "raster")
    first = subject.tokens(preprocess(one, limits, image, subject.device))
    second = subject.tokens(preprocess(three, np.repeat(limits, 3, axis=1), image, subject.device))
    yield from apart(first, second, "of a grey image and of the colour image of the same")


def _of_numbers(subject: Subject) -> Iterator[str]:
    """An input that is no number is found before it is stored, in each layer."""
    size = subject.grid_size
    arrays = subject.arrays(size)
    found = subject.tokens(torch.full((1, 3, *size), torch.nan, device=subject.device))
    for spec in arrays:
        try:
            list(
                stored_tokens(found, torch.zeros(1, dtype=torch.long, device=subject.device), [spec], subject.info.name)
            )
        except TokenOverflowError as error:
            if spec.path in str(error):
                continue
        yield f"{spec.path} of an image of NaN is stored as if it were tokens"


CHECKS = (
    _of_description,
    _of_shapes,
    _of_repetition,
    _of_batches,
    _of_layers,
    _of_constants,
    _of_places,
    _of_odd_sizes,
    _of_grey,
    _of_numbers,
)


# --- through a store --------------------------------------------------------------------------------


def _of_store(subjects: Sequence[Subject], settings: Mapping[str, str]) -> Iterator[str]:
    """Three small images through one extraction with all of them, each at its own size, and back."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, {"EMBEDCACHE_HOME": folder}):
        root = Path(folder)
        pixels = np.random.default_rng(1).integers(0, 256, (3, 50, 40), dtype=np.uint8)
        lines = ["path,case"]
        for i, image in enumerate(pixels):
            write_png(root / f"{i}.png", image)
            lines.append(f"{i}.png,case{i}")
        (root / "cases.csv").write_text("\n".join(lines) + "\n")
        config = ExtractConfig(
            dataset="table",
            root=str(root / "cases.csv"),
            backbones=tuple(subject.info.name for subject in subjects),
            cache=str(root / "cache"),
            tokens=EVERYTHING,
            layers="all",
            dtype="float32",
            window="range",
            options=DatasetOptions(id_column="case"),
            ids="keep",
            device=str(subjects[0].device),
            batch_size=4,
            threads=torch.get_num_threads(),
            workers=1,
            **settings,  # type: ignore[arg-type]  # strings, which is what these fields are
        )
        report = extract(config)
        if report.exit_code:
            yield f"an extraction of three images ends with exit code {report.exit_code}"
            return
        for subject in subjects:
            info = subject.info
            (path,) = Path(config.cache).glob(f"*/{info.store_name}/*.zarr")
            stored = _stored(FeatureCache.open(path), len(pixels))
            for line in apart(subject.tokens(_inputs(subject, pixels)), stored, "computed and of the store"):
                yield f"{info.store_name}: {line}"


def _inputs(subject: Subject, pixels: "np.ndarray[Any, np.dtype[np.uint8]]") -> torch.Tensor:
    n = len(pixels)
    volume = Volume(pixels, Calibration(np.ones(n), np.zeros(n)), "raster")
    limits = np.tile([[[0.0, 255.0]]], (n, 1, 1))
    return preprocess(volume, limits, image_recipe(subject.info, Window("range")), subject.device)


def _stored(cache: FeatureCache, n: int) -> Tokens:
    """By path, the rows of `case0`, `case1`, … in this order."""
    plan = cache.index.plan
    ids = plan.sample_id.tolist()
    rows = [int(plan.slice_start[ids.index(f"case{i}")]) for i in range(n)]
    specs = [spec for p in cache.passes for spec in p.arrays]
    return {spec.path: torch.from_numpy(cache.tokens(spec.layer, spec.kind).rows(rows)) for spec in specs}


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"

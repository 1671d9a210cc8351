"""What every backbone must hold to, ours and other packages', of slices and of volumes: `check_backbone(name)`. Imports torch."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import get_args

import numpy as np
import torch

from embedcache.backbones import describe_backbone, image_recipe, load_backbone
from embedcache.backbones.preprocess import preprocess
from embedcache.errors import InputError
from embedcache.testing.backbone_subject import Subject, apart
from embedcache.testing.contract_of_places import of_places
from embedcache.testing.contract_of_store import of_store
from embedcache.testing.contract_of_tokens import (
    of_batches,
    of_constants,
    of_layers,
    of_numbers,
    of_odd_sizes,
    of_repetition,
    of_shapes,
)
from embedcache.types import Calibration, TokenKind, Volume, Window

Check = Callable[[Subject], Iterator[str]]


def check_backbone(*names: str, device: str = "cpu", **settings: str) -> None:
    """Describe and load each backbone of `names` and hold it, on small inputs, to what an extraction relies on.

    Its description imports no torch; all layers and kinds that it tells of come in the shape told, in float32, the same each
    time, from each load and in any batch; a layer asked for alone is the layer asked for with all others; a bright square that
    moves (of an encoder of whole volumes: a cube, along z, y and x) is followed by its patch; a grey image is the colour image
    of the same; sizes that do not fit are refused by InputError, tokens that are no numbers before they are stored; and what a
    store returns is what the model computed.
    settings: of `describe_backbone`. Raises AssertionError with every breach.
    """
    infos = [describe_backbone(name, **settings) for name in names]  # type: ignore[arg-type]  # `weights` is a string too
    subjects = [Subject(load_backbone(info, device), torch.device(device)) for info in infos]
    breaches = [*_of_describing(names, settings), *of_store(subjects, settings)]
    for subject in subjects:
        breaches += [f"{subject.info.store_name}: {line}" for line in breaches_of(subject)]
    if breaches:
        raise AssertionError("backbones break their contract: " + "; ".join(breaches))


def breaches_of(subject: Subject) -> Iterator[str]:
    """What a loaded backbone does not hold to."""
    for check in CHECKS_OF_SLICES if subject.info.volume is None else CHECKS_OF_VOLUMES:
        yield from check(subject)


# --- its description --------------------------------------------------------------------------------


def _of_description(subject: Subject) -> Iterator[str]:
    info, n = subject.info, subject.channels
    unknown = set(info.kinds) - set(get_args(TokenKind))
    if unknown or not info.kinds:
        yield f"its kinds are {', '.join(info.kinds) or 'none'}; there is {', '.join(get_args(TokenKind))}"
    if ("pooled" in info.kinds) != (info.pooled_size > 0):
        yield f"pooled_size is {info.pooled_size} and its kinds are {', '.join(info.kinds)}"
    if min(min(stage.width, *stage.along(subject.axes)) for stage in info.stages) < 1:
        yield "it has a layer without width or stride"
    if len(info.mean) != n or len(info.std) != n or min(info.std) <= 0:
        told = "three numbers each" if n == 3 else "one number each"
        yield f"mean and std are {told}, std above 0. Got {info.mean} and {info.std}"
    if not info.norm:
        yield "it does not say what norm its layers have passed through"
    try:
        info.grid(info.shape)
    except InputError as error:
        yield f"its own input does not fit: {error}"


def _of_describing(names: Sequence[str], settings: Mapping[str, str]) -> Iterator[str]:
    """In a process of its own, where nothing was imported before."""
    code = (
        "import sys; from embedcache.backbones import describe_backbone\n"
        f"for name in {list(names)!r}: describe_backbone(name, **{dict(settings)!r})\n"
        "print(*sorted({'torch', 'transformers', 'timm', 'monai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        yield f"another process can not describe them: {done.stderr.strip().splitlines()[-1]}"
    elif done.stdout.strip():
        yield f"describing them imports {done.stdout.strip()}"


# --- what only slices have --------------------------------------------------------------------------


def _of_grey(subject: Subject) -> Iterator[str]:
    info = subject.info
    y, x = subject.grid_size
    image = image_recipe(info, Window("range"), size=(y, x))
    grey = np.random.default_rng(0).integers(0, 256, (1, 50, 40), dtype=np.uint8)
    calibration = Calibration(np.ones(1), np.zeros(1))
    one, limits = Volume(grey, calibration, "raster"), np.array([[[0.0, 255.0]]])
    three = Volume(np.repeat(grey[..., np.newaxis], 3, axis=3), calibration, "raster")
    first = subject.tokens(preprocess(one, limits, image, subject.device))
    second = subject.tokens(preprocess(three, np.repeat(limits, 3, axis=1), image, subject.device))
    yield from apart(first, second, "of a grey image and of the colour image of the same")


CHECKS_OF_VOLUMES: tuple[Check, ...] = (
    _of_description,
    of_shapes,
    of_repetition,
    of_batches,
    of_layers,
    of_constants,
    of_places,
    of_odd_sizes,
    of_numbers,
)
"""Whole volumes have one channel, and one in colour is refused when it is read: there is no grey to hold against colour."""
CHECKS_OF_SLICES: tuple[Check, ...] = (*CHECKS_OF_VOLUMES, _of_grey)

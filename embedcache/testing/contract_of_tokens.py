"""What every backbone's tokens must hold to, of slices and of volumes alike: see `check_backbone`. Imports torch."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch

from embedcache.backbones import load_backbone
from embedcache.errors import InputError, TokenOverflowError
from embedcache.extraction.stored import stored_tokens
from embedcache.testing.backbone_subject import BOUNDS, Subject, by, relative_l2, unequal


def of_shapes(subject: Subject) -> Iterator[str]:
    """Of every layer and kind, at its own size and another: the shape that was told, float32, finite."""
    for size in subject.sizes:
        arrays = subject.arrays(size)
        found = subject.tokens(subject.noise(2, size))
        if found.keys() != {spec.path for spec in arrays}:
            yield f"asked for {len(arrays)} arrays it returns {', '.join(sorted(found))}"
            return
        for spec in arrays:
            values = found[spec.path]
            if values.shape != (2, *spec.shape) or values.dtype != torch.float32 or values.requires_grad:
                told = (2, *spec.shape)
                yield f"{spec.path} at {by(size)} is {values.dtype} of shape {tuple(values.shape)}, and float32 {told} was told"
            elif not bool(torch.isfinite(values).all()):
                yield f"{spec.path} at {by(size)} is not finite"


def of_repetition(subject: Subject) -> Iterator[str]:
    """The same to the bit each time, also after another size, and from each load; the input stays as it was."""
    size = subject.grid_size
    x = subject.noise(2, size)
    before = x.clone()
    first = subject.tokens(x)
    if not torch.equal(x, before):
        yield "it changes its input"
    if not subject.info.fixed_size:
        subject.tokens(subject.noise(1, subject.info.shape))  # what ran before must not show
    yield from unequal(first, subject.tokens(x), "computed twice, after another size")
    again = replace(subject, backbone=load_backbone(subject.info, str(subject.device)))
    yield from unequal(first, again.tokens(x), "loaded twice")


def of_batches(subject: Subject) -> Iterator[str]:
    """What else is in a batch must not show, and its size only within BOUNDS."""
    x = subject.noise(4, subject.grid_size)
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


def of_layers(subject: Subject) -> Iterator[str]:
    """A layer asked for alone is that asked for with all others, and no layer is another."""
    size = subject.grid_size
    x, arrays = subject.noise(2, size), subject.arrays(size)
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


def of_constants(subject: Subject) -> Iterator[str]:
    """An image of one value, black or bright, has tokens as well."""
    for value in (0.0, 1.0, -3.0):
        for path, values in subject.tokens(subject.constant(value, subject.grid_size)).items():
            if not bool(torch.isfinite(values).all()):
                yield f"{path} of a constant image of {value} is not finite"


def of_odd_sizes(subject: Subject) -> Iterator[str]:
    """A size that does not fit is refused by InputError, any other gives the shapes that were told."""
    for size in odd_sizes(subject.grid_size):
        try:
            arrays = subject.arrays(size)
            found = subject.tokens(subject.noise(1, size), arrays)
            wrong = [spec.path for spec in arrays if found[spec.path].shape != (1, *spec.shape)]
        except InputError:
            continue
        except Exception as error:  # noqa: BLE001 whatever else it raises is the breach
            yield f"an input of {by(size)} ends in {type(error).__name__}, and not in an InputError"
            continue
        if wrong:
            yield f"{wrong[0]} of an input of {by(size)} has not the shape that was told"


def odd_sizes(size: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """One more or less along each axis, a single pixel or voxel, and two that are long: one odd, one of whole patches."""
    for axis, n in enumerate(size):
        yield (*size[:axis], n + 1 if axis == 0 else n - 1, *size[axis + 1 :])
    yield (1,) * len(size)
    yield (*size[:-1], 2 * size[0] + 1)
    yield (2 * size[0], *size[1:])


def of_numbers(subject: Subject) -> Iterator[str]:
    """An input that is no number is found before it is stored, in each layer."""
    size = subject.grid_size
    arrays = subject.arrays(size)
    found = subject.tokens(subject.constant(torch.nan, size))
    first = torch.zeros(1, dtype=torch.long, device=subject.device)
    for spec in arrays:
        try:
            list(stored_tokens(found, first, [spec], subject.info.name))
        except TokenOverflowError as error:
            if spec.path in str(error):
                continue
        yield f"{spec.path} of an image of NaN is stored as if it were tokens"

"""Several backbones in one run: all at once where the device's memory holds them, else one turn after another.

What is estimated: a backbone's weights, from its files; and the largest of their forward passes, by a stated bound, since
they run one after another. Decoding is repeated for each turn, and the stores are the same bits as those of one turn.
"""

import gc
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcache.errors import InputError
from embedcache.extraction.budget import say_bytes
from embedcache.extraction.sources import Tell
from embedcache.types import BackboneInfo, Pass

if TYPE_CHECKING:
    import torch

    from embedcache.backbones import Backbone
    from embedcache.extraction.opening import OpenStore

SHARE = 0.9
"""Of the free memory that is planned with: the rest is for kernels' workspaces and fragments."""
BLOCK_COPIES = 16
"""The bound of a forward pass: a block's input so many times. In a ViT they are the input, its normed copy, queries, keys and
values, the attention's output, and the hidden layer of the MLP (4 times as wide) before and after its activation: 15."""
FLOAT_BYTES = 4
HEADER_BYTES = 2**27
"""More than any safetensors header has; it begins with its length."""


def room(device: "torch.device") -> int | None:
    """Bytes of memory that are free on a device (on the CPU: that the system has available); None where nothing says so."""
    import torch

    from embedcache.backbones.device import return_freed_memory

    gc.collect()
    return_freed_memory()  # of the backbones of the turn before
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    available = next((line for line in lines if line.startswith("MemAvailable:")), None)
    return int(available.split()[1]) * 1024 if available else None


def weights_bytes(info: BackboneInfo) -> int:
    """What a backbone's weights take once they are loaded: 4 bytes a number, or 2 where the recipe casts them."""
    folder = Path(info.folder)
    if not info.folder or not folder.is_dir():
        return 0
    each = 2 if info.model.compute_dtype.endswith("-cast") else FLOAT_BYTES
    if files := sorted(folder.glob("*.safetensors")):
        return each * sum(map(_numbers, files))
    others = [file for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern)]
    return sum(file.stat().st_size for file in others) * each // FLOAT_BYTES


def _numbers(file: Path) -> int:
    """How many numbers a safetensors file holds, by its header."""
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header: dict[str, Any] = json.loads(opened.read(length)) if length < HEADER_BYTES else {}
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def forward_bytes(info: BackboneInfo, size: tuple[int, ...], passes: Sequence[Pass]) -> int:
    """A bound on what the largest batch of a backbone's passes takes while it runs, what is kept of its layers included."""
    found = 0
    for p in passes:
        widest = max(math.prod(info.grid(size, i + 1)) * stage.width for i, stage in enumerate(info.stages))
        kept = sum(
            math.prod(info.grid(size, layer)) * info.stages[layer - 1].width
            for layer in {a.layer for a in p.arrays} - {0}
        )
        numbers = 3 * math.prod(size) + BLOCK_COPIES * widest + kept
        found = max(found, FLOAT_BYTES * p.batch_size * numbers)
    return found


Member = tuple["OpenStore", tuple[Pass, ...]]


def first_turn(members: Sequence[Member], free: int | None) -> tuple[list[Member], list[Member]]:
    """The stores that the next turn fills, in their order, and those that wait for another one.

    All stores of one backbone share its weights. A backbone that does not fit alone has a turn of its own all the same: the
    estimate is a bound, and a batch that does not fit is halved.
    """
    weights: dict[str, int] = {}
    largest = 0
    for store, passes in members:
        info = store.planned.info
        more = {**weights, info.name: weights_bytes(info)}
        batch = max(largest, forward_bytes(info, store.planned.recipe.image.shape, passes))
        if weights and free is not None and sum(more.values()) + batch > SHARE * free:
            continue
        weights, largest = more, batch
    return split(members, set(weights))


def split(members: Sequence[Member], names: set[str]) -> tuple[list[Member], list[Member]]:
    """The stores of the backbones in `names`, and the others."""
    chosen = [m for m in members if m[0].planned.info.name in names]
    return chosen, [m for m in members if m[0].planned.info.name not in names]


def load_turn(
    members: Sequence[Member],
    load: Callable[[BackboneInfo], "Backbone"],
    out_of_memory: Callable[[BaseException], bool],
) -> dict[str, "Backbone"]:
    """The backbones of a turn by name, each loaded once; those that did not fit after all are not among them.

    Raises InputError where not even the first one fits.
    """
    loaded: dict[str, Backbone] = {}
    for info in {store.planned.info.name: store.planned.info for store, _ in members}.values():
        try:
            loaded[info.name] = load(info)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if not loaded:
                raise InputError(
                    f"the weights of {info.name} do not fit into memory; use a device that has more."
                ) from error
            break
    return loaded


def tell_turn(turn: Sequence[Member], waiting: Sequence[Member], free: int | None, tell: Tell) -> None:
    """One line where not all backbones run at once."""
    if waiting:
        names = [list(dict.fromkeys(store.planned.info.name for store, _ in some)) for some in (turn, waiting)]
        has = f" ({say_bytes(free)} are free)" if free is not None else ""
        tell(
            f"memory{has} does not hold all backbones at once, so they take turns, and the images are decoded again for each: "
            f"now {', '.join(names[0])}, then {', '.join(names[1])}"
        )

"""Where a transformers class keeps what is stored: names of modules, as data. No torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Layout = Literal["tokens", "grid", "map"]
"""Of a block's output: (n, prefix + patches, E), (n, y, x, E) or (n, E, y, x)."""


@dataclass(frozen=True)
class Structure:
    """One architecture of transformers, as its own classes name its parts.

    A name may have alternatives, of transformers versions that differ; the first that is there counts.
    """

    architecture: str
    """The class in transformers: `Dinov2Model`."""
    blocks: tuple[str, ...]
    """The list of blocks or stages whose outputs are the layers."""
    layout: Layout = "tokens"
    last_of: str = ""
    """The list within a block whose last module's output is the layer, where the block goes on to the next one's width."""
    output: int = 0
    """Which of a block's outputs is the layer, where it has several."""
    arrange: Callable[[Any, tuple[int, int]], Any] | None = None
    """(output, input size) → the output in `layout`, for an architecture that keeps its tokens in another order."""
    norm: tuple[str, ...] = ()
    """The final norm that every layer of the last one's width passes through; () is none."""
    extra: tuple[str, ...] = ()
    """A module behind the blocks whose output is one more layer, of layout `map`: SAM's neck."""
    pooled: str = ""
    """The attribute of the model's output that is its own pooled vector."""
    inputs: Callable[[Any], Mapping[str, Any]] | None = None
    """Images (n, 3, H, W) → arguments of the model's forward pass, where it takes them in another form."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the model's forward pass."""
    build: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the model's constructor."""
    may_be_absent: tuple[str, ...] = ()
    """Ends of parameter names that a checkpoint may lack, since nothing that is stored depends on them."""
    channels_last: bool = False
    """Convolutions throughout: the memory format that they like."""

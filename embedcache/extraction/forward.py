"""Batches through a backbone: halved where memory runs out, and on a GPU recorded once and replayed. Imports torch."""

import torch

from embedcache.errors import InputError
from embedcache.extraction.share import Target
from embedcache.extraction.sources import Tell
from embedcache.store.quantise import float_arrays


class Forward:
    """The forward pass of one target.

    A GPU is told of each kernel of a pass one by one, which takes longer than to run them where a backbone is small or its
    batch is: of ViT-S's 64 images 11 ms on an H200's host, however long the GPU takes. The first batch runs as the model's own
    code says; then the same is recorded as one CUDA graph, whose replay tells the GPU of all at once. It is kept only if it
    gives the same bits: not all do, since cuBLAS may choose other kernels while it is recorded.
    """

    def __init__(self, target: Target, pool: "Pool | None" = None) -> None:
        self.target = target
        self.arrays = float_arrays(target.stored_pass.arrays)
        # what torch.compile makes may record graphs of its own
        self.pool = None if target.backbone.info.model.compiled else pool
        self.graph: torch.cuda.CUDAGraph | None = None
        self.x: torch.Tensor | None = None
        self.out: dict[str, torch.Tensor] = {}

    def tokens(self, x: torch.Tensor, tell: Tell) -> dict[str, torch.Tensor]:
        """The tokens of a batch, by array path. What a replay gives is overwritten by the next one of any target of the pool."""
        if self.graph is not None and x is self.x:
            self.graph.replay()
            return self.out
        tokens = tokens_of(self.target, x, tell)
        if self.pool is not None and x.is_cuda and self.target.batch_size == len(x):
            self._record(x, tokens, self.pool)
        return tokens

    def _record(self, x: torch.Tensor, expected: dict[str, torch.Tensor], pool: "Pool") -> None:
        """Tried once: not every model can be recorded, and there may be no memory for it."""
        self.pool = None
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(x.device), torch.cuda.graph(graph, pool.handle, capture_error_mode="thread_local"):
                out = self.target.backbone.tokens(x, self.arrays)
            graph.replay()
        except RuntimeError:
            torch.cuda.synchronize(x.device)
            return
        if all(torch.equal(out[path], values) for path, values in expected.items()):
            self.graph, self.x, self.out = graph, x, out


class Pool:
    """Memory that all recorded passes of a run share, since none runs beside another."""

    def __init__(self) -> None:
        self.handle = torch.cuda.graph_pool_handle()


def tokens_of(target: Target, x: torch.Tensor, tell: Tell) -> dict[str, torch.Tensor]:
    """The tokens of a batch. Where memory runs out the batch is halved, for the rest of the run, and that is said."""
    arrays = float_arrays(target.stored_pass.arrays)
    while True:
        try:
            parts = [target.backbone.tokens(part, arrays) for part in torch.split(x, target.batch_size)]
            return {path: torch.cat([part[path] for part in parts]) for path in parts[0]}
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if target.batch_size == 1:
                raise InputError(
                    f"one image of {'x'.join(map(str, x.shape[2:]))} pixels does not fit into memory with "
                    f"{target.backbone.info.name}; use a smaller --size, or a device with more memory."
                ) from error
        target.batch_size //= 2
        if x.device.type == "cuda":
            torch.cuda.empty_cache()
        tell(
            f"memory ran out; {target.backbone.info.name} goes on with {target.batch_size} images at once. Its tokens may "
            "differ in the last bits from those of a larger batch, and the commits say so."
        )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; on a CPU torch has no type of its own for that."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)

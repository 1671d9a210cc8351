"""Chosen rows of a store made again, batched as the extraction batched them, so that equal machines give equal bits.

Imports torch.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from embedcache.backbones import load_backbone
from embedcache.backbones.preprocess import preprocess
from embedcache.extraction.decode import DecodePool
from embedcache.extraction.device import default_workers
from embedcache.extraction.limits import known_limits
from embedcache.extraction.prepare import Prepared, paths_of
from embedcache.extraction.worker import runs
from embedcache.store.quantise import float_arrays
from embedcache.store.reader import FeatureCache
from embedcache.types import Pass

Rows: TypeAlias = npt.NDArray[np.int64]


def remake(
    cache: FeatureCache,
    prepared: Prepared,
    p: Pass,
    rows: Rows,
    device: torch.device,
    stopping: Callable[[], bool],
) -> Iterator[tuple[Rows, dict[str, npt.NDArray[np.float32]] | None]]:
    """(rows, their float32 tokens by array path) batch by batch; None in place of tokens where an image can not be read.

    rows: ascending rows of the store. Of arrays that are stored as int8 the float patch tokens are given.
    """
    config, plan = prepared.config, cache.index.plan
    backbone = load_backbone(prepared.stores[0].info, str(device))
    arrays = float_arrays(p.arrays)
    paths = paths_of(plan, prepared.samples, prepared.sources)
    batch: dict[int, torch.Tensor] = {}

    def computed() -> tuple[Rows, dict[str, npt.NDArray[np.float32]]]:
        x = torch.zeros((p.batch_size, *next(iter(batch.values())).shape), device=device)
        places = [row % p.rows_per_shard % p.batch_size for row in batch]
        x[places] = torch.stack(list(batch.values()))
        tokens = backbone.tokens(x, arrays)
        chosen = np.fromiter(batch, dtype=np.int64)
        batch.clear()
        return chosen, {path: value[places].float().cpu().numpy() for path, value in tokens.items()}

    def batch_of(row: int) -> tuple[int, int]:
        return row // p.rows_per_shard, row % p.rows_per_shard // p.batch_size

    workers = config.workers or default_workers(device.type)
    window, options = cache.recipe.image.window, config.options_for(cache.recipe.image)
    known = known_limits(plan.sample_id, prepared.sources, window, options)
    with DecodePool(workers, window, options, config.decode_timeout, 2 * p.batch_size, stopping, known) as pool:
        for piece in pool.pieces(runs(plan, rows, paths, cache.recipe.image)):
            first = int(plan.slice_start[piece.sample]) + piece.start
            of_piece = np.arange(first, first + piece.stop - piece.start)
            if piece.volume is None or piece.limits is None:
                yield of_piece, None
                continue
            sample = str(plan.sample_id[piece.sample])
            pictures = preprocess(piece.volume, piece.limits, cache.recipe.image, device, sample, piece.start)
            for row, picture in zip(of_piece.tolist(), pictures, strict=True):
                if batch and batch_of(next(iter(batch))) != batch_of(row):
                    yield computed()
                batch[row] = picture.clone()  # the piece's memory is handed out again
        if batch:
            yield computed()

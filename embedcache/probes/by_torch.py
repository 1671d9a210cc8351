"""Neighbours by products on a device of torch: they propose, and exact comparisons on the CPU decide.

Imported only where a device is asked for. The rows lie on the device once, as float32; products of some queries with all of
them are made within `_ROOM`, and only the highest leave the device, while the next ones are made. Where the rows do not fit,
they come in blocks, for each block of queries anew.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from embedcache.errors import InputError
from embedcache.probes.neighbours import Device, Members, Nearest, Rows
from embedcache.probes.proposed import Proposal, Proposer, proposed_nearest

_ROOM = 2**30
"""Bytes of the products that are held at a time, and of a block of rows where not all fit."""
_LEAST_ROOM = 2**22


def torch_nearest(rows: Rows, queries: Rows, k: int, members: Members, device: Device) -> Nearest:
    """The k nearest rows of each query; torch has the device (`torch_lacks`). Raises InputError if that has no room at all."""
    return proposed_nearest(rows, queries, k, members, Proposer(_Products(rows, device).launch))


def torch_lacks(device: Device) -> str:
    """What torch says where it can not multiply on this device; empty where it can."""
    try:
        one = torch.ones(1, 1, device=device)
        torch.mm(one, one)  # BLAS takes what it needs for itself before rows fill the memory
    except (RuntimeError, AssertionError) as error:
        return f"torch {torch.__version__} says: {str(error).splitlines()[0]}"
    return ""


class _Products:
    """Rows on a device, whole or block by block, and the highest products of queries with them."""

    def __init__(self, rows: Rows, device: Device) -> None:
        self._rows, self._device = rows, torch.device(device)
        self._held: torch.Tensor | None = None
        self._whole, self._room = True, _ROOM

    def launch(self, queries: Rows, fetch: int) -> Callable[[], Proposal]:
        """As `Proposer.launch`: with less on the device, and once more, where its memory ran out."""
        while True:
            try:
                with _full_float32():
                    return _to_host(*self._highest(_moved(queries, self._device), fetch))
            except torch.OutOfMemoryError:
                pass  # what the error holds on to is free only behind this line
            self._make_room()

    def _make_room(self) -> None:
        if self._whole:
            self._held, self._whole = None, False
        elif self._room > _LEAST_ROOM:
            self._room //= 4
        else:
            raise InputError(
                f"device={self._device} has no room even for {self._room >> 20} MiB of products; free its memory, take "
                "another device, or leave device at cpu."
            )

    def _parts(self) -> Iterator[tuple[int, torch.Tensor]]:
        if self._whole:
            if self._held is None:
                self._held = _moved(self._rows, self._device)
            yield 0, self._held
            return
        step = max(1, self._room // (4 * self._rows.shape[1]))
        for start in range(0, len(self._rows), step):
            yield start, _moved(self._rows[start : start + step], self._device)

    def _highest(self, queries: torch.Tensor, fetch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each part of the rows, and then of what the parts have: no other product is higher."""
        best: tuple[torch.Tensor, torch.Tensor] | None = None
        for start, part in self._parts():
            pieces = -(-4 * len(queries) * len(part) // self._room)
            tops = [
                torch.topk(torch.mm(some, part.T), min(fetch, len(part)), sorted=False)
                for some in torch.chunk(queries, pieces)
            ]
            value, row = torch.cat([top.values for top in tops]), torch.cat([top.indices for top in tops]) + start
            if best is not None:
                both = torch.cat([best[0], value], 1)
                top = torch.topk(both, min(fetch, both.shape[1]), sorted=False)
                value, row = top.values, torch.cat([best[1], row], 1).gather(1, top.indices)
            best = value, row
        assert best is not None
        return best


def _moved(values: Rows, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.require(values, np.float32, ["C", "W"])).to(device)


def _to_host(value: torch.Tensor, row: torch.Tensor) -> Callable[[], Proposal]:
    """Starts to copy; the outcome waits for the copy."""
    if value.device.type == "cpu":
        return lambda: (value.numpy(), row.numpy())
    copies = [
        torch.empty(it.shape, dtype=it.dtype, pin_memory=True).copy_(it, non_blocking=True) for it in (value, row)
    ]
    copied = torch.cuda.current_stream(value.device).record_event()

    def wait() -> Proposal:
        copied.synchronize()
        return copies[0].numpy(), copies[1].numpy()

    return wait


@contextmanager
def _full_float32() -> Iterator[None]:
    """No TF32 or bfloat16 inside a product: the slack of `proposed_nearest` is that of float32. What was set comes back."""
    backends: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    newer = [(it, it.fp32_precision) for it in backends if hasattr(it, "fp32_precision")]  # since torch 2.9
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        for backend, precision in newer:
            if backend.fp32_precision != precision:
                backend.fp32_precision = precision

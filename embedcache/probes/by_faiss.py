"""Neighbours by FAISS's flat index, on a CPU or a GPU: it proposes, and exact comparisons decide."""

from typing import Any

from embedcache.errors import InputError
from embedcache.probes.neighbours import Device, Members, Nearest, Rows
from embedcache.probes.proposed import Proposer, proposed_nearest

_MOST_ON_A_GPU = 2048
"""FAISS's own limit of k on a GPU."""


def faiss_nearest(rows: Rows, queries: Rows, k: int, members: Members, device: Device) -> Nearest:
    """The k nearest rows of each query. Raises InputError without FAISS, or where it has no such device."""
    index = _index(rows, device)
    proposer = Proposer(
        # Only when it is waited for: on a CPU it would take the cores from what decides.
        lambda some, fetch: lambda: index.search(some, fetch),
        None if device == "cpu" else _MOST_ON_A_GPU,
    )
    return proposed_nearest(rows, queries, k, members, proposer)


def faiss_library() -> Any:
    """The optional package."""
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "search=faiss needs FAISS, which is not installed: pip install 'embedcache[faiss]', or leave search at auto."
        ) from error
    return faiss


def faiss_has(device: Device) -> bool:
    """Whether FAISS is installed and searches there."""
    try:
        import faiss
    except ImportError:
        return False
    return device == "cpu" or (hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > _number(device))


def _index(rows: Rows, device: Device) -> Any:
    faiss = faiss_library()
    index: Any = faiss.IndexFlatIP(rows.shape[1])
    if device != "cpu":
        if not faiss_has(device):
            raise InputError(
                f"search=faiss on device={device} needs a FAISS with GPU support and that GPU, and this one has not both: "
                "install faiss-gpu in place of faiss-cpu, or leave search at auto, which takes torch."
            )
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), _number(device), index)
    index.add(rows)
    return index


def _number(device: Device) -> int:
    return int(device.partition(":")[2] or 0)

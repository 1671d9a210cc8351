"""The device that an extraction or its forecast runs on."""

import os
from typing import TYPE_CHECKING

from embedcache.errors import MissingPackageError
from embedcache.extraction.config import ExtractConfig
from embedcache.extraction.prepare import choose_device

if TYPE_CHECKING:
    import torch


def ready_device(config: ExtractConfig, threads: int) -> "torch.device":
    """The asked device, set up; imports torch. Raises InputError if it is not there, MissingPackageError without torch."""
    try:
        from embedcache.backbones.device import prepare_device  # torch is imported here, and only where there is work
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"an extraction needs {error.name}: pip install 'embedcache[cpu]', or 'embedcache[gpu]' with a GPU."
        ) from error
    return prepare_device(choose_device(config.device), threads, config.tf32)


def default_workers(device_type: str) -> int:
    """Decode processes: on a CPU they share the cores with the forward pass."""
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // 2) if device_type == "cpu" else max(1, min(cores - 1, 32))

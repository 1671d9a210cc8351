"""The device, set so that equal work gives equal bits."""

import ctypes

import torch

from embedcache.errors import InputError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Names of glibc's `mallopt` parameters (malloc.h)."""


def prepare_device(device: str, threads: int, tf32: bool = False) -> torch.device:
    """`device` (`cpu`, `cuda`, `cuda:1`) with `threads` CPU threads, TF32 as asked and cuDNN autotune off, for this process.

    TF32 keeps 10 bits of a float32's mantissa, which a recipe must say; autotune picks kernels by timing, so that tokens
    would depend on the moment. Raises InputError for a device that is not there.
    """
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()) or threads < 1:
        raise InputError(f"device must be cpu, cuda or cuda:N, with at least 1 thread. Got {device!r}, {threads}.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"no CUDA device is visible to torch {torch.__version__}; use --device cpu.")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise InputError(f"there are {torch.cuda.device_count()} CUDA devices, counted from 0. Got {device!r}.")
    torch.set_num_threads(threads)
    keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return torch.device(device)


def keep_freed_memory() -> None:
    """Let glibc keep the memory that one forward pass frees for the next one.

    By default large blocks go back to the system and come again as fresh pages, which must be mapped and zeroed: seen
    as 47,000 page faults an image (ViT-S at 224) and most of the time of an extraction on a CPU. Other C libraries have
    no `mallopt`, and keep their ways.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> None:
    """Give back to the system what `keep_freed_memory` kept: the backbones that used it are gone."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)

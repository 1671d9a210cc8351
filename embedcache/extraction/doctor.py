"""`embedcache doctor`: versions, devices, places, a cache's file system, named backbones, and the one thing to do about
each problem.

Imports no torch here.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from embedcache.backbones.carried import weights_in
from embedcache.backbones.loading import Loading, try_loading
from embedcache.datasets.private import data_dir
from embedcache.extraction.bundle import Bundle, make_bundle
from embedcache.extraction.device_check import DeviceReport, check_device
from embedcache.store.processes import child_environment
from embedcache.store.trial import Trial, try_file_system

PACKAGES = (
    "embedcache", "numpy", "scipy", "scikit-learn", "zarr", "pyarrow", "pillow", "pydicom", "nibabel", "pylibjpeg",
    "imagecodecs", "SimpleITK", "h5py",
    "torch", "torchvision", "transformers", "timm", "monai", "safetensors", "faiss-cpu", "faiss-gpu", "matplotlib", "xarray",
)  # fmt: skip
TORCH_SCRIPT = """
import json
import torch
devices = []
for i in range(torch.cuda.device_count()):
    p = torch.cuda.get_device_properties(i)
    devices.append(f"cuda:{i} {p.name}, {p.total_memory / 2**30:.0f} GiB")
said = {"devices": devices, "cuda": torch.version.cuda, "mended": False, "models": None}
from embedcache.backbones.torchvision_pair import complete_torchvision
said["mended"] = complete_torchvision()
try:
    from transformers import Dinov2Model
    said["models"] = ""
except ModuleNotFoundError as error:
    said["models"] = None if error.name == "transformers" else str(error)
except Exception as error:
    said["models"] = str(error)
print(json.dumps(said))
"""
TORCHVISION_BEHIND = 15
"""torchvision 0.N+15 is the one for torch 2.N."""


@dataclass(frozen=True)
class DoctorReport:
    """What is there and what is wrong."""

    versions: dict[str, str]
    devices: tuple[str, ...]
    places: dict[str, str]
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """What is not as it should be, and does no harm here."""
    file_system: tuple[Trial, ...] = ()
    """What was tried on the cache's file system, if a cache was named."""
    free: int | None = None
    """Bytes that are free there."""
    backbones: tuple[Loading, ...] = ()
    """The named ones: whether each can load here."""
    bundle: Bundle | None = None
    """What to carry to a machine without a network, if that was asked."""
    device: DeviceReport | None = None
    """What was found on the named device."""

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def doctor(
    cache: str | Path | None = None,
    *,
    backbones: Sequence[str] = (),
    weights: str | None = None,
    bundle: bool = False,
    device: str | None = None,
) -> DoctorReport:
    """Versions of what embedcache uses, devices, where private data lies, and problems with their remedy.

    cache: a folder whose file system is tried as well, in a temporary folder inside it that is removed: what a store needs,
    with several processes. backbones: each is loaded, in a process of its own. weights: a folder of carried weights.
    bundle: also list what to carry. device: extract a few images on `auto`, `cpu`, `cuda` or `cuda:1`, with a tiny random
    model and with the named backbones, and compare with the CPU. Raises InputError if `cache` or `weights` is not there.
    """
    # first: the parts that may refuse
    file_system, free = try_file_system(Path(cache).expanduser()) if cache is not None else ((), None)
    with weights_in(weights):
        loaded = tuple(try_loading(name, weights=weights) for name in backbones)
    tried = check_device(device, [b.name for b in loaded if b.loads], weights) if device is not None else None
    versions = {"python": sys.version.split()[0], **{name: installed(name) for name in PACKAGES}}
    devices, problems, warnings = look_at_torch(versions)
    problems += look_at_faiss(versions)
    for name, formats in (("SimpleITK", "NRRD and MetaImage"), ("h5py", "MATLAB 7.3 files")):
        if versions[name] == "absent":
            versions[name] = f"absent ({formats} are not read: pip install 'embedcache[volumes]')"
    problems += [f"{trial.name}, at the cache: {trial.meaning} ({trial.seen})" for trial in file_system if not trial.ok]
    problems += [f"{b.name} can not load here: {b.problem}" for b in loaded if not b.loads]
    problems += tried.problems if tried is not None else ()
    return DoctorReport(
        versions=versions,
        devices=(f"cpu, {len(os.sched_getaffinity(0))} cores", *devices),
        places={"private data": str(data_dir())},
        problems=tuple(problems),
        warnings=tuple(warnings),
        file_system=file_system,
        free=free,
        backbones=loaded,
        bundle=make_bundle(loaded) if bundle else None,
        device=tried,
    )


def look_at_torch(versions: dict[str, str]) -> tuple[list[str], list[str], list[str]]:
    """GPUs, problems and warnings of torch, torchvision and transformers."""
    if versions["torch"] == "absent":
        absent = "torch is absent, so nothing can be extracted (probing works)"
        return [], [f"{absent}: pip install 'embedcache[cpu]' or 'embedcache[gpu]'"], []
    problems, warnings = [], []
    said = ask_torch()
    if said is None:
        return [], ["torch does not import: install torch anew, in the build for this machine"], []
    if versions["transformers"] == "absent":
        problems.append("transformers is absent: pip install 'embedcache[cpu]' or 'embedcache[gpu]'")
    elif said["models"] is not None and said["models"] != "":
        problems.append(
            f"transformers does not import its models ({' '.join(said['models'].split())[:120]}): install transformers anew"
            + (f", and {pair(versions['torch'])} or no torchvision" if versions["torchvision"] != "absent" else "")
        )
    if said["mended"]:
        warnings.append(beside_torch(versions["torchvision"], versions["torch"]))
    return list(said["devices"]), problems, warnings


def ask_torch() -> dict[str, Any] | None:
    """What torch says of itself, in a process of its own: a broken pair must not take the doctor down. None: nothing."""
    done = subprocess.run(
        [sys.executable, "-c", TORCH_SCRIPT], capture_output=True, text=True, check=False, env=child_environment()
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return None
    said: dict[str, Any] = json.loads(lines[-1])
    return said


def beside_torch(torchvision: str, torch: str) -> str:
    """What is so of a torchvision whose compiled part does not load: another version, or the right one in another build."""
    number = re.match(r"\d+\.\d+", torchvision)
    right = number is not None and pair(torch).startswith(f"torchvision {number[0]} ")
    what = (
        f"is the version for torch {torch}, in a build whose compiled part does not load beside it (CUDA's beside a "
        "torch for the CPU, mostly)"
        if right
        else f"is not the version for torch {torch}, so its compiled part does not load"
    )
    return (
        f"torchvision {torchvision} {what}: embedcache calls nothing of that part, and nothing is to be done for it; only other "
        f"software that does (its nms, its codecs) needs {pair(torch)}"
    )


def pair(torch: str) -> str:
    """The torchvision that goes with a torch: `torchvision 0.28 in the same build (CPU or CUDA) as torch`."""
    found = re.match(r"2\.(\d+)", torch)
    which = (
        f"torchvision 0.{int(found[1]) + TORCHVISION_BEHIND}" if found else "the torchvision that torch's notes name"
    )
    return f"{which} in the same build (CPU or CUDA) as torch {torch}"


def look_at_faiss(versions: dict[str, str]) -> list[str]:
    """Both packages of FAISS at once break each other; none is fine."""
    if versions["faiss-cpu"] != "absent" and versions["faiss-gpu"] != "absent":
        return [
            "faiss-cpu and faiss-gpu are both installed and break each other: pip uninstall both, then install one of them"
        ]
    if importlib.util.find_spec("faiss") is None:
        versions["faiss"] = "absent (neighbours are found with numpy; pip install 'embedcache[faiss]' is faster)"
    return []


def installed(name: str) -> str:
    """A package's version, or `absent`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"

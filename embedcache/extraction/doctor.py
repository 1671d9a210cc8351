"""`embedcache doctor`: versions, devices, places, a cache's file system, and the one thing to do about each problem.

Imports no torch here.
"""

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from embedcache.datasets.private import data_dir
from embedcache.store.trial import Trial, try_file_system

PACKAGES = (
    "embedcache", "numpy", "scipy", "scikit-learn", "zarr", "pyarrow", "pillow", "pydicom", "nibabel", "pylibjpeg",
    "imagecodecs", "SimpleITK", "h5py",
    "torch", "torchvision", "transformers", "safetensors", "faiss-cpu", "faiss-gpu", "matplotlib", "xarray",
)  # fmt: skip
DEVICE_SCRIPT = """
import torch
for i in range(torch.cuda.device_count()):
    p = torch.cuda.get_device_properties(i)
    print(f"cuda:{i} {p.name}, {p.total_memory / 2**30:.0f} GiB")
"""


@dataclass(frozen=True)
class DoctorReport:
    """What is there and what is wrong."""

    versions: dict[str, str]
    devices: tuple[str, ...]
    places: dict[str, str]
    problems: tuple[str, ...]
    file_system: tuple[Trial, ...] = ()
    """What was tried on the cache's file system, if a cache was named."""
    free: int | None = None
    """Bytes that are free there."""

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def doctor(cache: str | Path | None = None) -> DoctorReport:
    """Versions of what embedcache uses, devices, where private data lies, and problems with their remedy.

    cache: a folder whose file system is tried as well, in a temporary folder inside it that is removed: what a store needs,
    with several processes. Raises InputError if it is not there or can not be written.
    """
    # first: it is the one part that may refuse
    file_system, free = try_file_system(Path(cache).expanduser()) if cache is not None else ((), None)
    versions = {"python": sys.version.split()[0], **{name: installed(name) for name in PACKAGES}}
    devices = [f"cpu, {len(os.sched_getaffinity(0))} cores"]
    problems = []
    if versions["torch"] == "absent":
        problems.append(
            "torch is absent, so nothing can be extracted (probing works): pip install 'embedcache[cpu]' or 'embedcache[gpu]'"
        )
    else:
        # in a process of its own: a broken pair of torch and torchvision must not take the doctor down
        found = subprocess.run([sys.executable, "-c", DEVICE_SCRIPT], capture_output=True, text=True, check=False)
        devices += found.stdout.splitlines()
        if found.returncode:
            problems.append(
                "torch does not import: install torch anew, and torchvision in the version that its notes name, or not at all"
            )
        elif versions["transformers"] != "absent" and not imports("transformers", "Dinov2Model"):
            problems.append(
                f"transformers does not import its models; torchvision {versions['torchvision']} may not fit torch "
                f"{versions['torch']}: install the matching pair, or remove torchvision"
            )
    if versions["transformers"] == "absent" and versions["torch"] != "absent":
        problems.append("transformers is absent: pip install 'embedcache[cpu]' or 'embedcache[gpu]'")
    if versions["faiss-cpu"] != "absent" and versions["faiss-gpu"] != "absent":
        problems.append("faiss-cpu and faiss-gpu are both installed and break each other: pip uninstall one of them")
    if importlib.util.find_spec("faiss") is None:
        versions["faiss"] = "absent (neighbours are found with numpy)"
    for name, formats in (("SimpleITK", "NRRD and MetaImage"), ("h5py", "MATLAB 7.3 files")):
        if versions[name] == "absent":
            versions[name] = f"absent ({formats} are not read: pip install 'embedcache[volumes]')"
    problems += [f"{trial.name}, at the cache: {trial.meaning} ({trial.seen})" for trial in file_system if not trial.ok]
    places = {"private data": str(data_dir())}
    return DoctorReport(versions, tuple(devices), places, tuple(problems), file_system, free)


def installed(name: str) -> str:
    """A package's version, or `absent`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def imports(module: str, attribute: str) -> bool:
    """Whether `from module import attribute` works, tried in a process of its own."""
    command = [sys.executable, "-c", f"from {module} import {attribute}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0

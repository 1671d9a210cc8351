"""`doctor --device`: whether a device gives the tokens that the CPU gives, how fast it is, and what it waits for.

The work is done by `device_trial` in a process of its own, with a home of its own: a device that breaks must not take the
doctor down, and the trial's images must not enter the user's private index. Imports no torch.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedcache.datasets.private import ENVIRONMENT
from embedcache.errors import InputError
from embedcache.store.processes import child_environment


@dataclass(frozen=True)
class Agreement:
    """How far one array's tokens are from those of the CPU."""

    array: str
    tokens: int
    worst: float
    """The largest relative L2 difference of a token."""
    limit: float

    @property
    def ok(self) -> bool:
        """Whether it is within the bound; a token that is no number is not."""
        return self.worst <= self.limit


@dataclass(frozen=True)
class Speed:
    """How fast one backbone runs in one compute dtype."""

    compute_dtype: str
    forward: float
    """Images a second of the forward pass alone, at the suggested batch."""
    share: float
    """Of the device's own matrix-product rate in that dtype, from 0 to 1."""
    batch: int
    """The smallest batch that is about as fast as any that was tried: a suggestion, and only that."""
    tried: Mapping[str, float]
    """Batch → images a second."""
    memory_bound: bool
    """Whether memory, and not a lack of gain, ended the doubling."""


@dataclass(frozen=True)
class BackboneOnDevice:
    """One backbone on the device."""

    name: str
    problem: str
    """Why it could not be tried, "" where it was; then the rest is empty."""
    agreement: tuple[Agreement, ...] = ()
    flops: float = 0.0
    """Floating-point operations of one image's forward pass; a multiplication and an addition are two."""
    speeds: tuple[Speed, ...] = ()
    end_to_end: float = 0.0
    """Images a second from files to a store, start-up left out; float32."""
    binds: str = ""
    """The stage of that which the others wait for."""
    stages: Mapping[str, float] | None = None
    """Images a second of decode, forward and write, each alone."""
    images: str = ""
    """Which images the rates are for; of an encoder of whole volumes each is one."""

    @property
    def ok(self) -> bool:
        """Whether it was tried, and agrees."""
        return not self.problem and all(a.ok for a in self.agreement)


@dataclass(frozen=True)
class DeviceReport:
    """What was found on one device."""

    asked: str
    device: str
    """The one that was tried: the CPU where the asked one is not there."""
    hardware: str
    torch: str
    missing: str
    """Why the asked device was not tried, "" where it was."""
    compared_with: str
    matmul: Mapping[str, float]
    """Compute dtype → measured floating-point operations a second of a large matrix product."""
    backbones: tuple[BackboneOnDevice, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, a line each."""
        lines = [f"{self.missing} The CPU was tried instead."] if self.missing else []
        for b in self.backbones:
            if b.problem:
                lines.append(f"{b.name} on {self.device}: {b.problem}")
            lines += [
                f"{b.name} on {self.device}: {a.array} differs from {self.compared_with} by {a.worst:.1e}, more than "
                f"{a.limit:.0e}; do not extract here, and look at the device's driver and torch's build"
                for a in b.agreement
                if not a.ok
            ]
        return tuple(lines)


def check_device(device: str, backbones: Sequence[str] = (), weights: str | None = None) -> DeviceReport:
    """Try `device` (`auto`, `cpu`, `cuda`, `cuda:1`) with a tiny random model and with each of `backbones`.

    A few synthetic images, or volumes for an encoder of those, are extracted on the device and on the CPU and compared; a CPU
    is held against itself with other threads and batches. Raises InputError where the trial itself ends badly, for example
    without torch.
    """
    with tempfile.TemporaryDirectory(prefix="embedcache-device-") as folder:
        asked = {"device": device, "backbones": list(backbones), "weights": weights, "folder": folder}
        done = subprocess.run(
            [sys.executable, "-m", "embedcache.extraction.device_trial"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
            env=child_environment(**{ENVIRONMENT: str(Path(folder) / "home")}),
        )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise InputError(f"the trial of {device} ended badly: {last}; see whether `python -c 'import torch'` works.")
    answer = json.loads(lines[-1])
    if "error" in answer:
        raise InputError(answer["error"])
    return report_of(answer)


def report_of(answer: Mapping[str, object]) -> DeviceReport:
    """The trial's answer as a report."""
    found = dict(answer)
    backbones = found.pop("backbones")
    assert isinstance(backbones, list)
    made = tuple(
        BackboneOnDevice(
            **{
                **b,
                "agreement": tuple(Agreement(**a) for a in b.get("agreement", ())),
                "speeds": tuple(Speed(**s) for s in b.get("speeds", ())),
            }
        )
        for b in backbones
    )
    return DeviceReport(**found, backbones=made)  # type: ignore[arg-type]  # they are its own fields, written as JSON

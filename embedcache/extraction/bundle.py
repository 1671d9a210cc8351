"""`doctor --bundle`: which wheels and which weights to carry to a machine without a network. Imports no torch."""

import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement

from embedcache.backbones.carried import WeightFile
from embedcache.backbones.loading import Loading

EXTRAS = ("cpu", "gpu", "faiss", "dicom", "volumes", "figures", "timm", "monai", "xarray")
"""Of embedcache; those whose packages are installed here are carried."""
ROOT = "embedcache"
OPTIONAL = ("timm", "torchvision", "monai")
"""Carried where they are installed, however that was done: beside a torch for the CPU they come without dependencies."""


@dataclass(frozen=True)
class Wheel:
    """One package at the version that is installed here."""

    name: str
    version: str
    """"" where something that is installed needs it and it is not here."""


@dataclass(frozen=True)
class CarriedModel:
    """One backbone's weights."""

    name: str
    commit: str
    files: tuple[WeightFile, ...]
    """() where they are not here."""
    todo: str
    """What to do where they are not here."""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Bundle:
    """All there is to carry."""

    python: str
    platform: str
    extras: tuple[str, ...]
    wheels: tuple[Wheel, ...]
    models: tuple[CarriedModel, ...]

    @property
    def absent(self) -> tuple[str, ...]:
        """Packages that something installed here asks for and that are not here."""
        return tuple(wheel.name for wheel in self.wheels if not wheel.version)


def make_bundle(backbones: Sequence[Loading]) -> Bundle:
    """The closure of what embedcache and its installed extras require, at the versions of this installation."""
    extras = tuple(extra for extra in EXTRAS if _is_here(extra))
    found = {name: _version(name) for name in OPTIONAL if _version(name)}
    waiting = [(ROOT, extras), *((name, ()) for name in found)]
    while waiting:
        name, wanted = waiting.pop()
        for requirement in _requirements(name, wanted):
            key = requirement.name.lower().replace("_", "-")
            if key not in found:
                found[key] = _version(requirement.name)
                waiting.append((requirement.name, tuple(requirement.extras)))
    found.pop(ROOT, None)
    return Bundle(
        python=".".join(map(str, sys.version_info[:3])),
        platform=f"{platform.system().lower()} {platform.machine()}",
        extras=extras,
        wheels=tuple(Wheel(name, version) for name, version in sorted(found.items())),
        models=tuple(CarriedModel(b.name, b.commit, b.files, "" if b.files else b.problem) for b in backbones),
    )


def _is_here(extra: str) -> bool:
    """Whether all that an extra of embedcache brings is installed."""
    brought = _requirements(ROOT, (extra,), only=True)
    return bool(brought) and all(_version(requirement.name) for requirement in brought)


def _requirements(name: str, extras: Iterable[str], only: bool = False) -> list[Requirement]:
    """What an installed package asks for here, with those extras; `only` those that the extras bring."""
    try:
        texts = distribution(name).requires or []
    except PackageNotFoundError:
        return []
    found = []
    for requirement in map(Requirement, texts):
        marker = requirement.marker
        plain = marker is None or marker.evaluate({"extra": ""})
        by_extra = marker is not None and any(marker.evaluate({"extra": extra}) for extra in extras)
        if (by_extra and not plain) if only else (plain or by_extra):
            found.append(requirement)
    return found


def _version(name: str) -> str:
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return ""

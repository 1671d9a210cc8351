"""What encoders of whole volumes that MONAI builds say in their `config.json`. No torch, no weights.

The file holds `model_type`, the arguments of MONAI's constructor under their own names, and how volumes are to come:

| key | meaning | unless given |
|---|---|---|
| `img_size` | voxels that the model takes, a number or one for each axis | must be there |
| `orientation` | where the model's axes point: MONAI's `axcodes` | `RAS` |
| `spacing` | mm between voxels along the model's axes, as its training had them; null: stretched to `img_size` | null |
| `window` | the intensity window of its training, as `--window` names it | what `--window` says |
| `mean`, `std` | taken from, and divided into, the windowed values | 0, 1 |
| `licence`, `citation` | of the weights | unstated |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedcache.backbones.description import origin
from embedcache.backbones.weights import Weights
from embedcache.errors import InputError
from embedcache.images import parse_window
from embedcache.types import VolumeInput, Voxels

OPPOSITE = {"S": "I", "I": "S", "P": "A", "A": "P", "L": "R", "R": "L"}
ROW_AXES = "SPL"
"""Where z, y and x of an input point: feet to head, to posterior, to the patient's left."""


@dataclass(frozen=True)
class Axes:
    """How a model's axes lie to (z, y, x)."""

    source: Voxels
    """Of each of (z, y, x): which of the model's axes it is."""
    flipped: tuple[bool, bool, bool]
    """Whether that one points the other way."""

    @classmethod
    def named(cls, orientation: str, name: str) -> "Axes":
        """Of three letters such as RAS: right, anterior, superior. Raises InputError."""
        letters = orientation.upper() if isinstance(orientation, str) else ""
        found = [next((i for i, o in enumerate(letters) if o in (to, OPPOSITE[to])), -1) for to in ROW_AXES]
        if len(letters) != 3 or sorted(found) != [0, 1, 2]:
            raise InputError(
                f"{name}: orientation must be three letters, one each of R or L, A or P, S or I. Got {orientation!r}."
            )
        z, y, x = found
        flips = [letters[axis] != to for axis, to in zip(found, ROW_AXES, strict=True)]
        return cls((z, y, x), (flips[0], flips[1], flips[2]))

    def of_input(self, values: Sequence[Any]) -> tuple[Any, Any, Any]:
        """Numbers along the model's axes, along (z, y, x)."""
        z, y, x = (values[axis] for axis in self.source)
        return z, y, x


def axes_of(weights: Weights) -> Axes:
    """The orientation that a configuration says."""
    return Axes.named(weights.config.get("orientation", "RAS"), weights.name)


def per_axis(weights: Weights, key: str, default: int | None = None) -> tuple[int, int, int]:
    """A number for each of the model's axes, or one for all. Raises InputError for anything else."""
    value = weights.config.get(key, default)
    values = [value] * 3 if isinstance(value, int) else value
    if not isinstance(values, list) or len(values) != 3 or not all(type(n) is int and n > 0 for n in values):
        raise InputError(f"{weights.name}: {key} must be a whole number above 0, or three. Got {value!r}.")
    return values[0], values[1], values[2]


def check_volume_model(weights: Weights, channels: str = "in_channels") -> None:
    """Raises InputError for a model of slices, and for one of several channels."""
    if weights.config.get("spatial_dims", 3) != 3:
        raise InputError(
            f"{weights.name} is a model of {weights.config['spatial_dims']} dimensions; only 3 are supported."
        )
    if weights.config.get(channels, 1) != 1:
        raise InputError(f"{weights.name} takes {weights.config[channels]} channels; only 1 is supported for volumes.")


def volume_numbers(weights: Weights, architecture: str) -> dict[str, Any]:
    """`size`, `volume`, `window`, `mean`, `std`, `processor`, `licence` and `citation` of a BackboneInfo."""
    config, axes = weights.config, axes_of(weights)
    z, y, x = axes.of_input(per_axis(weights, "img_size"))
    window = str(config.get("window", ""))
    if window and len(parse_window(window).numbers) > 1:
        raise InputError(f"{weights.name}: window {window!r} has several channels, and a volume has one.")
    about = origin(weights, {}, architecture)
    return {
        "size": (y, x),
        "volume": VolumeInput(z, _spacing(weights, axes)),
        "window": window,
        "mean": (_number(config, "mean", 0.0, weights.name),),
        "std": (_number(config, "std", 1.0, weights.name),),
        "processor": {},
        "licence": str(config.get("licence", about["licence"])),
        "citation": str(config.get("citation", about["citation"])),
    }


def _spacing(weights: Weights, axes: Axes) -> tuple[float, float, float] | None:
    value = weights.config.get("spacing")
    if value is None:
        return None
    values = [value] * 3 if isinstance(value, int | float) else value
    if not isinstance(values, list) or len(values) != 3 or not all(isinstance(mm, int | float) for mm in values):
        raise InputError(f"{weights.name}: spacing must be mm along each axis, or null. Got {value!r}.")
    z, y, x = axes.of_input([float(mm) for mm in values])
    return z, y, x


def _number(config: Mapping[str, Any], key: str, default: float, name: str) -> float:
    value = config.get(key, default)
    if not isinstance(value, int | float) or (key == "std" and value <= 0):
        raise InputError(f"{name}: {key} must be a number{' above 0' if key == 'std' else ''}. Got {value!r}.")
    return float(value)

"""A checkpoint's tensors by name, for models that are not transformers'. Imports torch; executes nothing of a file."""

from pathlib import Path

import torch

from embedcache.backbones.weights import weight_files
from embedcache.errors import InputError


def read_state_dict(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of the weight files in `folder`, on the CPU; `name` is how a message calls the backbone.

    safetensors, else torch's own format through its reader that loads tensors only: what is more, or damaged, makes it raise
    (`unreadable.why_unreadable` puts that into words). Raises InputError for a file of anything but named tensors.
    """
    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(folder, name):
        if file.endswith(".json"):
            continue
        found = _read(folder / file)
        if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
            raise InputError(f"{name}: {file} holds more than named tensors; save the model's state_dict alone.")
        tensors.update(found)
    return tensors


def _read(file: Path) -> dict[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file  # comes with transformers and timm, not with torch

        return load_file(file)
    found: dict[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return found


def misfit(name: str, error: Exception) -> InputError:
    """What torch says of weights that do not fit a model, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = (lines[1] if len(lines) > 1 else (lines or [type(error).__name__])[0])[:160]
    return InputError(f"the weights of {name} do not fit its configuration ({first}); fetch the files again.")

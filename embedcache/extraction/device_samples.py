"""What `doctor --device` tries: synthetic pictures and volumes in their real formats, and a tiny model. Imports torch."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from embedcache.backbones.torchvision_pair import complete_torchvision

IMAGES = {"cpu": 16, "cuda": 192}
SIDE = 512
VOLUMES = {"cpu": 4, "cuda": 32}
VOXELS = (96, 128, 128)
"""(z, y, x)."""
SPACING = 2.0
"""mm along each axis."""


@dataclass(frozen=True)
class Samples:
    """Files of one kind."""

    table: Path
    what: str
    """How many of what, for people."""


def write_samples(folder: Path, device: str, volumes: bool) -> Samples:
    """As many as suit `cpu` or `cuda`, in `folder`: whole volumes, or pictures."""
    return write_volumes(folder / "volumes", device) if volumes else write_images(folder / "images", device)


def write_images(folder: Path, device: str, count: int | None = None) -> Samples:
    """Grey PNG, smooth with some noise, and the table that lists them; beyond those that suit the device, the same again under
    other names.
    """
    from PIL import Image  # an image library is only needed for these

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"{i:05}.png" for i in range(count or IMAGES[device])]
    for i, name in enumerate(names):
        if i >= IMAGES[device]:
            os.link(folder / names[i % IMAGES[device]], folder / name)
            continue
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).resize((SIDE, SIDE), 3)
        Image.fromarray(_noisy(np.asarray(coarse, dtype=np.int16), rng).astype(np.uint8)).save(folder / name)
    return Samples(_write_table(folder, names), f"{len(names)} synthetic PNG of {SIDE}x{SIDE}")


def write_volumes(folder: Path, device: str) -> Samples:
    """NIfTI files of blocks with some noise, and the table that lists them, for encoders of whole volumes."""
    import nibabel as nib  # only needed where a backbone takes volumes

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"{i:04}.nii" for i in range(VOLUMES[device])]
    z, y, x = VOXELS
    for name in names:
        blocks = (
            rng.integers(0, 256, (x // 16, y // 16, z // 16)).astype(np.int16).repeat(16, 0).repeat(16, 1).repeat(16, 2)
        )
        nib.save(nib.Nifti1Image(_noisy(blocks, rng), np.diag([SPACING] * 3 + [1.0])), folder / name)
    return Samples(_write_table(folder, names), f"{len(names)} synthetic NIfTI volumes of {z}x{y}x{x}")


def _noisy(pixels: npt.NDArray[np.int16], rng: np.random.Generator) -> npt.NDArray[np.int16]:
    return (pixels + rng.integers(-8, 9, pixels.shape, dtype=np.int16)).clip(0, 255)


def _write_table(folder: Path, names: list[str]) -> Path:
    table = folder / "trial.csv"
    table.write_text("\n".join(["path,label", *(f"{name},{i % 2}" for i, name in enumerate(names))]) + "\n")
    return table


def tiny_model(folder: Path) -> Path:
    """A random ViT of DINOv2's form, saved as a checkpoint is: 192 wide, 4 blocks, patch 14, 224 pixels."""
    complete_torchvision()
    from transformers import Dinov2Config, Dinov2Model  # its models import torchvision where it is installed

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=192, num_hidden_layers=4, num_attention_heads=3, image_size=224, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    return folder

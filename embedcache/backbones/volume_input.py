"""A whole volume to the input of an encoder of volumes: windowed, resampled, cropped or bordered, in torch."""

import torch

from embedcache.backbones.windowed import groups, windowed
from embedcache.errors import InputError
from embedcache.images.resample import input_weights
from embedcache.types import FloatArray, ImageRecipe, Volume


def volume_input(volume: Volume, limits: FloatArray, image: ImageRecipe, device: torch.device | str) -> torch.Tensor:
    """The input that all slices of `volume` make together: (1, 1, z, y, x) float32 on `device`.

    `limits` (n, 1, 2): low and high of the window per slice, in physical units. Values are rescaled and windowed as slices are
    (`preprocess`); then linear between voxels, with antialias, along one axis after another; a black border; mean and std.
    Slices are taken in groups, in float64, so that neither a long volume's floats are held at once nor TF32 rounds anything.
    """
    if limits.shape != (len(volume.pixels), 1, 2) or volume.pixels.ndim != 3:
        raise InputError(
            f"a whole volume is grey and has one window: limits of shape ({len(volume.pixels)}, 1, 2). Got {limits.shape}, "
            f"pixels {volume.pixels.shape}."
        )
    device = torch.device(device)
    along_z, along_y, along_x = (
        torch.tensor(weights, dtype=torch.float64, device=device) for weights in input_weights(volume, image)
    )
    out = torch.zeros(image.shape, dtype=torch.float64, device=device)
    for rows in groups(volume.pixels):
        if not bool(along_z[:, rows].any()):
            continue  # cropped away
        shown = windowed(volume, limits, rows, device)[:, 0].double()
        out += torch.tensordot(along_z[:, rows], along_y @ shown @ along_x.T, dims=1)
    return ((out - image.mean[0]) / image.std[0]).float()[None, None]

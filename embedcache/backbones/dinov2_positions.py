"""Position embeddings as DINOv2's own code fits them to another grid. Imports torch.

The scale is (side + .1) over the trained side, where transformers' class takes the two sides themselves: the sampling points
differ by up to a tenth of a patch (facebookresearch/dinov2, `interpolate_offset`).
"""

from typing import Any

import torch

OFFSET = 0.1


def fit_with_offset(model: torch.nn.Module) -> None:
    """Let a Dinov2Model fit its position embeddings so."""
    embeddings: Any = model.embeddings

    def fitted(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """(1, 1 + patches, E), for tokens (n, 1 + patches, E) of an input of height and width in pixels."""
        positions: torch.Tensor = embeddings.position_embeddings
        if tokens.shape[1] == positions.shape[1] and height == width:
            return positions
        patch_height, patch_width = embeddings.patch_embeddings.patch_size
        grid = height // patch_height, width // patch_width
        side = round((positions.shape[1] - 1) ** 0.5)
        patches = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
        scale = [(cells + OFFSET) / side for cells in grid]
        resized = torch.nn.functional.interpolate(patches, scale_factor=scale, mode="bicubic", align_corners=False)
        assert resized.shape[2:] == grid
        rows = resized.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
        return torch.cat([positions[:, :1], rows], dim=1)

    embeddings.interpolate_pos_encoding = fitted

"""Patch tokens as colours: what a backbone holds apart inside images, without any label.

One PCA over the patches of all images together finds the background, where there is one; a second one over what is left
gives three numbers per patch, which are shown as red, green and blue. Equal colours in two images are similar tokens. The
recipe is that of figure 1 of Oquab et al., "DINOv2" (2023), with Otsu's threshold in place of a hand-set one, and a look at
the data before anything is cut away: a chest fills its radiograph, and the first component then parts one organ from another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, suggest
from embedcache.evaluation.figure_files import new_figure, save_figure

_SHOWN_PERCENTS = (1.0, 99.0)
"""Of a component's scores: they become 0 and 1 of a colour, so that a few odd patches do not grey out the rest."""

Background = Literal["auto", "keep", "drop"]
"""`auto`: dropped where the data show one; `keep`: every patch is coloured; `drop`: dropped in any case."""
_BORDER = 0.9
"""The least share of the border's patches on the side of a background."""
_FLAT = 0.75
"""The most that a background's tokens vary, as a share of the variance of the others: what is empty looks alike everywhere.
Slices of a head in air reach .5; radiographs of `nih_128`, whose border is chest, .8 to 2.3."""
_REMAINS = 0.1
"""The least share of patches that a background leaves over."""


@dataclass(frozen=True)
class PatchColours:
    """One colour per patch."""

    rgb: npt.NDArray[np.float32]
    """(image, y, x, 3) in [0, 1]; background patches are white."""
    foreground: npt.NDArray[np.bool_]
    """(image, y, x); everywhere True where no background was dropped."""


def parse_background(text: str) -> Background:
    """One of auto, keep and drop. Raises UnknownNameError."""
    known: tuple[Background, ...] = get_args(Background)
    for name in known:
        if text == name:
            return name
    raise suggest("background", text, known)


def patch_colours(tokens: npt.NDArray[Any], background: Background = "auto") -> PatchColours:
    """Colours for patch tokens (image, y, x, feature) of several images together.

    The first principal component is cut by Otsu's threshold; the side that holds most patches of the images' borders
    could be the background. Under `auto` it is one where nearly all of the border lies there, its tokens vary less than the
    others, and a tenth of the patches or more are left. Three components of the foreground, each from its 1st to its 99th
    percentile, are red, green and blue. A component's sign is chosen so that its scores have a positive third moment, since a
    decomposition leaves it open. Raises InputError for another shape, for tokens that are all alike or not finite, and for
    fewer than 4 patches to colour.
    """
    if tokens.ndim != 4 or min(tokens.shape) < 1:
        raise InputError(f"patch tokens must have shape (image, y, x, feature). Got {tokens.shape}.")
    flat = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
    if not np.isfinite(flat).all():
        raise InputError(
            "patch tokens must be finite; these hold NaN or infinity, so extract them with --dtype float32."
        )
    if not np.ptp(flat, axis=0).any():
        raise InputError("the patch tokens are all alike, so nothing tells an object from the background.")
    foreground = np.ones(tokens.shape[:3], dtype=np.bool_)
    if background != "keep":
        cut = _within_the_border(flat, tokens.shape[:3])
        if background == "drop" or _is_object(cut, flat):
            foreground = cut
    inside = foreground.ravel()
    if inside.sum() < 4:
        raise InputError(
            f"{int(inside.sum())} of {inside.size} patches are foreground: too few for three components; "
            "keep the background (--background keep)."
            if background == "drop"
            else f"{inside.size} patches are too few for three components; name more slices."
        )
    scores = principal_scores(flat[inside], 3)
    low, high = np.percentile(scores, _SHOWN_PERCENTS, axis=0)
    rgb = np.ones((inside.size, 3), dtype=np.float32)
    rgb[inside] = np.clip((scores - low) / np.where(high > low, high - low, 1), 0, 1)
    return PatchColours(rgb.reshape(*tokens.shape[:3], 3), foreground)


def _within_the_border(flat: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """(image, y, x): the side of the first component's cut on which fewer patches of the border lie."""
    first = principal_scores(flat, 1)[:, 0].reshape(shape)
    above = first > otsu_threshold(first.ravel())
    return np.asarray(~above if above[:, border(shape[1:])].mean() > 0.5 else above)


def _is_object(inside: npt.NDArray[np.bool_], flat: npt.NDArray[np.float64]) -> bool:
    """Whether what lies outside of it is a background."""
    at_border = 1 - inside[:, border(inside.shape[1:])].mean()
    spread = [float(flat[side.ravel()].var(axis=0).sum()) for side in (~inside, inside)]
    return bool(at_border >= _BORDER and spread[0] <= _FLAT * spread[1] and inside.mean() >= _REMAINS)


def principal_scores(X: npt.NDArray[np.float64], n_components: int) -> npt.NDArray[np.float64]:
    """(n, n_components): rows of X (n, d) on the first principal components of X; columns of zeros where d is less."""
    centred = X - X.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)  # ascending eigenvalues
    scores = centred @ vectors[:, ::-1][:, :n_components]
    scores *= np.where((scores**3).sum(axis=0) < 0, -1, 1)
    return np.pad(scores, ((0, 0), (0, n_components - scores.shape[1])))


def otsu_threshold(values: npt.NDArray[np.float64]) -> float:
    """The cut that maximises the variance between the two classes it makes (Otsu 1979), over all cuts, without bins.

    It lies midway between two neighbouring values. `values` (n,) must hold two that differ.
    """
    ordered = np.sort(values)
    n = len(ordered)
    below = np.cumsum(ordered)[:-1]
    count = np.arange(1, n)
    between = (below / count - (below[-1:] + ordered[-1:] - below) / (n - count)) ** 2 * count * (n - count)
    between[ordered[1:] == ordered[:-1]] = -1  # no cut lies between equal values
    cut = int(between.argmax())
    return float((ordered[cut] + ordered[cut + 1]) / 2)


def border(grid: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """(y, x): the outermost ring of patches."""
    ring = np.ones(grid, dtype=np.bool_)
    ring[1:-1, 1:-1] = False
    return ring


def pca_figure(
    tokens: npt.NDArray[Any],
    images: Sequence[npt.NDArray[np.uint8] | None] | None,
    titles: Sequence[str],
    path: Path,
    background: Background = "auto",
) -> PatchColours:
    """Draw images (y, x) or (y, x, 3), one column each, above the colours of their patch tokens (image, y, x, feature).

    Colours are stretched to the aspect of their image; one that is None is left out, and without images (None) colours are
    drawn alone. The suffix of `path` names the format. Returns the colours. Raises MissingPackageError without matplotlib,
    InputError as `patch_colours` does and for a format that it does not know.
    """
    shown = len(tokens) if images is None else len(images)
    if not len(tokens) == shown == len(titles):
        raise InputError(f"a column needs tokens, an image, a title. Got {len(tokens)}, {shown}, {len(titles)}.")
    colours = patch_colours(tokens, background)
    n_rows = 1 if images is None else 2
    figure = new_figure(1.7 * shown, 0.3 + 1.9 * n_rows)
    panels = figure.subplots(n_rows, shown, squeeze=False)
    for i, title in enumerate(titles):
        extent = None
        image = None if images is None else images[i]
        if image is not None:
            height, width = image.shape[:2]
            extent = (0, width, height, 0)
            panels[0, i].imshow(image, cmap="gray", vmin=0, vmax=255)
        panels[0, i].set_title(title, fontsize=10, color="#222222")
        panels[-1, i].imshow(colours.rgb[i], extent=extent, interpolation="nearest")
    for panel in panels.flat:
        panel.set_axis_off()
    save_figure(figure, path)
    return colours

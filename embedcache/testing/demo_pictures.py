"""The demo's pictures: slices as they were shown to the backbone, and the probe's scores along the head."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from embedcache.images import open_image, parse_window
from embedcache.images.windows import physical

_INK, _PALE, _BLUE, _ORANGE = "#222222", "#9a9a9a", "#0072B2", "#D55E00"


@dataclass(frozen=True)
class HeadPoint:
    """One slice of a slab: where it lies, what is true of it, and what the probe said if it was asked."""

    height_mm: float
    grey_share: float
    grey_rich: bool
    score: float | None
    """The probe's for `grey_rich`, from 0 to 1; None for a slice that is not in the test part."""


def shown(path: Path, slice_index: int | None = None) -> npt.NDArray[np.uint8]:
    """A slice in the window that `extract` uses by default, (y, x) or (y, x, 3); the middle one unless told."""
    image = open_image(str(path))
    i = image.n_slices // 2 if slice_index is None else slice_index
    window = parse_window("auto")
    volume = image.read(i, i + 1, window)
    low, high = image.limits(window, i, i + 1)[0, 0]
    value = (physical(volume.pixels, volume.calibration)[0] - low) / max(high - low, 1e-9)
    if volume.calibration.invert:
        value = 1 - value
    return np.asarray(np.clip(value, 0, 1) * 255).round().astype(np.uint8)


def thumbnail(pixels: npt.NDArray[np.uint8], side: int = 240) -> bytes:
    """A PNG of at most side x side pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def draw_along_head(points: Sequence[HeadPoint], score_name: str, path: Path) -> Path:
    """Grey matter's share by height, and below it the probe's score of each test slice; colours tell the truth."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # optional: check_packages has asked for it
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1))
    cut = (min(p.grey_share for p in points if p.grey_rich) + max(p.grey_share for p in points if not p.grey_rich)) / 2
    above.axhline(cut, color=_INK, linewidth=0.8, linestyle=":")
    above.annotate("median", (1, cut), xycoords=("axes fraction", "data"), fontsize=9, va="bottom", ha="right")
    tested = [p for p in points if p.score is not None]
    for some, colour, marker, name in (
        ([p for p in points if p.score is None], _PALE, "o", "training and validation slabs"),
        ([p for p in tested if p.grey_rich], _BLUE, "o", "test slabs, above the median"),
        ([p for p in tested if not p.grey_rich], _ORANGE, "s", "test slabs, below the median"),
    ):
        heights = [p.height_mm for p in some]
        above.plot(heights, [p.grey_share for p in some], marker, markersize=4, color=colour, label=name)
        if some and some[0].score is not None:
            below.plot(heights, [p.score for p in some], marker, markersize=5, color=colour)
    above.set_ylabel("grey matter's share")
    above.legend(frameon=False, fontsize=9)
    below.set_ylim(-0.05, 1.05)
    below.set_ylabel(score_name)
    below.set_xlabel("height in the head (MNI z, mm)")
    for axes in (above, below):
        _plain(axes)
    figure.savefig(path)
    return path


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, length=3)

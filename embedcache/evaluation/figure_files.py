"""Pictures as files: what every one of them begins and ends with."""

from pathlib import Path
from typing import TYPE_CHECKING

from embedcache.errors import InputError, MissingPackageError
from embedcache.evaluation.writable import check_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FORMATS = (".png", ".svg", ".pdf")


def check_figure(path: str | Path) -> Path:
    """Hold, before any work, that a figure can be drawn into `path`; its suffix names the format. Returns it as a path.

    Raises MissingPackageError without matplotlib, InputError for a format that it does not know and where no file can be written.
    """
    path = Path(path)
    new_figure(1, 1)  # without matplotlib there is no figure of any format
    if path.suffix.lower() not in FORMATS:
        what = path.suffix or "a file without suffix"
        raise InputError(f"a figure can not be written as {what}; use .png, .svg or .pdf.")
    check_file(path, "a figure")
    return path


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches, whatever screen there is. Raises MissingPackageError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # optional, and 0.4 s
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(
            "figures need matplotlib; install it with `pip install 'embedcache[figures]'`."
        ) from error
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: str | Path) -> Path:
    """Write it, and return where. Raises as `check_figure` does."""
    path = check_figure(path)
    figure.savefig(path)
    return path

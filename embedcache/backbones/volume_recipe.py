"""The image recipe of an encoder of whole volumes: what the user left open, its own configuration says."""

from embedcache.errors import InputError
from embedcache.images.options import VolumeOptions
from embedcache.images.windows import is_width, over_volume, parse_window
from embedcache.types import BackboneInfo, Fit, ImageRecipe, VolumeInput, Voxels, Window


def volume_recipe(
    info: BackboneInfo, window: Window, options: VolumeOptions, fit: Fit = "squash", time: int = 0, view: int = 0
) -> ImageRecipe:
    """How a whole volume becomes the input of `info`: at its spacing and size, unless `options` say others.

    In place of `auto` comes the window of its training, if its configuration names one. Statistics of a window are over
    the volume. Planes and sizes of slices do not concern it. Raises InputError for an input that the model can not
    take, and for what volumes have not: a processor, views, windows of several channels.
    """
    assert info.volume is not None
    if fit == "processor" or view:
        what = "processor's crop" if fit == "processor" else "views"
        raise InputError(f"{info.name} takes whole volumes, which have no {what}; extract it in a run of its own.")
    if window == Window("auto") and info.window:
        window = parse_window(info.window)
    if is_width(window) and len(window.numbers) > 1:
        raise InputError(
            f"window {window.name} has {len(window.numbers)} channels, and {info.name} takes volumes of one; extract it in a "
            "run of its own, with another --window."
        )
    own = info.shape
    size = _voxels(own if options.size is None else options.size)
    if options.overlap is not None and options.size is None:
        raise InputError(
            "sliding windows need an input that is larger than they are; name its voxels with --volume-size."
        )
    sliding = options.overlap is not None and size != own
    _check_size(info, size, sliding)
    spacing = info.volume.spacing if options.spacing == "own" else options.spacing
    return ImageRecipe(
        window=over_volume(window),
        size=(size[1], size[2]),
        mean=info.mean,
        std=info.std,
        fit="squash" if spacing is None or spacing == "none" else "pad",
        resize="linear-antialias",
        plane="axial",
        channels=1,
        time=time,
        volume=VolumeInput(
            slices=size[0],
            spacing=None if spacing == "none" else spacing,
            roi=_voxels(own) if sliding else None,
            overlap=(options.overlap or 0.0) if sliding else 0.0,
        ),
    )


def options_of(image: ImageRecipe) -> VolumeOptions:
    """The options under which `volume_recipe` gives a recorded recipe again; the defaults for one of slices."""
    volume = image.volume
    if volume is None:
        return VolumeOptions()
    z, y, x = _voxels(image.shape)
    return VolumeOptions(volume.spacing or "none", (z, y, x), None if volume.roi is None else volume.overlap)


def _voxels(size: tuple[int, ...]) -> Voxels:
    z, y, x = size
    return z, y, x


def _check_size(info: BackboneInfo, size: Voxels, sliding: bool) -> None:
    info.grid(size)
    own = "x".join(map(str, info.shape))
    if sliding and any(n < window for n, window in zip(size, info.shape, strict=True)):
        raise InputError(
            f"{info.name} slides windows of {own} voxels (z, y, x), and the input is {'x'.join(map(str, size))}; "
            "use a larger --volume-size."
        )
    if not sliding and info.fixed_size and size != info.shape:
        raise InputError(
            f"{info.name} sees {own} voxels (z, y, x) at once, no more and no less; show it a larger input with --sliding 0.5."
        )

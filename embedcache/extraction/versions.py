"""The software that decides a token's bits."""

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType

VERSIONED = ("embedcache", "torch", "transformers", "numpy", "pillow", "pydicom", "nibabel", "pylibjpeg-libjpeg")
"""Libraries that are named in every commit. Decoders of formats whose pixels are defined to the bit are not among them."""
OF_FAMILY: Mapping[str, str] = MappingProxyType(
    {"monai_swin_unetr": "monai", "monai_vit": "monai", "open_clip": "timm", "timm": "timm"}
)
"""The library whose classes a family runs, where it is none of these."""


def minor(text: str) -> str:
    """Major and minor of a version."""
    return ".".join(text.split(".")[:2])


def software_versions() -> dict[str, str]:
    """The versions that a commit records, whatever the backbone."""
    return _installed(VERSIONED)


def family_versions(*families: str) -> dict[str, str]:
    """Those that it records beside them, of the libraries that these families run."""
    return _installed(sorted({OF_FAMILY[family] for family in families if family in OF_FAMILY}))


def _installed(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found

"""The software that decides a token's bits."""

from importlib.metadata import PackageNotFoundError, version

VERSIONED = ("embedcache", "torch", "transformers", "numpy", "pillow", "pydicom", "nibabel")
"""Libraries that are named in every commit."""


def minor(text: str) -> str:
    """Major and minor of a version."""
    return ".".join(text.split(".")[:2])


def software_versions() -> dict[str, str]:
    """The versions that a commit records."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found

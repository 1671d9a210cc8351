"""A Python file as a plug-in without installing it: `with plugged_in(__file__, probes={"centroid": "CentroidProbe"}): …`."""

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from embedcache.backbones import FAMILIES
from embedcache.datasets import REGISTRY as DATASETS
from embedcache.errors import InputError
from embedcache.probes import REGISTRY as PROBES
from embedcache.registry import Registry

PATH = "PYTHONPATH"
_NONE: Mapping[str, str] = MappingProxyType({})


@contextmanager
def plugged_in(
    file: str | Path,
    *,
    backbones: Mapping[str, str] = _NONE,
    datasets: Mapping[str, str] = _NONE,
    probes: Mapping[str, str] = _NONE,
) -> Iterator[None]:
    """Within it, entry points for what the module `file` defines, in this process and in those that it starts.

    backbones, datasets, probes: the name that it is to be known by → what the module calls it. For scripts, notebooks and the
    tests of a package that is not installed yet; an installed one has the same in its `pyproject.toml`. Not for threads: it
    changes `sys.path` and `$PYTHONPATH`. Raises InputError for a file that can not be imported by its name, and for a name that
    is there already.
    """
    module = Path(file).resolve()
    if not (module.is_file() and module.suffix == ".py" and module.stem.isidentifier()):
        raise InputError(
            f"{module.name} is no Python file that can be imported by its name; give one, as in `my_probe.py`."
        )
    plugged = [
        (registry, named)
        for registry, named in ((FAMILIES, backbones), (DATASETS, datasets), (PROBES, probes))
        if named
    ]
    for registry, named in plugged:
        for name in named:
            if name in registry.names():
                raise InputError(f"there is a {registry.kind} {name!r} already; give {module.name}'s another name.")
    path, environment, imported = list(sys.path), os.environ.get(PATH), module.stem in sys.modules
    with tempfile.TemporaryDirectory() as folder:
        _write_metadata(Path(folder), module.stem, plugged)
        added = [folder, str(module.parent)]
        sys.path[:0] = added
        os.environ[PATH] = os.pathsep.join([*added, *([environment] if environment else [])])
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path[:] = path
            if environment is None:
                del os.environ[PATH]
            else:
                os.environ[PATH] = environment
            for registry, named in plugged:
                for name in named:
                    registry.forget(name)
            if not imported:
                sys.modules.pop(module.stem, None)


def _write_metadata(folder: Path, module: str, plugged: Sequence[tuple[Registry, Mapping[str, str]]]) -> None:
    """What an installer would leave in `folder`, for `importlib.metadata` to find."""
    about = folder / f"{module}-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 0\n")
    lines = []
    for registry, named in plugged:
        lines += [f"[{registry.group}]", *(f"{name} = {module}:{attribute}" for name, attribute in named.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")

"""The names that users import."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import embedcache

ROOMS = {
    "coded", "errors", "fields", "half", "types", "registry", "images", "store", "datasets", "backbones", "probes", "extraction",
    "evaluation", "finetuning", "testing",
}  # fmt: skip
FUNCTIONS = [name for name in embedcache.__all__ if inspect.isfunction(getattr(embedcache, name))]


def test_every_public_name_resolves_and_is_told() -> None:
    assert sorted(embedcache.__all__) == list(dict.fromkeys(sorted(embedcache.__all__)))
    for name in embedcache.__all__:
        found = getattr(embedcache, name)
        assert name in dir(embedcache)
        if name != "__version__":
            assert inspect.getdoc(found), name
    assert {"extract", "probe", "plan", "verify"} <= set(FUNCTIONS)
    with pytest.raises(AttributeError, match="no attribute 'extarct'"):
        _ = embedcache.extarct  # type: ignore[attr-defined]


def test_the_lazy_table_all_and_the_types_name_the_same() -> None:
    """Three lists that are kept by hand: what is imported when used, what `*` imports, what a type checker sees."""
    tree = ast.parse(inspect.getsource(embedcache))
    assigned = {
        target.id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    typed = [
        (alias.asname or alias.name, found.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.If)
        for found in node.body
        if isinstance(found, ast.ImportFrom)
        for alias in found.names
    ]
    lazy = []
    for name, place in assigned["_PUBLIC"].items():
        module, _, attribute = place.partition(":")
        lazy.append((name, module, attribute or name))
    assert len(lazy) > 80
    assert sorted(typed) == sorted(lazy)
    assert assigned["__all__"] == sorted([*assigned["_PUBLIC"], "__version__"])


def test_no_public_name_is_a_rooms() -> None:
    rooms = {module.name for module in pkgutil.iter_modules(embedcache.__path__)}
    assert rooms <= ROOMS, "a new room belongs into this list"
    assert not (rooms | ROOMS) & set(embedcache.__all__)


def test_public_functions_stay_functions_when_every_submodule_is_imported() -> None:
    for module in pkgutil.walk_packages(embedcache.__path__, "embedcache."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in FUNCTIONS:
        # a submodule of that name would have taken its place in the package
        assert inspect.isfunction(getattr(embedcache, name)), name
    assert "table" in {info.name for info in embedcache.list_datasets()}
    assert "dinov2" in embedcache.list_backbones()


def test_importing_embedcache_imports_nothing_heavy() -> None:
    script = (
        "import sys, embedcache; print([m for m in ('torch', 'transformers', 'sklearn', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

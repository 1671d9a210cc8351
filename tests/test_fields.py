"""What the fields of a configuration take, and what the refusal of all else says."""

import sys
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import embedcache
from embedcache.errors import EmbedcacheError, InputError
from embedcache.fields import held, hold_fields


@dataclass(frozen=True)
class Config:
    store: Path | str
    folder: Path | None = None
    stores: tuple[Path | str, ...] = ()
    word: str = "cls"
    words: tuple[str, ...] | None = None
    number: float = 0.5
    count: int = 1
    counts: tuple[int, ...] | Literal["last", "auto"] = "last"
    pair: int | tuple[int, int] | None = None
    switch: bool | Literal["auto"] | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    calls: Callable[[int], int] | None = None

    def __post_init__(self) -> None:
        hold_fields(self)


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("store", "a.zarr", Path("a.zarr")),
        ("folder", "a", Path("a")),
        ("stores", "a.zarr", (Path("a.zarr"),)),
        ("stores", ["a", Path("b")], (Path("a"), Path("b"))),
        ("word", Path("a"), "a"),
        ("words", "one", ("one",)),
        ("words", np.array(["one", "two"]), ("one", "two")),
        ("number", 1, 1),
        ("number", np.float32(0.25), 0.25),
        ("count", np.int64(3), 3),
        ("counts", 5, (5,)),
        ("counts", range(1, 3), (1, 2)),
        ("counts", "auto", "auto"),
        ("pair", [2, 3], (2, 3)),
        ("pair", 2, 2),
        ("switch", np.True_, True),
        ("options", {"knn": {"k": np.array([1, 2])}}, {"knn": {"k": [1, 2]}}),
        ("calls", abs, abs),
    ],
)
def test_what_can_only_mean_one_thing_is_taken_so(name: str, given: Any, taken: Any) -> None:
    found = getattr(Config(**{"store": "x", name: given}), name)
    assert found == taken
    assert type(found) is type(taken)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("store", 5, "store must be a path. Got 5."),
        ("store", "", "store must be a path. Got ''."),
        ("folder", "a\0", "folder must be a path or None. Got 'a\\x00'."),
        ("stores", (None,), "stores must be one or several paths. Got (None,)."),
        ("word", 12, "word must be text like 'cls'. Got 12."),
        ("word", None, "word must be text like 'cls'. Got None."),
        ("words", {"a"}, "words must be one or several texts or None. Got a value of type set."),
        ("number", "a", "number must be a number. Got 'a'."),
        ("number", True, "number must be a number. Got True."),
        ("number", float("nan"), "number must be a number. Got nan."),
        ("count", 1.5, "count must be a whole number. Got 1.5."),
        ("count", False, "count must be a whole number. Got False."),
        ("counts", (1, "b"), "counts must be one or several whole numbers, 'auto' or 'last'. Got (1, 'b')."),
        (
            "counts",
            "lsat",
            "counts must be one or several whole numbers, 'auto' or 'last'. Got 'lsat'; did you mean 'last'?",
        ),
        ("pair", (1, 2, 3), "pair must be a whole number, 2 whole numbers or None. Got (1, 2, 3)."),
        ("switch", "nope", "switch must be True, False, 'auto' or None. Got 'nope'."),
        ("switch", 1, "switch must be True, False, 'auto' or None. Got 1."),
        ("options", {1: {}}, "options must be a mapping of names. Got a value of type dict."),
        ("word", ["a" * 99], "word must be text like 'cls'. Got ['" + "a" * 55 + "...."),
    ],
)
def test_all_else_is_refused_with_what_there_is(name: str, given: Any, says: str) -> None:
    with pytest.raises(InputError) as refused:
        Config(**{"store": "x", name: given})
    assert str(refused.value) == says


def test_a_class_whose_types_only_its_type_checker_knows_takes_what_it_is_given() -> None:
    module = types.ModuleType("someone_elses")
    sys.modules["someone_elses"] = module
    try:
        exec(  # as another package's file, with its own globals
            "from __future__ import annotations\nfrom dataclasses import dataclass\n"
            "@dataclass(frozen=True)\nclass Probe:\n    k: Unknown = 3\n",
            module.__dict__,
        )
        assert held(module.Probe, {"k": "five"}) == {"k": "five"}
    finally:
        del sys.modules["someone_elses"]


CONFIGS: dict[type[Any], dict[str, Any]] = {
    embedcache.ProbeConfig: {"probe": "knn", "store": "x.zarr"},
    embedcache.FewShotConfig: {"store": "x.zarr"},
    embedcache.GridConfig: {"stores": "x.zarr"},
    embedcache.PatchProbeConfig: {"store": "x.zarr", "dataset": "table", "root": "t.csv"},
    embedcache.ExtractConfig: {"dataset": "table", "root": "t.csv", "backbones": "pixels:8"},
    embedcache.DatasetOptions: {},
}
RUBBISH = (
    "nope",
    "",
    -1,
    0.5,
    float("nan"),
    True,
    None,
    (),
    (None,),
    ("a", 1),
    {1: 2},
    b"x",
    np.ones((2, 2)),
)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_no_field_of_a_public_configuration_ends_in_another_error(config: type[Any]) -> None:
    """An object of no meaning is refused by every field; nothing raises an error that is not ours."""
    config(**CONFIGS[config])
    for one in fields(config):
        with pytest.raises(InputError, match=f"^{one.name} must be .*Got a value of type object.$"):
            config(**{**CONFIGS[config], one.name: object()})
        for value in RUBBISH:
            with suppress(EmbedcacheError):  # some of it may mean something
                config(**{**CONFIGS[config], one.name: value})


def test_bare_values_are_grids_of_one() -> None:
    few = embedcache.FewShotConfig("x.zarr", shots=5, C=0.5)
    assert (few.shots, few.C, few.grid) == ((5,), (0.5,), (0.5,))
    grid = embedcache.GridConfig("x.zarr", probes="logistic", tasks="bright", shared={"labels": "t.csv", "layers": -1})
    assert (grid.stores, grid.probes, grid.tasks) == ((Path("x.zarr"),), ("logistic",), ("bright",))
    assert grid.shared == {"labels": Path("t.csv"), "layers": (-1,)}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: embedcache.GridConfig("x.zarr", shared={"standardize": "nope"}), "standardize must be True, False"),
        (lambda: embedcache.GridConfig("x.zarr", probes=()), "probes names none"),
        (lambda: embedcache.ProbeConfig("knn", "x.zarr", layers=()), "layers names none"),
        (lambda: embedcache.FewShotConfig("x.zarr", layers=()), "few shots choose no layers"),
        (lambda: embedcache.PatchProbeConfig("x.zarr", "table", "t.csv", layers=()), "layers names none"),
    ],
)
def test_a_grid_refuses_before_its_cells_and_an_empty_choice_is_none(make: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()

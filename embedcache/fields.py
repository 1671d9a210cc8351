"""What a user gives for the fields of a configuration, held to the types that the fields say.

So a slip in a notebook ends in one line before a job starts, and not in a TypeError from its middle. (`store.typed` is stricter:
it reads what was written by embedcache itself.)
"""

import difflib
import math
import os
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from embedcache.errors import InputError

_NAMED: Mapping[Any, tuple[str, str]] = {
    str: ("text", "texts"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    Path: ("a path", "paths"),
}
"""How a message calls one and several of a type."""


def hold_fields(config: Any) -> None:
    """Hold the fields of a frozen dataclass to their types, as `held` does; to be called first in its `__post_init__`."""
    for name, value in held(type(config), {f.name: getattr(config, f.name) for f in fields(config)}).items():
        object.__setattr__(config, name, value)


def held(kind: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for fields of the dataclass `kind`, each as the field's annotation says.

    What can only mean one thing is taken so: one value where several may stand becomes a tuple of it, a list or an array a tuple,
    a text a path and a path a text, and a number of numpy's is Python's. Raises InputError, which says what the field may be.
    """
    hints = _hints(kind)
    defaults = {f.name: f.default for f in fields(kind)}
    values = {}
    for name, value in given.items():
        try:
            values[name] = _as(hints[name], value)
        except ValueError:
            words = _words(hints[name])
            if isinstance(defaults[name], str) and words[0] == "text":
                words[0] = f"text like {defaults[name]!r}"
            told = f"{name} must be {_listed(words)}. Got {_seen(value)}"
            literals = [word[1:-1] for word in words if word.startswith("'")]
            near = difflib.get_close_matches(value, literals, n=1) if isinstance(value, str) else []
            raise InputError(f"{told}; did you mean {near[0]!r}?" if near else f"{told}.") from None
    return values


def _hints(kind: type[Any]) -> Mapping[str, Any]:
    try:
        return get_type_hints(kind)
    except NameError:  # another package's class, with names that only its type checker imports
        return {f.name: Any for f in fields(kind)}


def _members(union: Any) -> tuple[Any, ...]:
    """The types of a union; a text where a path may stand is the path."""
    inner = get_args(union)
    return tuple(one for one in inner if not (one is str and Path in inner))


def _as(hint: Any, given: Any) -> Any:
    """`given` as what `hint` says. Raises ValueError if it can not be meant so; what no rule here knows passes as it is."""
    value = given.tolist() if hasattr(given, "tolist") else given  # an array or a scalar of numpy's
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        for one in _members(hint):
            try:
                return _as(one, value)
            except ValueError:
                continue
    elif origin is Literal:
        if isinstance(value, str) and value in inner:
            return value
    elif origin is tuple:
        return _as_tuple(inner, value)
    elif origin is not None and issubclass(origin, Mapping):
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: _as(inner[1], v) for key, v in value.items()}
    elif hint is str or hint is Path:
        text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
        if text is not None and "\0" not in text and (text or hint is str):
            return hint(text)
    elif hint is int or hint is float:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole or (hint is float and isinstance(value, float) and math.isfinite(value)):
            return value
    elif not isinstance(hint, type) or isinstance(given, hint):
        return given
    elif isinstance(value, hint):
        return value
    raise ValueError


def _as_tuple(inner: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, list | tuple | range) else (value,)
    if inner[-1] is Ellipsis:
        return tuple(_as(inner[0], one) for one in values)
    return tuple(_as(one, part) for one, part in zip(inner, values, strict=True))


def _words(hint: Any, several: bool = False) -> list[str]:
    """What a field of type `hint` may be, as a message says it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return [word for one in _members(hint) for word in _words(one, several)]
    if origin is Literal:
        # typing keeps one object for all orders of the same words, so whichever was made first would decide
        return sorted(repr(word) for word in inner)
    if origin is tuple:
        many = "one or several" if inner[-1] is Ellipsis else str(len(inner))
        return [f"{many} {_listed(_words(inner[0], several=True))}"]
    if origin is not None:
        return ["a mapping of names"]
    if hint is bool:
        return ["True", "False"]
    if hint is type(None):
        return ["None"]
    return [_NAMED[hint][several] if hint in _NAMED else f"{hint.__name__}(...)"]


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _seen(value: Any) -> str:
    """A value for a message, cut short."""
    plain = isinstance(value, str | int | float | list | tuple | None)
    text = repr(value) if plain else f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."

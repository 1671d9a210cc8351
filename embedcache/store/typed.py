"""Plain JSON values as a dataclass, each field held to its type: what a store says of itself is not believed."""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def typed(kind: type[T], document: Any, **given: Any) -> T:
    """An instance of dataclass `kind` with the values of `document`; lists become tuples, `given` are no part of it.

    Raises ValueError, naming the field, for a value of another type, a key too many and a key that is missing.
    """
    if not isinstance(document, Mapping):
        raise ValueError(f"{kind.__name__} is {_seen(document)}, not an object")
    known = {f.name: f for f in fields(kind) if f.name not in given}  # type: ignore[arg-type]
    if strange := sorted(map(str, document.keys() - known.keys())):
        raise ValueError(f"{kind.__name__} has no field {strange[0]!r}")
    hints = _hints(kind)  # type: ignore[arg-type]  # a class is hashable
    values = {name: _as(hints[name], document[name], name) for name in known if name in document}
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{kind.__name__} lacks {name!r}")
    return kind(**values, **given)


@lru_cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _as(hint: Any, value: Any, name: str) -> Any:
    """`value` if it is what `hint` says, with tuples for lists. Raises ValueError."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for one in inner:
            try:
                return _as(one, value, name)
            except ValueError:
                continue
    elif origin is Literal:
        if isinstance(value, str | int) and value in inner:
            return value
    elif origin is tuple:
        if isinstance(value, list | tuple):
            if inner[-1] is Ellipsis:
                return tuple(_as(inner[0], v, name) for v in value)
            if len(value) == len(inner):
                return tuple(_as(h, v, name) for h, v in zip(inner, value, strict=True))
    elif origin is not None and issubclass(origin, Mapping):
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: _as(inner[1], v, name) for key, v in value.items()}
    elif hint is Any:
        return value
    elif is_dataclass(hint):
        return typed(hint, value)  # type: ignore[arg-type]
    elif hint is type(None) or hint is bool or hint is str:
        if isinstance(value, hint):
            return value
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    raise ValueError(f"{name!r} is {_seen(value)}")


def _seen(value: Any) -> str:
    """A value for a message, cut short."""
    text = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return text if len(text) <= 40 else text[:37] + "..."

"""Options of any probe as a user types them, `name=value`, for probes that have no command of their own."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from embedcache.errors import InputError, suggest
from embedcache.probes import REGISTRY
from embedcache.probes.base import Probe

_WORDS: dict[str, Any] = {"none": None, "null": None, "true": True, "false": False}


def parse_probe_options(probe: str, texts: Iterable[str]) -> dict[str, Any]:
    """`["C=0.1,1", "class_weight=balanced"]` as `{"C": (0.1, 1), "class_weight": "balanced"}`: `ProbeConfig.options`.

    Values are numbers, true, false, none or text; an option that holds several takes them with commas between. Raises
    UnknownNameError for a probe or an option that there is not, InputError for a text without `=` and for one given twice.
    """
    made: Probe = REGISTRY.load(probe)()
    defaults = {f.name: getattr(made, f.name) for f in fields(made)}
    found: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        name = name.strip()
        if not sign:
            raise InputError(f"an option of a probe is NAME=VALUE. Got {text!r}.")
        if name not in defaults:
            raise suggest(f"option of probe {probe!r}", name, defaults)
        if name in found:
            raise InputError(
                f"option {name!r} of probe {probe!r} is given twice; give it once, values with commas between."
            )
        several = name == made.parameter or isinstance(defaults[name], tuple | list)
        found[name] = tuple(_value(word) for word in value.split(",")) if several else _value(value)
    return found


def _value(text: str) -> Any:
    word = text.strip()
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word

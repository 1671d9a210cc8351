"""Name → factory, imported only when asked for, open to other packages through entry points."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from embedcache.errors import suggest


@dataclass
class Registry:
    """Factories of one kind. Our own are given as `"package.module:attribute"`, so that listing imports nothing."""

    kind: str
    """What an error calls an entry: `dataset`, `backbone family`, `probe`."""

    group: str
    """The entry-point group that other packages add to, for example `embedcache.datasets`."""

    builtin: dict[str, str]
    _loaded: dict[str, Callable[..., Any]] = field(default_factory=dict, repr=False)

    def names(self) -> list[str]:
        """All names, sorted; our own win over an entry point of the same name."""
        return sorted({*self.builtin, *(e.name for e in entry_points(group=self.group))})

    def load(self, name: str) -> Callable[..., Any]:
        """The factory called `name`. Raises UnknownNameError, with the nearest name, if there is none."""
        if name not in self._loaded:
            self._loaded[name] = self._import(name)
        return self._loaded[name]

    def forget(self, name: str) -> None:
        """The next `load` of `name` looks for it anew: its package is there no more, or is another one."""
        self._loaded.pop(name, None)

    def _import(self, name: str) -> Callable[..., Any]:
        if name in self.builtin:
            module, attribute = self.builtin[name].split(":")
            factory: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
            return factory
        for entry in entry_points(group=self.group, name=name):
            plugin: Callable[..., Any] = entry.load()
            return plugin
        raise suggest(self.kind, name, self.names())

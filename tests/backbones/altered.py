"""Backbones that are broken on purpose, and what `check_backbone`'s checks say of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from embedcache.backbones import Backbone, describe_backbone, load_backbone
from embedcache.testing import contract_of_tokens
from embedcache.testing.backbone_contract import breaches_of
from embedcache.testing.backbone_subject import Subject
from embedcache.types import ArraySpec, BackboneInfo

Alter = Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor]
"""(path, tokens, input) → tokens."""


@dataclass(frozen=True)
class Altered:
    """A backbone whose tokens are altered before they are returned."""

    inner: Backbone
    alter: Alter

    @property
    def info(self) -> BackboneInfo:
        return self.inner.info

    def tokens(self, x: torch.Tensor, arrays: Sequence[ArraySpec]) -> dict[str, torch.Tensor]:
        return {path: self.alter(path, values, x) for path, values in self.inner.tokens(x, arrays).items()}


def breaches(
    folder: Path, alter: Alter | None = None, monkeypatch: pytest.MonkeyPatch | None = None, **changes: Any
) -> list[str]:
    """Of a backbone that is altered, each time that it is loaded, or that tells something else of itself."""
    loaded: Any = load_backbone(describe_backbone(str(folder)))
    told: Backbone = replace(loaded, info=replace(loaded.info, **changes))
    subject = Altered(told, alter) if alter else told
    if monkeypatch is not None:
        monkeypatch.setattr(contract_of_tokens, "load_backbone", lambda *_: subject)
    return list(breaches_of(Subject(subject, torch.device("cpu"))))


def patches(path: str) -> bool:
    return path.endswith("patch_tokens")

"""What tests and authors of extensions need: small real files, weights and stores, and comparisons of them."""

import importlib
from typing import TYPE_CHECKING, Any

from embedcache.testing.dataset_contract import check_dataset
from embedcache.testing.plugged_in import plugged_in
from embedcache.testing.probe_contract import check_probe
from embedcache.testing.replicas import make_replica
from embedcache.testing.tiny_backbones import make_tiny_backbone, tiny_families

if TYPE_CHECKING:
    from embedcache.testing.backbone_contract import check_backbone

_WITH_TORCH = {"check_backbone": "embedcache.testing.backbone_contract"}

__all__ = [
    "check_backbone",
    "check_dataset",
    "check_probe",
    "make_replica",
    "make_tiny_backbone",
    "plugged_in",
    "tiny_families",
]


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WITH_TORCH[name]), name)

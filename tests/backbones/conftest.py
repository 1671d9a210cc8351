"""What every test of a backbone needs first."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family → the folder of its tiny model of transformers, made once."""
    from embedcache.testing import make_tiny_backbone

    @functools.cache
    def make(family: str) -> Path:
        return Path(make_tiny_backbone(family, tmp_path_factory.mktemp("tiny") / family))

    return make


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Layers of 32 numbers gain nothing from threads, and lose much by waiting for them on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

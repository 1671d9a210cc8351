import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from embedcache.testing.labelled_stores import LabelledStore, make_labelled_store


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., LabelledStore]:
    """Makes a store in a fresh cache; see `make_labelled_store`."""
    return functools.partial(make_labelled_store, tmp_path)


@pytest.fixture
def made(make: Callable[..., LabelledStore]) -> LabelledStore:
    """Three findings, 80 patients, no split given."""
    return make()

"""`make test-gpu`: the same tests on every device that is present."""

import pytest
import torch

PRESENT = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
DEVICES = [
    "cpu",
    *(PRESENT or [pytest.param("cuda:0", marks=pytest.mark.skip(reason="no CUDA device is visible to torch"))]),
]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Each device in turn; a machine without CUDA says so."""
    return str(request.param)

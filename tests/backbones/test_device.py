from collections.abc import Iterator

import pytest
import torch

from embedcache.backbones.device import prepare_device
from embedcache.errors import InputError


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_are_as_asked_and_shortcuts_are_off() -> None:
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    assert prepare_device("cpu", 1) == torch.device("cpu")
    assert torch.get_num_threads() == 1
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.deterministic


@pytest.mark.parametrize(("device", "count"), [("gpu", 1), ("cuda:x", 1), ("", 1), ("cpu", 0)])
def test_what_is_no_device(device: str, count: int) -> None:
    with pytest.raises(InputError, match="device must be cpu, cuda or cuda:N, with at least 1 thread"):
        prepare_device(device, count)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"no CUDA device is visible to torch .*; use --device cpu"):
        prepare_device("cuda", 1)

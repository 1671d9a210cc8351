"""Products on a device propose, and the CPU decides: the neighbours are those of the CPU, to the last bit."""

import numpy as np
import pytest
import torch

from embedcache.probes import by_torch, proposed
from embedcache.probes.by_faiss import faiss_has
from embedcache.probes.neighbours import Apart, Nearest, Rows, nearest, normalized

pytestmark = pytest.mark.gpu


def made(n: int, d: int, seed: int = 0, about: float = 1.0) -> Rows:
    """Unit rows about a mean: the smaller `about`, the nearer they lie to each other."""
    return normalized((np.random.default_rng(seed).normal(size=(n, d)) * about + 1).astype(np.float32))


def assert_same_as_on_the_cpu(device: str, rows: Rows, queries: Rows, k: int, apart: Apart | None = None) -> Nearest:
    expected = nearest(rows, queries, k, apart, "numpy")
    found = nearest(rows, queries, k, apart, "torch", device)
    np.testing.assert_array_equal(found.row, expected.row)
    np.testing.assert_array_equal(found.similarity, expected.similarity)
    return found


@pytest.mark.parametrize("d", [1, 7, 384, 1024])
@pytest.mark.parametrize("about", [1.0, 0.05])
def test_the_neighbours_are_those_of_the_cpu(device: str, d: int, about: float) -> None:
    assert_same_as_on_the_cpu(device, made(3000, d, about=about), made(200, d, 1, about), 50)


def test_ties_and_duplicates(device: str) -> None:
    twins = np.repeat(made(40, 24), 100, axis=0)[np.random.default_rng(0).permutation(4000)]
    assert_same_as_on_the_cpu(device, twins, twins[:100], 70)
    coarse = normalized(np.random.default_rng(1).integers(-1, 2, (3000, 6)).astype(np.float32))
    assert_same_as_on_the_cpu(device, coarse, coarse[:100], 20)
    constant = normalized(np.ones((5000, 6), dtype=np.float32))
    found = assert_same_as_on_the_cpu(device, constant, constant[:3], 7)
    np.testing.assert_array_equal(found.row, np.tile(np.arange(7), (3, 1)))


def test_few_rows(device: str) -> None:
    for n in (1, 5):
        found = assert_same_as_on_the_cpu(device, made(n, 12), made(9, 12, 1), 200)
        assert found.row.shape == (9, n)
    assert_same_as_on_the_cpu(device, np.zeros((30, 4), np.float32), made(9, 4, 1), 5)


def test_members_are_left_out(device: str) -> None:
    rows = made(2500, 48)
    patient = np.where(np.arange(2500) < 1500, 0, np.arange(2500) // 5)
    assert_same_as_on_the_cpu(device, rows, rows, 60, Apart(patient, patient))
    alone = assert_same_as_on_the_cpu(device, rows, rows[:4], 1200, Apart(patient, patient[:4]))
    assert (alone.row[:, 1000:] == -1).all()


def test_more_neighbours_than_faiss_allows_on_a_gpu(device: str) -> None:
    assert_same_as_on_the_cpu(device, made(6000, 32), made(20, 32, 1), 2500)


def test_blocks_of_queries_and_of_products(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposed, "_QUERIES", 37)
    monkeypatch.setattr(by_torch, "_ROOM", 2**16)
    assert_same_as_on_the_cpu(device, made(2000, 64), made(300, 64, 1), 40)


def test_rows_that_do_not_fit_come_in_blocks(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    move = by_torch._moved

    def small(values: Rows, where: torch.device) -> torch.Tensor:
        if len(values) > 700:
            raise torch.OutOfMemoryError("no room")
        return move(values, where)

    monkeypatch.setattr(by_torch, "_moved", small)
    monkeypatch.setattr(by_torch, "_ROOM", 4 * 64 * 700)
    monkeypatch.setattr(proposed, "_QUERIES", 128)
    assert_same_as_on_the_cpu(device, made(2500, 64), made(300, 64, 1), 40)


def test_tf32_is_off_meanwhile_and_as_it_was_after(device: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        # Numbers that TF32 cuts at their tenth bit: its products would miss neighbours.
        assert_same_as_on_the_cpu(device, made(20_000, 256, about=0.05), made(100, 256, 1, 0.05), 100)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_real_lack_of_memory(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if device == "cpu":
        pytest.skip("only a GPU says that its memory is full")
    rows, queries = made(60_000, 256), made(50, 256, 1)
    where = torch.device(device)
    assert not by_torch.torch_lacks(device)  # BLAS has taken its own
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(where).total_memory
    monkeypatch.setattr(by_torch, "_ROOM", 2**24)
    taken = torch.cuda.memory_reserved(where)
    try:
        # 48 MB beside what is taken: less than the rows' 61 MB, more than a block of them and its products.
        torch.cuda.set_per_process_memory_fraction((taken + 96 * 2**20) / total, where)
        full = torch.empty(48 * 2**20, dtype=torch.uint8, device=where)
        assert_same_as_on_the_cpu(device, rows, queries, 30)
        del full
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, where)


def test_on_a_gpu_auto_takes_what_is_there(device: str) -> None:
    if device == "cpu":
        pytest.skip("the CPU has searches of its own")
    rows, queries = made(3000, 64), made(100, 64, 1)
    expected = nearest(rows, queries, 50)
    for search in ("auto", *(["faiss"] if faiss_has(device) else [])):
        found = nearest(rows, queries, 50, search=search, device=device)
        np.testing.assert_array_equal(found.row, expected.row)
        np.testing.assert_array_equal(found.similarity, expected.similarity)

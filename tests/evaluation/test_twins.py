"""Near-duplicates among vectors, and the look at pixels that decides."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedcache.evaluation import twins as twins_module
from embedcache.evaluation.same_pixels import Pictures
from embedcache.evaluation.twins import find_twins
from embedcache.testing.files import write_png


def clouds(n: int, side: int = 16, seed: int = 0) -> np.ndarray:
    """(n, side, side) smooth pictures that share a large part, as radiographs do."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    waves = np.stack([np.cos(np.pi * (a * y + b * x)) for a in range(8) for b in range(8)])
    shared = 6 * np.exp(-8 * ((y - 0.5) ** 2 + (x - 0.5) ** 2))
    return (shared + np.tensordot(rng.normal(size=(n, len(waves))), waves, 1)).astype(np.float32)


def test_planted_copies_are_near_and_others_are_not() -> None:
    pictures = clouds(600)
    noise = np.random.default_rng(1).normal(scale=0.05, size=(20, 16, 16)).astype(np.float32)
    X = np.concatenate([pictures, 1.5 * pictures[:20] + 3 + noise]).reshape(620, -1)
    twins = find_twins(X, np.arange(620))
    near = twins.cosine >= twins.near
    found = set(zip(twins.first[near].tolist(), twins.second[near].tolist(), strict=True))
    planted = {(i, 600 + i) for i in range(20)}
    assert planted <= found
    assert (
        len(found - planted) <= 6
    )  # of 180,000: the likest of independent pictures pass a bar that is four spreads up
    assert twins.candidate < twins.near
    assert (np.diff(twins.cosine) <= 0).all()


def test_mirrored_vectors_find_what_was_turned() -> None:
    pictures = clouds(600)
    all_of_them = np.concatenate([pictures, pictures[:5, :, ::-1]])
    X, patient = all_of_them.reshape(605, -1), np.arange(605)
    turned = np.ascontiguousarray(all_of_them[:, :, ::-1]).reshape(605, -1)
    plain, both = find_twins(X.copy(), patient), find_twins(X.copy(), patient, turned)
    planted = {(i, 600 + i) for i in range(5)}
    assert not planted & set(zip(plain.first.tolist(), plain.second.tolist(), strict=True))
    assert planted <= set(zip(both.first[both.cosine >= both.near], both.second[both.cosine >= both.near], strict=True))


@pytest.mark.parametrize("tile", [(1024, 8192), (37, 111)])
def test_a_second_set_may_be_a_copy_of_the_first(tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What two different pictures are like is learned within the first set: across the two most nearest neighbours are copies."""
    monkeypatch.setattr(twins_module, "TILE", tile)
    first, others = clouds(500)[:400], clouds(60, seed=2)
    noise = np.random.default_rng(1).normal(scale=0.05, size=first.shape).astype(np.float32)
    X = np.concatenate([first, 1.5 * first + noise, others]).reshape(860, -1)
    twins = find_twins(X, np.arange(860), apart=400)
    assert (twins.first < 400).all()
    assert (twins.second >= 400).all()
    near = twins.cosine >= twins.near
    found = set(zip(twins.first[near].tolist(), twins.second[near].tolist(), strict=True))
    planted = {(i, 400 + i) for i in range(400)}
    assert planted <= found
    assert len(found - planted) <= 20  # of 184,000


def test_blocks_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X = clouds(500).reshape(500, -1)
    X[400:410] = X[:10]
    whole = find_twins(X.copy(), np.arange(500))
    monkeypatch.setattr(twins_module, "TILE", (37, 111))
    pieces = find_twins(X.copy(), np.arange(500))
    bar = max(whole.candidate, pieces.candidate) + 1e-3  # sums in another order move cosines by rounding

    def strong(t: twins_module.Twins) -> set[tuple[int, int]]:
        return set(zip(t.first[t.cosine > bar].tolist(), t.second[t.cosine > bar].tolist(), strict=True))

    assert strong(whole) == strong(pieces)
    assert {(i, 400 + i) for i in range(10)} <= strong(whole)


def test_too_many_candidates_keep_the_most_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    X = clouds(300).reshape(300, -1)
    X[100:200] = X[0]  # 5,050 pairs of one picture
    monkeypatch.setattr(twins_module, "MOST_PAIRS", 1000)
    monkeypatch.setattr(twins_module, "TILE", (32, 64))
    twins = find_twins(X, np.arange(300))
    assert len(twins.first) == 1000
    assert twins.left_out > 0
    assert twins.cosine.min() > 0.999


# --- pixels ---------------------------------------------------------------------------------------


def radiograph(seed: int, side: int = 160) -> np.ndarray:
    """(side, side) uint8: blobs of many sizes on a shared bright middle."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    picture = 2 * np.exp(-4 * ((y - 0.5) ** 2 + (x - 0.5) ** 2))
    for _ in range(150):
        cy, cx, size = rng.random(), rng.random(), rng.uniform(0.01, 0.1)
        picture += rng.normal() * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / size**2)
    return np.rint(255 * (picture - picture.min()) / np.ptp(picture)).astype(np.uint8)


def test_changed_copies_are_the_same_picture(tmp_path: Path) -> None:
    original = radiograph(0)
    changed = {
        "crop": original[2:158, 4:],
        "gamma": np.rint(255 * (original / 255) ** 1.05).astype(np.uint8),
        "flip": original[:, ::-1],
        "small": np.asarray(Image.fromarray(original).resize((90, 90), Image.Resampling.BICUBIC)),
        "flipped crop": original[5:, 5:][:, ::-1],
    }
    paths = [write_png(tmp_path / "0.png", original)]
    Image.fromarray(original).save(tmp_path / "1.jpg", quality=75)
    paths.append(tmp_path / "1.jpg")
    paths += [write_png(tmp_path / f"{name}.png", pixels) for name, pixels in changed.items()]
    pictures = Pictures(lambda i: str(paths[i]), lambda i: 1)
    for i in range(1, len(paths)):
        assert pictures.same(0, i) is True, paths[i].name
        assert pictures.same(i, 0) is True, paths[i].name


def test_other_pictures_are_not_the_same(tmp_path: Path) -> None:
    paths = [write_png(tmp_path / f"{i}.png", radiograph(i)) for i in range(4)]
    pictures = Pictures(lambda i: str(paths[i]), lambda i: 1)
    assert not any(pictures.same(i, j) for i in range(4) for j in range(i))


def test_what_can_not_be_read_or_is_blank_is_not_decided(tmp_path: Path) -> None:
    paths = [
        write_png(tmp_path / "0.png", radiograph(0)),
        tmp_path / "gone.png",
        write_png(tmp_path / "blank.png", np.zeros((50, 50), np.uint8)),
    ]
    pictures = Pictures(lambda i: str(paths[i]), lambda i: 1)
    assert pictures.same(0, 1) is None
    assert pictures.same(2, 0) is None

"""Bombs and spoilt files: a reason in our own words, never a crash. `benchmarks/fuzz_images.py` does it by the thousand."""

import random
from pathlib import Path

import pytest

from embedcache.errors import ImageError
from embedcache.images import count_slices, open_image
from embedcache.images import deflated as deflated_module
from embedcache.testing.fuzz import SECRET, SPOILERS, bombs, whole_files


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return whole_files(tmp_path_factory.mktemp("whole"))


def test_whole_files_are_read_and_counted_alike(whole: dict[str, bytes], tmp_path: Path) -> None:
    """Else spoiling them would show nothing. `nested_priv_SQ.dcm` has no pixels."""
    for name, data in whole.items():
        if name == "nested_priv_SQ.dcm":
            continue
        path = tmp_path / name
        path.write_bytes(data)
        image = open_image(str(path))
        assert count_slices(str(path)) == image.n_slices, name
        assert len(image.read(0, image.n_slices).pixels) == image.n_slices


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_spoilt_files_are_read_or_refused(spoiler: str, whole: dict[str, bytes], tmp_path: Path) -> None:
    """In this process, so the ones that are known to be harmless: 40 each, drawn from a fixed seed."""
    rng = random.Random(f"spoilt {spoiler}")
    names = [name for name in whole if name.endswith((".png", ".nii", ".nii.gz", ".npy", ".npz"))]
    for i in range(40):
        name = rng.choice(names)
        path = tmp_path / SECRET / f"{i}-{name}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(SPOILERS[spoiler](whole[name], rng))
        reason = ""
        try:
            counted = count_slices(str(path))
            image = open_image(str(path))
            assert image.n_slices == counted
            image.read(0, 1)
        except ImageError as error:
            reason = error.reason
        assert SECRET not in reason
        assert str(tmp_path) not in reason


@pytest.mark.parametrize(
    "name",
    ["claims-100-GB.nii", "claims-100-GB.npy", "claims-100-GB.npz", "png-100-GB.png", "frames.dcm", "length.dcm"],
)
def test_claims_are_refused_before_memory_is_taken(name: str, made_bombs: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(made_bombs[name])
    with pytest.raises(ImageError) as raised:
        open_image(str(path)).read(0, 1)
    assert SECRET[:8] not in raised.value.reason


@pytest.fixture(scope="module")
def made_bombs() -> dict[str, bytes]:
    return bombs()


def test_a_deflated_data_set_is_not_inflated_without_end(
    made_bombs: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told before pydicom inflates it as a whole: were it handed on, this would end in a message about pixel data."""
    monkeypatch.setattr(deflated_module, "MOST_INFLATED", 2**24)
    path = tmp_path / "deflated.dcm"
    path.write_bytes(made_bombs["deflated.dcm"])
    for read in (count_slices, open_image):
        with pytest.raises(ImageError, match="holds more than 16 MiB"):
            read(str(path))


def test_a_type_that_scipy_would_take_as_an_index_is_refused(whole: dict[str, bytes], tmp_path: Path) -> None:
    """Handed on to scipy, this file ended the process with a bus error."""
    at = whole["five.mat"].index(b"image") + 8
    path = tmp_path / "five.mat"
    path.write_bytes(whole["five.mat"][:at] + b"\xff\xff\0\0" + whole["five.mat"][at + 4 :])
    with pytest.raises(ImageError, match="no known type"):
        open_image(str(path))


def test_a_deflated_data_set_of_use_is_read(whole: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "image_dfl.dcm"
    path.write_bytes(whole["image_dfl.dcm"])
    assert open_image(str(path)).read(0, 1).pixels.any()

import io
import zipfile

import numpy as np
import pytest

from embedcache.errors import ImageError
from embedcache.images import ImageOptions, count_slices, npz, open_image, parse_window, stat_source

RNG = np.random.default_rng(7)


def opened(path):
    image = open_image(str(path))
    assert image.n_slices == count_slices(str(path))
    return image, image.read(0, image.n_slices)


# --- .npy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype", "kind", "slices"),
    [
        ((4, 5), "uint8", "array", 1),
        ((4, 5), ">i2", "array", 1),
        ((3, 4, 5), "int16", "volume", 3),
        ((4, 5, 3), "float32", "volume", 4),
        ((4, 5, 3), "uint8", "array", 1),
        ((4, 5, 1), "float64", "array", 1),
        ((2, 4, 5, 3), "uint8", "volume", 2),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_by_their_shape(tmp_path, shape, dtype, kind, slices, order):
    values = np.asarray(RNG.integers(0, 100, shape).astype(dtype), order=order)
    np.save(tmp_path / "a.npy", values)
    image, volume = opened(tmp_path / "a.npy")
    assert (image.kind, image.n_slices) == (kind, slices)
    assert volume.pixels.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(volume.pixels.ravel(), values.ravel())


def test_bits_halves_and_alpha(tmp_path):
    np.save(tmp_path / "bits.npy", np.eye(3, dtype=np.bool_))
    np.testing.assert_array_equal(opened(tmp_path / "bits.npy")[1].pixels[0], np.eye(3) * 255)
    np.save(tmp_path / "half.npy", np.eye(3, dtype=np.float16))
    assert opened(tmp_path / "half.npy")[1].pixels.dtype == np.float32
    rgba = np.full((2, 2, 4), 200, np.uint8)
    rgba[0, 0, 3] = 0
    np.save(tmp_path / "rgba.npy", rgba)
    pixels = opened(tmp_path / "rgba.npy")[1].pixels
    assert pixels[0, 0, 0].tolist() == [0, 0, 0]
    assert pixels[0, 1, 1].tolist() == [157, 157, 157]  # 200 x 200 / 255


def test_nothing_is_ever_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    np.save(tmp_path / "a.npy", np.array([[Trap()]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([[Trap()]], dtype=object))
    for name in ("a.npy", "a.npz#x", "a.npz#x:0"):
        for read in (open_image, count_slices):
            with pytest.raises(ImageError, match="only real numbers"):
                read(str(tmp_path / name))


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4, 5), (0, 4), ()])
def test_what_is_no_image(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    for read in (open_image, count_slices):
        with pytest.raises(ImageError, match="an array of shape"):
            read(str(tmp_path / "a.npy"))


def test_a_cut_array_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.ones((4, 5), np.int32))
    (tmp_path / "a.npy").write_bytes(buffer.getvalue()[:-8])
    with pytest.raises(ImageError, match="72 of the 80 bytes"):
        open_image(str(tmp_path / "a.npy"))
    lie = buffer.getvalue().replace(b"(4, 5)", b"(400000, 500000)".ljust(6)[:16])
    (tmp_path / "b.npy").write_bytes(lie)
    with pytest.raises(ImageError, match="cut short"):
        open_image(str(tmp_path / "b.npy"))


def test_auto_of_an_array(tmp_path):
    values = RNG.integers(10, 200, (4, 5))
    for dtype, low, high in (
        ("uint8", 0, 255),
        ("uint16", values.min(), values.max()),
        ("float32", values.min(), values.max()),
    ):
        np.save(tmp_path / "a.npy", values.astype(dtype))
        assert open_image(str(tmp_path / "a.npy")).limits(parse_window("auto"), 0, 1).tolist() == [[[low, high]]]
    np.save(tmp_path / "a.npy", np.full((4, 5), 7, np.int16))
    assert open_image(str(tmp_path / "a.npy")).limits(parse_window("auto"), 0, 1).tolist() == [[[7, 7]]]


def test_an_array_has_one_time_point(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 5), np.uint8))
    with pytest.raises(ImageError, match="1 time point, and number 1"):
        open_image(str(tmp_path / "a.npy"), ImageOptions(time=1))


# --- .npz -----------------------------------------------------------------------------------------


@pytest.fixture
def medmnist(tmp_path):
    """As MedMNIST's files: grey images, colour images, volumes."""
    arrays = {
        "train_images": RNG.integers(0, 255, (6, 28, 28)).astype(np.uint8),
        "test_images": RNG.integers(0, 255, (4, 28, 28, 3)).astype(np.uint8),
        "val_images": RNG.integers(0, 255, (2, 9, 8, 7)).astype(np.uint8),
        "train_labels": np.zeros((6, 1), np.uint8),
    }
    np.savez_compressed(tmp_path / "some.npz", **arrays)
    return str(tmp_path / "some.npz"), arrays


@pytest.mark.parametrize("held", [2**30, 0])
def test_one_image_of_many(medmnist, monkeypatch, held):
    monkeypatch.setattr(npz, "HELD_BYTES", held)
    path, arrays = medmnist
    for key, i in [("train_images", 4), ("train_images", 1), ("test_images", 3), ("val_images", 1), ("val_images", 0)]:
        name = f"{path}#{key}:{i}"
        image, volume = opened(name)
        wanted = arrays[key][i]
        np.testing.assert_array_equal(volume.pixels, wanted if key == "val_images" else wanted[np.newaxis])
        assert image.state == stat_source(name)


def test_an_array_is_unpacked_once(medmnist, monkeypatch):
    path, _ = medmnist
    opened_members = []
    real = zipfile.ZipFile.open
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *a, **k: opened_members.append(a) or real(*a, **k))
    for i in range(6):
        open_image(f"{path}#train_images:{i}")
    assert len(opened_members) <= 1


def test_the_digest_is_of_the_one_image(medmnist, tmp_path):
    path, arrays = medmnist
    digests = [open_image(f"{path}#train_images:{i}").digest for i in range(6)]
    assert len(set(digests)) == 6
    changed = dict(arrays)
    changed["train_images"] = arrays["train_images"].copy()
    changed["train_images"][2] += 1
    np.savez_compressed(path, **changed)  # the very path: what was unpacked of the old file is not taken for it
    again = [open_image(f"{path}#train_images:{i}").digest for i in range(6)]
    assert [a == b for a, b in zip(digests, again, strict=True)] == [True, True, False, True, True, True]


@pytest.mark.parametrize(
    ("fragment", "says"),
    [
        ("#train_images:6", "number 6 of an array of shape"),
        ("#no_images:0", "no array of that name; arrays that are there: 4"),
        ("#train_images:-1", "KEY or KEY:INDEX"),
        ("", "several arrays, and the path names none"),
        ("#train_labels:0", "no image"),
    ],
)
def test_what_a_path_can_not_name(medmnist, fragment, says):
    path, _ = medmnist
    for read in (open_image, count_slices):
        with pytest.raises(ImageError, match=says) as error:
            read(path + fragment)
        assert path not in str(error.value)


def test_a_damaged_npz_is_refused(medmnist):
    path, _ = medmnist
    with open(path, "r+b") as file:
        file.seek(400)
        file.write(b"\xff" * 64)
    with pytest.raises(ImageError, match="cut short or damaged"):
        open_image(f"{path}#train_images:0")


def test_a_hash_in_another_name_is_no_fragment(tmp_path):
    np.save(tmp_path / "case#1.npy", np.zeros((4, 5), np.uint8))
    assert opened(tmp_path / "case#1.npy")[0].n_slices == 1

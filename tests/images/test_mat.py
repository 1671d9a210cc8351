import sys

import numpy as np
import pytest
from scipy.io import savemat

from embedcache.errors import ImageError
from embedcache.images import count_slices, open_image

h5py = pytest.importorskip("h5py")

RNG = np.random.default_rng(8)
IMAGE = RNG.integers(0, 3000, (5, 6)).astype(np.int16)
MASK = np.zeros((5, 6), np.uint8)
MASK[1:3, 2:5] = 1


def write_mat73(path, variables, user_block=True):
    """As MATLAB writes: axes in reverse, behind a block of 512 bytes that begins with its name."""
    with h5py.File(path, "w", userblock_size=512 if user_block else 0) as file:
        for name, values in variables.items():
            file.create_dataset(name, data=np.asarray(values).T)
    if user_block:
        with open(path, "r+b") as raw:
            raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return str(path)


def figshare(path, user_block=True):
    """One file of the brain tumour set: the image, its mask, and numbers."""
    patient = np.array([[ord(c) for c in "100360"]], np.uint16)
    return write_mat73(
        path,
        {"cjdata/image": IMAGE, "cjdata/tumorMask": MASK, "cjdata/label": [[2.0]], "cjdata/PID": patient},
        user_block,
    )


def opened(path):
    image = open_image(str(path))
    assert image.n_slices == count_slices(str(path))
    return image, image.read(0, image.n_slices)


@pytest.mark.parametrize("user_block", [True, False])
def test_the_image_and_the_mask_of_a_tumour(tmp_path, user_block):
    path = figshare(tmp_path / "1.mat", user_block)
    image, volume = opened(path)
    assert image.kind == "array"
    np.testing.assert_array_equal(volume.pixels[0], IMAGE)
    np.testing.assert_array_equal(opened(f"{path}#cjdata/tumorMask")[1].pixels[0], MASK)


@pytest.mark.parametrize("form", ["5", "7.3"])
def test_volumes_and_colours_in_either_version(tmp_path, form):
    volume, colours = RNG.normal(size=(4, 5, 6)), RNG.integers(0, 255, (4, 5, 3)).astype(np.uint8)
    for values, expected in ((volume, np.moveaxis(volume, -1, 0)), (colours, colours[np.newaxis])):
        path = tmp_path / "a.mat"
        if form == "5":
            savemat(path, {"scan": values}, do_compression=True)
        else:
            write_mat73(path, {"scan": values})
        np.testing.assert_array_equal(opened(path)[1].pixels, expected)


def test_a_structure_of_version_5(tmp_path):
    savemat(tmp_path / "a.mat", {"cjdata": {"image": IMAGE, "tumorMask": MASK, "label": 2}})
    np.testing.assert_array_equal(opened(tmp_path / "a.mat")[1].pixels[0], IMAGE)
    np.testing.assert_array_equal(opened(f"{tmp_path}/a.mat#cjdata/tumorMask")[1].pixels[0], MASK)


def test_names_that_are_not_there(tmp_path):
    path = figshare(tmp_path / "1.mat")
    with pytest.raises(ImageError, match=r"no variable of that name; .* there: 2\.$"):
        open_image(f"{path}#other")
    savemat(tmp_path / "2.mat", {"a": IMAGE, "b": IMAGE})
    with pytest.raises(ImageError, match=r"the path names none with #VARIABLE; .* there: 2\.$"):
        open_image(str(tmp_path / "2.mat"))


def test_damaged_and_lying_files(tmp_path):
    path = figshare(tmp_path / "1.mat")
    with open(path, "rb") as file:
        data = file.read()
    (tmp_path / "cut.mat").write_bytes(data[:2000])
    savemat(tmp_path / "2.mat", {"image": IMAGE}, do_compression=True)
    (tmp_path / "cut5.mat").write_bytes((tmp_path / "2.mat").read_bytes()[:-20])
    for name in ("cut.mat", "cut5.mat"):
        with pytest.raises(ImageError, match="cut short or damaged") as error:
            open_image(str(tmp_path / name))
        assert str(tmp_path) not in str(error.value)
    with h5py.File(tmp_path / "huge.mat", "w") as file:
        file.create_dataset(
            "image", shape=(10**6, 10**5), dtype="u1", chunks=(100, 100)
        )  # 100 GB that were never written
    with pytest.raises(ImageError, match="more values than the file can hold"):
        open_image(str(tmp_path / "huge.mat"))


def test_no_link_leads_out_of_the_file_or_in_circles(tmp_path):
    figshare(tmp_path / "1.mat")
    with h5py.File(tmp_path / "2.mat", "w") as file:
        file["image"] = h5py.ExternalLink(str(tmp_path / "1.mat"), "/cjdata/image")
        group = file.create_group("round")
        group["self"] = group
    with pytest.raises(ImageError, match=r"arrays of two axes or more that are there: 0\."):
        open_image(str(tmp_path / "2.mat"))


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    path = figshare(tmp_path / "1.mat")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImageError, match=r"needs h5py: pip install 'embedcache\[volumes\]'"):
        open_image(path)

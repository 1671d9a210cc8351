"""Geometry and calibration against dcm2niix, which nobody here wrote: its published pairs, and its own output."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from embedcache.images.options import ImageOptions
from embedcache.images.series import parse_dicom
from embedcache.images.windows import physical
from embedcache.testing.files import AXIAL, write_series
from tests.images.dicom_makers import write_enhanced

AFFINE_MM = 1e-3
"""NIfTI affines are float32 and DICOM positions have three to five places."""


def parsed(folder, time=0):
    files = sorted(f for f in Path(folder).iterdir() if f.suffix == ".dcm")
    return parse_dicom((f.read_bytes() for f in files), ImageOptions(time=time))


def assert_same_volume(ours, reference, time=0):
    """Every voxel of `ours`, in physical units, is the reference's at the same place in the patient."""
    values = physical(ours.decode(0, ours.n_slices), ours.calibration)
    expected = np.asarray(reference.get_fdata(dtype=np.float64))
    expected = expected[..., time] if expected.ndim == 4 else expected
    index = np.indices(values.shape).reshape(3, -1)
    index = np.vstack([index, np.ones(index.shape[1], int)])
    theirs = np.rint(np.linalg.inv(reference.affine) @ ours.affine @ index).astype(int)
    places = ours.affine @ index, reference.affine @ theirs
    assert np.abs(places[0] - places[1]).max() < AFFINE_MM
    assert sorted(values.shape) == sorted(expected.shape)
    assert theirs[:3].min() >= 0
    np.testing.assert_array_equal(expected[tuple(theirs[:3])].reshape(values.shape), values)


# --- published pairs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "reference", "n_times", "n_slices"),
    [("GE_mr_0004", "DCM2NIIX_regression_test_4.nii", 10, 15), ("Siemens_mr_0003", "EPI_PE=AP_3.nii", 2, 5)],
)
def test_every_time_point_of_the_published_pairs(shared_data, series, reference, n_times, n_slices):
    folder = shared_data / "dcm_qa_nih"
    image = nib.load(folder / "Ref" / reference)
    for time in range(n_times):
        ours = parsed(folder / "In" / series, time)
        assert ours.n_slices == n_slices
        assert ours.time_point == time
        assert ours.warnings[0].startswith(f"{n_times} time points")
        assert_same_volume(ours, image, time)


# --- its output on other series -------------------------------------------------------------------------


@pytest.fixture(scope="session")
def dcm2niix():
    """The program, from PATH or from the package of that name."""
    found = shutil.which("dcm2niix")
    spec = importlib.util.find_spec("dcm2niix")
    if found is None and spec is not None and spec.submodule_search_locations:
        found = shutil.which("dcm2niix", path=spec.submodule_search_locations[0])
    if found is None:
        pytest.skip("dcm2niix is not installed (PyPI has it under this name)")
    return found


def converted(program, folder, out):
    """The only volume that dcm2niix makes of a folder."""
    out.mkdir()
    # -m y: slices of one series stay together; -b n: no JSON
    command = [program, "-b", "n", "-z", "n", "-m", "y", "-f", "out", "-o", str(out), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    files = sorted(out.glob("*.nii"))
    assert len(files) == 1, done.stdout + done.stderr
    return nib.load(files[0])


def test_its_output_on_the_shared_ct_series(shared_data, dcm2niix, tmp_path):
    folder = shared_data / "ct_lung_a0002" / "dicom"
    assert_same_volume(parsed(folder), converted(dcm2niix, folder, tmp_path / "out"))


@pytest.mark.parametrize(
    "orientation",
    [AXIAL, (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1), (0.8, 0.6, 0, 0, 0, -1), (-1, 0, 0, 0, -1, 0)],
    ids=["axial", "coronal", "sagittal", "oblique", "prone"],
)
def test_its_output_on_series_of_a_real_volume(shared_data, dcm2niix, tmp_path, orientation):
    volume = np.asarray(nib.load(sorted((shared_data / "msd_hippocampus" / "images").glob("*.nii.gz"))[0]).dataobj)
    stored = np.ascontiguousarray(np.clip(volume, 0, 4095).astype(np.int16).transpose(2, 1, 0)[:12])
    folder = write_series(
        tmp_path / "in",
        stored,
        orientation=orientation,
        origin=(-20.5, 13.25, 7.0),
        spacing=(2.5, 0.9, 1.1),
        slopes=[2.0] * 12,
        intercepts=[-1024.0] * 12,
    )
    assert_same_volume(parsed(folder), converted(dcm2niix, folder, tmp_path / "out"))


def test_its_output_on_an_enhanced_ct(shared_data, dcm2niix, tmp_path):
    volume = np.asarray(nib.load(sorted((shared_data / "msd_hippocampus" / "images").glob("*.nii.gz"))[1]).dataobj)
    stored = np.ascontiguousarray(np.clip(volume, 0, 4095).astype(np.int16).transpose(2, 1, 0)[np.newaxis, :10])
    (tmp_path / "in").mkdir()
    write_enhanced(
        tmp_path / "in" / "a.dcm",
        stored,
        orientation=(0.8, 0.6, 0, 0, 0, -1),
        origin=(-20.5, 13.25, 7.0),
        spacing=(2.5, 0.9, 1.1),
        slopes=[2.0] * 10,
        intercepts=[-1024.0] * 10,
    )
    assert_same_volume(parsed(tmp_path / "in"), converted(dcm2niix, tmp_path / "in", tmp_path / "out"))

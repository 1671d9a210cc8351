"""Every registered dataset on its replica: the contract, the audit, and what each of the study's eight says of a fault."""

import json
import re
import shutil

import numpy as np
import pytest

from embedcache.datasets import REGISTRY, DatasetOptions, find_adapter, open_dataset
from embedcache.datasets.audit import audit_dataset
from embedcache.errors import InputError
from embedcache.images import open_image
from embedcache.testing import check_dataset, make_replica
from embedcache.testing.files import write_nifti, write_png
from embedcache.testing.replicas import MAKERS

EIGHT = sorted(MAKERS)
ONLY = {"table": DatasetOptions(tasks=("finding=binary",), positive=("finding=mass",))}


def needs(name):
    if name == "brain-tumor":
        pytest.importorskip("h5py", reason="MATLAB 7.3 files need h5py")


@pytest.fixture
def replica(tmp_path, request):
    needs(request.param)
    return request.param, make_replica(request.param, tmp_path / "replica")


@pytest.mark.parametrize("replica", REGISTRY.names(), indirect=True)
def test_every_registered_dataset_keeps_the_contract(replica):
    name, root = replica
    check_dataset(find_adapter(name), root, ONLY.get(name, DatasetOptions()))


@pytest.mark.parametrize("replica", REGISTRY.names(), indirect=True)
def test_a_whole_replica_passes_the_audit(replica):
    name, root = replica
    audit = audit_dataset(name, str(root))
    assert audit.problems == ()
    assert audit.exit_code == 0
    assert audit.opened == audit.samples > 0
    if name in EIGHT:
        assert any("a subset" in notice for notice in audit.notices)


@pytest.mark.parametrize("replica", EIGHT, indirect=True)
def test_images_and_masks_of_the_eight_can_be_read(replica):
    name, root = replica
    dataset = open_dataset(name, str(root))
    samples, masks = dataset.samples(), dataset.masks()
    assert open_image(str(samples.path[0])).read(0, 1).pixels.size
    assert (masks is None) == (name in ("nih-cxr14", "chexpert", "sars-cov-2-ct"))


REMOVED = {
    "nih-cxr14": (
        "images_001/images/00000002_000.png",
        "1 of the 6 images in Data_Entry_2017.csv have no file, the first is",
    ),
    "chexpert": ("train/patient00002/study1/view1_frontal.jpg", "is listed and has no file"),
    "montgomery": ("ManualMask/leftMask/MCUCXR_0004_0.png", "is missing: its image is there"),
    "shenzhen": ("CXR_png/CHNCXR_0003_0.png", "is missing: its mask or its reading is there"),
    "sars-cov-2-ct": ("Covid/Patient (2)/Covid (5).png", "is missing: the numbers around it are there"),
    "amos22": ("labelsTr/amos_0005.nii.gz", "is missing: its image is there"),
    "msd-heart": ("imagesTr/la_007.nii.gz", "is missing: dataset.json lists it"),
    "brain-tumor": ("brainTumorDataPublic_1-8/4.mat", "is missing: the numbers around it are there"),
}


@pytest.mark.parametrize("replica", EIGHT, indirect=True)
def test_a_file_that_is_gone_is_one_line_that_names_it(replica):
    name, root = replica
    path, said = REMOVED[name]
    (root / path).unlink()
    audit = audit_dataset(name, str(root))
    (problem,) = audit.problems
    assert said in problem
    assert path.rsplit("/", 1)[-1].split(".")[0] in problem
    assert audit.exit_code == 1


def relabel_nih(root):
    table = root / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("Hernia", "Scoliosis"))


def relabel_chexpert(root):
    table = root / "train.csv"
    head, *rows = table.read_text().splitlines()
    rows[2] = ",".join([*rows[2].split(",")[:7], "0.5", *rows[2].split(",")[8:]])
    table.write_text("\n".join([head, *rows]))


def relabel_mask(folder, name, value):
    def change(root):
        path = root / folder / name
        values = np.zeros((12, 10, 6) if "amos" in name else (10, 12, 5), dtype=np.uint8)
        values[3, 3, 3] = value
        write_nifti(path, values)

    return change


def relabel_brain(root):
    import h5py

    with h5py.File(root / "brainTumorDataPublic_1-8" / "5.mat", "r+") as file:
        file["cjdata/label"][:] = 4


UNKNOWN = {
    "nih-cxr14": (relabel_nih, r"row 2 of Data_Entry_2017\.csv has the finding 'Scoliosis'"),
    "chexpert": (relabel_chexpert, r"row 3 of train\.csv has '0\.5' for 'Cardiomegaly'"),
    "montgomery": (
        lambda root: (root / "CXR_png/MCUCXR_0004_0.png").rename(root / "CXR_png/MCUCXR_0004_7.png"),
        r"MCUCXR_0004_7\.png says no reading",
    ),
    "shenzhen": (
        lambda root: [
            (root / "CXR_png/CHNCXR_0003_0.png").rename(root / "CXR_png/CHNCXR_0003_2.png"),
            (root / "mask/CHNCXR_0003_0_mask.png").rename(root / "mask/CHNCXR_0003_2_mask.png"),
        ],
        r"CHNCXR_0003_2\.png says no reading",
    ),
    "sars-cov-2-ct": (
        lambda root: (root / "Healthy").rename(root / "Unclear"),
        "holds the folder 'Unclear', which is no class",
    ),
    "amos22": (relabel_mask("labelsTr", "amos_0006.nii.gz", 16), "the mask of amos_0006 holds value 16"),
    "msd-heart": (relabel_mask("labelsTr", "la_009.nii.gz", 2), "the mask of la_009 holds value 2"),
    "brain-tumor": (relabel_brain, r"5\.mat has label 4, which is none of 1, 2 and 3"),
}


@pytest.mark.parametrize("replica", EIGHT, indirect=True)
def test_an_unknown_label_is_one_line_that_names_it(replica):
    name, root = replica
    change, said = UNKNOWN[name]
    change(root)
    try:
        (problem,) = audit_dataset(name, str(root)).problems  # a wrong mask is found by opening it
    except InputError as error:  # other labels keep the dataset from being opened
        problem = str(error)
    assert re.search(said, problem)
    assert "\n" not in problem


def resize_brain(root):
    import h5py

    with h5py.File(root / "brainTumorDataPublic_1-8" / "5.mat", "r+") as file:
        del file["cjdata/tumorMask"]
        file["cjdata/tumorMask"] = np.ones((31, 32), dtype=np.uint8)


SIZES = {
    "montgomery": (
        lambda root: write_png(root / "ManualMask/rightMask/MCUCXR_0004_0.png", np.zeros((41, 48), np.uint8)),
        "the mask of MCUCXR_0004_0 is 1 x 41 x 48 and its image 1 x 40 x 48",
    ),
    "shenzhen": (
        lambda root: write_png(root / "mask/CHNCXR_0003_0_mask.png", np.zeros((40, 43), np.uint8)),
        "the mask of CHNCXR_0003_0 is 1 x 40 x 43 and its image 1 x 40 x 44",
    ),
    "amos22": (
        lambda root: write_nifti(root / "labelsTr/amos_0006.nii.gz", np.zeros((12, 10, 5), np.uint8)),
        "the mask of amos_0006 is 5 x 10 x 12 and its image 6 x 10 x 12",
    ),
    "msd-heart": (
        lambda root: write_nifti(root / "labelsTr/la_009.nii.gz", np.zeros((10, 11, 5), np.uint8)),
        "the mask of la_009 is 5 x 11 x 10 and its image 5 x 12 x 10",
    ),
    "brain-tumor": (resize_brain, "the mask of 5 is 1 x 32 x 31 and its image 1 x 32 x 32"),
}


@pytest.mark.parametrize("replica", sorted(SIZES), indirect=True)
def test_a_mask_of_another_size_is_one_line_that_names_it(replica):
    name, root = replica
    change, said = SIZES[name]
    change(root)
    (problem,) = audit_dataset(name, str(root)).problems
    assert said in problem


@pytest.mark.parametrize("replica", ["montgomery", "amos22", "msd-heart", "chexpert"], indirect=True)
def test_the_folder_above_the_archives_own_is_taken_too(replica):
    name, root = replica
    assert (
        open_dataset(name, str(root.parent)).samples().id.tolist()
        == open_dataset(name, str(root)).samples().id.tolist()
    )


@pytest.mark.parametrize("replica", EIGHT, indirect=True)
def test_an_empty_folder_says_what_should_be_there(replica, tmp_path):
    name, _ = replica
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"(--root is|put NIH's|unpack|holds no)"):
        open_dataset(name, str(tmp_path / "empty"))
    with pytest.raises(InputError, match="there is no folder gone"):
        open_dataset(name, str(tmp_path / "gone"))


def test_a_broken_image_is_named(tmp_path):
    root = make_replica("montgomery", tmp_path)
    (root / "CXR_png" / "MCUCXR_0007_1.png").write_bytes(b"\x89PNG\r\n\x1a\ncut")
    (problem,) = audit_dataset("montgomery", str(root)).problems
    assert problem.startswith("MCUCXR_0007_1 can not be read: ")


def test_files_of_a_users_own_are_named_by_their_rows(tmp_path):
    root = make_replica("table", tmp_path)
    (root.parent / "image4.png").write_bytes(b"\x89PNG\r\n\x1a\ncut")
    (root.parent / "image5.png").unlink()
    audit = audit_dataset("table", str(root), ONLY["table"])
    missing, cut = audit.problems  # every file must be there; those that are opened are read whole
    assert missing.startswith("row 6 of cases.csv can not be read: ")
    assert cut.startswith("row 5 of cases.csv can not be read: ")
    assert "image5" not in " ".join(audit.problems)


def test_the_contract_finds_breaches(tmp_path):
    """A dataset that breaks several promises at once."""
    from embedcache.datasets.base import Adapter, ListedDataset
    from embedcache.types import DatasetInfo, Samples, strings

    def broken(root, options):
        names = sorted(p.name for p in root.iterdir())
        samples = Samples(
            strings([str(root / n) for n in names]), strings(["p"] * len(names)), strings([str(root / n) for n in names]),
            strings(["train", "test", "rest"]), np.arange(len(names)), "x",
        )  # fmt: skip
        return ListedDataset(
            DatasetInfo("broken", public_ids=True), (), samples, lambda: all_of(samples), {"c": np.zeros(1)}
        )

    def all_of(samples):
        from embedcache.datasets.labelling import all_rows

        return all_rows([], samples)

    for i in range(3):
        write_png(tmp_path / f"{i}.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(AssertionError) as caught:
        check_dataset(Adapter(DatasetInfo("broken"), broken), tmp_path)
    for said in (
        "path of this machine",
        "'rest' is no part",
        "1 patients are in several parts",
        "column 'c' has 1 values",
    ):
        assert said in str(caught.value)


def test_an_order_that_follows_the_file_system_is_found(tmp_path):
    import os

    from embedcache.datasets.base import Adapter, ListedDataset
    from embedcache.datasets.labelling import all_rows
    from embedcache.types import DatasetInfo, Samples, strings

    def unsorted(root, options):
        names = os.listdir(root)
        ids = strings(names)
        samples = Samples(
            ids, ids, strings([str(root / n) for n in names]), strings([""] * len(names)), np.arange(len(names)), "x"
        )
        return ListedDataset(DatasetInfo("unsorted", public_ids=True), (), samples, lambda: all_rows([], samples), {})

    for i in range(3):
        write_png(tmp_path / f"{i}.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(AssertionError, match="its ids depend on the order in which files are listed"):
        check_dataset(Adapter(DatasetInfo("unsorted"), unsorted), tmp_path)


def test_replicas_are_small_and_the_same_every_time(tmp_path):
    for name in EIGHT:
        if name == "brain-tumor":
            continue  # HDF5 notes the time of writing
        one, two = (make_replica(name, tmp_path / side / name) for side in "ab")
        files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
        assert 9 <= len(files) <= 60, name
        assert sum((one / f).stat().st_size for f in files) < 500_000
        for file in files:
            if file.suffix != ".gz":  # gzip notes the time of writing
                assert (one / file).read_bytes() == (two / file).read_bytes()
    shutil.rmtree(tmp_path / "a")


def test_documents_of_decathlon_are_checked(tmp_path):
    root = make_replica("msd-heart", tmp_path)
    document = json.loads((root / "dataset.json").read_text())
    document["training"][0]["image"] = "../elsewhere/la_003.nii.gz"
    (root / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"entry 1 of 'training' in dataset\.json leads out of the dataset's folder"):
        open_dataset("msd-heart", str(root))
    (root / "dataset.json").write_text("{")
    with pytest.raises(InputError, match=r"dataset\.json of Task02_Heart is no JSON"):
        open_dataset("msd-heart", str(root))

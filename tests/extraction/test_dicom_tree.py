"""A DICOM tree from its mixed folders to a store and its labels, with nothing of its headers left anywhere."""

from pathlib import Path

import numpy as np
from pydicom import dcmread

import embedcache
from embedcache import DatasetOptions, ExtractConfig
from embedcache.images.tree import slice_instances
from embedcache.store.reader import FeatureCache
from embedcache.testing import make_replica


def test_a_tree_with_boxes_becomes_a_store_without_an_identifier(tmp_path: Path, tiny: Path) -> None:
    root = make_replica("dicom-tree", tmp_path / "data")
    secrets = set()
    for path in root.rglob("*"):
        if path.is_file() and path.name != "README":
            header = dcmread(path)
            header.AccessionNumber, header.PatientID = "ACC" + str(header.StudyInstanceUID)[-6:], "SECRET-PATIENT"
            header.save_as(path)
            secrets |= {header.AccessionNumber, header.PatientID, header.SOPInstanceUID, header.SeriesInstanceUID}
            secrets |= {header.StudyInstanceUID, path.name}
    paths = embedcache.open_dataset("dicom-tree", str(root)).samples().path.tolist()
    series = next(path for path in paths if "#series:" in path)
    boxed = slice_instances(series)[1]
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(f"SOPInstanceUID,label,xmin,ymin,xmax,ymax\n{boxed},nodule,1,1,5,5\n")
    cache = tmp_path / "cache"
    config = ExtractConfig(
        dataset="dicom-tree", root=str(root), backbones=(str(tiny),), cache=str(cache), size=28, batch_size=4, threads=1,
        workers=1, device="cpu", options=DatasetOptions(label_table=str(boxes)),
    )  # fmt: skip
    report = embedcache.extract(config)
    assert report.exit_code == 0
    (store,) = cache.glob("archive/*/*.zarr")
    found = FeatureCache.open(store)
    assert sorted(found.samples().slices.tolist()) == [1, 1, 3, 4, 5]
    labels = found.labels()
    assert labels.value[(labels.task == "box") & (labels.slice == 1)].tolist() == [1]
    assert np.nansum(labels.value) == 1
    written = b"".join(p.read_bytes() for p in cache.rglob("*") if p.is_file())
    for secret in (*secrets, str(root)):
        # names of one or two characters would be found by chance
        if len(str(secret)) > 4:
            assert str(secret).encode() not in written
    again = embedcache.extract(config)
    assert again.exit_code == 0

"""The display that a DICOM file asks for, through decode processes to the tokens: as a picture of it would give them."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

import embedcache
from embedcache import DatasetOptions, ExtractConfig
from embedcache.store.reader import FeatureCache
from embedcache.testing.files import write_dicom, write_png


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_lookup_table_gives_the_tokens_of_its_picture(tmp_path: Path, photometric: str) -> None:
    rng = np.random.default_rng(0)
    rows = ["path,case"]
    for i in range(3):
        table = rng.permutation(256).astype(np.uint16)  # no window could stand for it
        stored = rng.integers(0, 256, (32, 32)).astype(np.uint16)
        path = write_dicom(tmp_path / f"{i}.dcm", stored, photometric=photometric, window=(40, 10))
        dataset, item = dcmread(path), Dataset()
        item.add_new("LUTDescriptor", "US", [256, 0, 8])
        item.add_new("LUTData", "US", table.tolist())
        dataset.VOILUTSequence = [item]
        dataset.save_as(path)
        shown = table[stored].astype(np.uint8)
        write_png(tmp_path / f"{i}.png", 255 - shown if photometric == "MONOCHROME1" else shown)
        rows += [f"{i}.dcm,dicom{i}", f"{i}.png,png{i}"]
    (tmp_path / "cases.csv").write_text("\n".join(rows) + "\n")
    embedcache.extract(
        ExtractConfig(
            dataset="table", root=str(tmp_path / "cases.csv"), backbones=("pixels:32",),
            cache=str(tmp_path / "cache"), ids="keep", dtype="float32",
            size=32, threads=1, workers=1, device="cpu", options=DatasetOptions(id_column="case"),
        )
    )  # fmt: skip
    (store,) = (tmp_path / "cache").glob("cases/*/*.zarr")
    cache = FeatureCache.open(store)
    tokens = dict(zip(cache.samples().id.tolist(), cache.layer(1).cls_token.read(), strict=False))
    for i in range(3):
        # a fraction and its inversion, each rounded to float32 once more or less
        np.testing.assert_allclose(tokens[f"dicom{i}"], tokens[f"png{i}"], atol=1e-6)
    assert not np.allclose(tokens["dicom0"], tokens["dicom1"], atol=0.1)

"""What readers say of images that are read all the same reaches the user, once for each text."""

from dataclasses import replace
from pathlib import Path

import numpy as np

import embedcache
from embedcache import DatasetOptions, ExtractConfig
from embedcache.extraction.remarks import MOST_LINES, Remarks
from embedcache.testing.files import write_png, write_series
from embedcache.types import Samples, strings


def test_missing_slices_and_dark_images_are_told_with_their_count(config: ExtractConfig, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    root = tmp_path / "mixed"
    root.mkdir()
    for name in ("a", "b"):
        folder = write_series(root / name, random.integers(0, 99, (6, 20, 20)).astype(np.int16), series=name, seed=1)
        files = sorted(folder.iterdir(), key=lambda path: path.name)
        files[2].unlink()
    write_png(root / "dark.png", random.integers(0, 4096, (30, 30)).astype(np.uint16))
    write_png(root / "plain.png", random.integers(0, 255, (30, 30)).astype(np.uint8))
    (root / "cases.csv").write_text("path,case,patient\na,a,p1\nb,b,p2\ndark.png,d,p3\nplain.png,e,p4\n")
    heard: list[str] = []
    backbones = (*config.backbones, "pixels:8")  # both read an image, which is told of once
    asked = replace(
        config, root=str(root / "cases.csv"), options=DatasetOptions(id_column="case"), backbones=backbones, size=None
    )
    report = embedcache.extract(asked, embedcache.Listener(tell=heard.append))
    assert report.exit_code == 0
    (missing,) = [line for line in heard if "missing" in line]
    assert missing.startswith("2 samples: 1 slice is missing")
    assert missing.endswith(" (rows 1, 2 of cases.csv)")
    (dark,) = [line for line in heard if "16-bit" in line]
    assert dark.startswith("1 sample: ")
    assert dark.endswith(" (row 3 of cases.csv)")
    assert set(heard) <= set(report.notices)
    assert not [line for line in heard if "p1" in line or str(root) in line]


def test_many_texts_end_in_a_count_and_many_rows_too() -> None:
    ids = strings([str(i) for i in range(9)])
    samples = Samples(ids, ids, ids, ids, np.arange(9) + 1, "cases.csv")
    remarks = Remarks({f"gap of {i} mm": {"8"} for i in range(MOST_LINES + 3)} | {"tilt": {"5", "1", "2", "3", "0"}})
    lines = remarks.lines(samples)
    assert lines[0] == "5 samples: tilt (rows 1, 2, 3 and 2 more of cases.csv)"
    assert lines[1] == "1 sample: gap of 0 mm (row 9 of cases.csv)"
    assert lines[-1] == "4 more remarks of that kind"
    assert len(lines) == MOST_LINES + 1
    assert Remarks({"tilt": {"not asked for"}}).lines(samples) == ["1 sample: tilt"]

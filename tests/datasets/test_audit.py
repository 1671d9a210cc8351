"""What `datasets check` finds before a long extraction does: of every file, and of those that it opens."""

import numpy as np

from embedcache.datasets import audit
from embedcache.datasets.audit import audit_dataset
from embedcache.testing.files import write_dicom, write_png, write_series


def test_what_readers_say_of_images_is_told_before_a_long_extraction(tmp_path):
    random = np.random.default_rng(0)
    lines = ["path,patient"]
    for name in "abc":
        pixels = random.integers(0, 99, (6, 20, 20)).astype(np.int16)
        folder = write_series(tmp_path / f"SECRET{name}", pixels, series=name, seed=1)
        if name != "c":
            sorted(folder.iterdir(), key=lambda path: path.name)[2].unlink()
        lines.append(f"SECRET{name},{name}")
    table = tmp_path / "cases.csv"
    table.write_text("\n".join(lines) + "\n")
    found = audit_dataset("table", str(table))
    assert found.problems == ()
    (gap,) = [notice for notice in found.notices if "missing" in notice]
    assert gap.startswith("2 of the 3 images that were read whole: 1 slice is missing")
    assert gap.endswith("(rows 1, 2 of cases.csv)")
    assert "SECRET" not in " ".join(found.notices)


def pictures(folder, n):
    (folder / "ill").mkdir()
    random = np.random.default_rng(0)
    return [write_png(folder / "ill" / f"{i:03}.png", random.integers(0, 99, (16, 16), np.uint8)) for i in range(n)]


def test_files_that_are_missing_or_empty_are_found_wherever_they_stand(tmp_path):
    files = pictures(tmp_path, 240)
    table = tmp_path / "cases.csv"
    table.write_text("path,patient\n" + "".join(f"ill/{path.name},{path.stem}\n" for path in files))
    files[51].write_bytes(b"")
    files[161].unlink()
    found = audit_dataset("table", str(table))
    assert found.problems == (
        "row 52 of cases.csv can not be read: the file is empty (0 bytes).",
        "row 162 of cases.csv can not be read: there is no such file.",
    )
    assert (found.samples, found.opened, found.read) == (240, audit.FILES, audit.FILES)


def test_an_image_that_is_cut_short_is_found(tmp_path):
    files = pictures(tmp_path, 60)
    files[33].write_bytes(files[33].read_bytes()[:-60])
    series = write_dicom(tmp_path / "ill" / "x.dcm", np.ones((32, 32), np.uint16))
    series.write_bytes(series.read_bytes()[:-300])
    found = audit_dataset("folder", str(tmp_path))
    assert len(found.problems) == 2
    assert all("can not be read" in problem for problem in found.problems)
    assert (found.opened, found.read) == (61, 61)


def test_of_large_images_as_many_are_read_whole_as_the_bytes_allow(tmp_path, monkeypatch):
    files = pictures(tmp_path, 30)
    # every third is within the bytes, every second is not
    monkeypatch.setattr(audit, "WHOLE_BYTES", sum(path.stat().st_size for path in files[::3]))
    files[3].write_bytes(files[3].read_bytes()[:-60])
    files[4].write_bytes(files[4].read_bytes()[:-60])
    found = audit_dataset("folder", str(tmp_path))
    assert (found.opened, found.read, len(found.problems)) == (30, 10, 1)
    monkeypatch.setattr(audit, "WHOLE_BYTES", 1)
    assert audit_dataset("folder", str(tmp_path)).read == 1

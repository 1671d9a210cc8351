"""What identifies a patient is planted wherever a source can hold it, and then looked for in every byte that comes out.

Every object of the cache and its name, every array and table decoded, every line on stdout, stderr and in the log, as text in
three encodings and as its plain hashes. Only what a user asks for by name (`ids show`, `labels show`, `--ids keep`) may say it.
"""

import hashlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from embedcache_cli.main import main
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom import Dataset, dcmread
from scipy.io import savemat

from embedcache.testing.files import write_dicom, write_series
from tests.images.dicom_makers import write_enhanced

PATH, FILE = "Sonnenwald-Station7", "hedwig1931"
"""A folder above all sources, and how each of their names begins."""
NAME, BORN, PLACE = "Zwölfender^Hedwig", "19310417", "Klinikum Sankt Planta"
STUDY_TEXT = "Thorax nach Sturz vom Apfelbaum"
GOOD = 20


@dataclass(frozen=True)
class Planted:
    """The sources, and what must not come out of them."""

    folder: Path
    secrets: frozenset[str]

    @property
    def table(self) -> Path:
        """Of good and bad files, with columns that identify."""
        return self.folder / "cases.csv"


def headers(dataset: Dataset, i: int) -> dict[str, str]:
    """Plant into a DICOM header; what was planted."""
    found = {
        "PatientID": f"QX{i:04}-PATID",
        "AccessionNumber": f"ACC8841{i:04}",
        "StudyInstanceUID": f"2.25.88001122334455{i:04}1",
        "SeriesInstanceUID": f"2.25.88001122334455{i:04}2",
        "SOPInstanceUID": str(dataset.SOPInstanceUID),
        "PatientBirthDate": BORN,
        "InstitutionName": PLACE,
        "StudyDescription": STUDY_TEXT,
        "SeriesDescription": f"{STUDY_TEXT} seitlich",
        "OtherPatientIDs": f"OTHERID{i:04}",
        "ReferringPhysicianName": "Doktorin^Planta",
    }
    dataset.SpecificCharacterSet = "ISO_IR 100"
    for keyword, value in found.items():
        setattr(dataset, keyword, value)
    dataset.PatientName = f"{NAME}{i:04}"
    dataset.ImageComments = f"{NAME} {BORN}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return {**found, "name": NAME, "whole name": f"{NAME}{i:04}"}


def plant(path: Path, i: int, secrets: set[str]) -> None:
    """Plant into the header of a file, or of all files of a folder."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        dataset = dcmread(file)
        secrets |= set(headers(dataset, i).values())
        dataset.save_as(file)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """Radiographs, a series, an Enhanced file, a picture with a comment, arrays named after a patient, and spoilt files."""
    folder = tmp_path_factory.mktemp("sources") / PATH
    folder.mkdir()
    rng = np.random.default_rng(0)
    secrets = {PATH, FILE, NAME, "Zwölfender", "ZWÖLFENDER", "Hedwig", BORN, "1931-04-17", PLACE, STUDY_TEXT, "OTHERID"}
    secrets |= {"QX00", "ACC8841", "2.25.88001122334455", "Doktorin"}
    names = []
    for i in range(GOOD):
        pixels = rng.integers(0, 2000, (30, 26)) + 2000 * (i % 2)
        names.append(f"{FILE}-{i:02}.dcm")
        write_dicom(folder / names[-1], pixels.astype(np.uint16), instance=i)
        plant(folder / names[-1], i, secrets)
    names.append(f"{FILE}-series")
    write_series(folder / names[-1], rng.integers(0, 900, (3, 16, 16)).astype(np.uint16))
    plant(folder / names[-1], 30, secrets)
    names.append(f"{FILE}-enhanced.dcm")
    write_enhanced(folder / names[-1], rng.integers(0, 900, (1, 4, 16, 16)).astype(np.uint16))
    plant(folder / names[-1], 31, secrets)
    names.append(f"{FILE}.png")
    comment = PngInfo()
    comment.add_text("Comment", f"{NAME} {BORN}")
    Image.fromarray(rng.integers(0, 255, (20, 20)).astype(np.uint8)).save(folder / names[-1], pnginfo=comment)
    names += list(spoilt(folder, rng, secrets))
    secrets |= set(names)
    write_table(folder, names)
    contents = [hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()]
    return Planted(folder, frozenset(secrets | set(contents)))


def spoilt(folder: Path, rng: np.random.Generator, secrets: set[str]) -> Iterator[str]:
    """Files that are set aside, each for another reason."""
    whole = write_dicom(folder / "whole.dcm", rng.integers(0, 2000, (30, 26)).astype(np.uint16))
    plant(whole, 40, secrets)
    data = whole.read_bytes()
    whole.unlink()
    name_at, pixels_at = data.index(NAME.encode("latin-1")), data.index(b"\xe0\x7f\x10\x00")
    damaged = bytearray(data)
    damaged[name_at - 8 : name_at - 4] = b"\x10\x00\x10\x00"[::-1]  # a tag that is none, before the patient's name
    rows_at = data.index(b"\x28\x00\x10\x00US")
    for name, content in {
        "cut-in-the-name.dcm": data[: name_at + 5],
        "cut-in-the-pixels.dcm": data[: pixels_at + 100],
        "damaged-in-the-header.dcm": bytes(damaged),
        "no-rows.dcm": data[:rows_at] + data[rows_at + 10 :],
        "text.dcm": f"{NAME} {BORN} {PLACE}".encode(),
        "cut.png": b"\x89PNG\r\n\x1a\n" + NAME.encode(),
        "broken.nii.gz": b"\x1f\x8b" + NAME.encode(),
    }.items():
        (folder / f"{FILE}-{name}").write_bytes(content)
        yield f"{FILE}-{name}"
    pictures = {f"{FILE}_left": rng.random((9, 9)), f"{FILE}_right": rng.random((9, 9))}
    savemat(folder / f"{FILE}-two.mat", pictures)
    yield f"{FILE}-two.mat"
    np.savez(folder / f"{FILE}-two.npz", **pictures)  # type: ignore[arg-type]  # its stub takes any key for allow_pickle
    yield f"{FILE}-two.npz"
    yield f"{FILE}-two.npz#{FILE}_left:7"
    yield f"{FILE}-two.npz#{FILE}_middle"
    yield f"{FILE}-absent.dcm"
    (folder / f"{FILE}-strays").mkdir()
    (folder / f"{FILE}-strays" / f"{FILE}.dcm").write_bytes(data[: name_at + 5])
    (folder / f"{FILE}-strays" / f"{FILE}-1.dcm").write_bytes(data)
    yield f"{FILE}-strays"


def write_table(folder: Path, names: list[str]) -> None:
    """Every column that identifies is there, beside one label."""
    lines = [
        "path,patient,split,finding,PatientName,PatientBirthDate,InstitutionName,AccessionNumber,StudyDescription,MRN"
    ]
    for i, name in enumerate(names):
        part, label = ("test" if i % 4 == 3 else "train"), ("mass", "none")[i // 4 % 2]
        lines.append(
            f"{name},QX{i:04}-PATID,{part},{label},{NAME}{i:04},{BORN},{PLACE},ACC8841{i:04},{STUDY_TEXT} {i},9{i:08}"
        )
    (folder / "cases.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


# --- what came out --------------------------------------------------------------------------------


def needles(secret: str) -> set[bytes]:
    """How a text may lie in bytes: encoded, or hashed without a key."""
    encodings = {secret.encode("utf-8"), secret.encode("utf-16-le"), secret.encode("latin-1", "replace")}
    # JSON writes what is not ASCII as \\u
    encodings.add(json.dumps(secret)[1:-1].encode())
    hashes = {hashlib.new(kind, e).hexdigest() for kind in ("sha256", "md5", "sha1") for e in encodings}
    return encodings | {h.encode() for h in hashes} | {bytes.fromhex(h) for h in hashes}


def found_in(outputs: dict[str, bytes], secrets: frozenset[str]) -> set[tuple[str, str]]:
    """(output, secret) for all that is there."""
    wanted = {needle: secret for secret in secrets for needle in needles(secret)}
    heads: dict[int, list[bytes]] = {}
    for needle in wanted:
        if len(needle) >= 8:
            heads.setdefault(int.from_bytes(needle[:8], "little"), []).append(needle)
    short = [needle for needle in wanted if len(needle) < 8]
    known = np.array(sorted(heads), dtype="<u8")
    found = set()
    for name, data in outputs.items():
        # of 10^4 needles most are ruled out by their first eight bytes, looked for at every place at once
        places = [np.frombuffer(data, "<u8", (len(data) - k) // 8, k) for k in range(8) if len(data) >= k + 8]
        seen = {int(head) for words in places for head in words[np.isin(words, known)].tolist()}
        candidates = [*short, *(needle for head in seen for needle in heads[head])]
        found |= {(name, wanted[needle]) for needle in candidates if needle in data}
    return found


def written(folder: Path) -> dict[str, bytes]:
    """Every object below a folder, as it lies on disk and decoded, and the names of all of them."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    found = {f"bytes of {p.relative_to(folder)}": p.read_bytes() for p in files}
    found["names"] = "\n".join(str(p.relative_to(folder)) for p in folder.rglob("*")).encode()
    for path in files:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            for column in table.column_names:
                found[f"{path.name}:{column}"] = "\n".join(map(str, table[column].to_pylist())).encode()
            found[f"{path.name}:metadata"] = repr(table.schema.metadata).encode()
    for store in folder.glob("*/*/*.zarr"):
        root = zarr.open_group(store, mode="r", use_consolidated=False)
        found[f"{store.name}:attributes"] = json.dumps(dict(root.attrs), ensure_ascii=False).encode()
        for name, array in root.arrays():
            found[f"{store.name}:{name}"] = decoded(array)
        for group_name, group in root.groups():
            for name, array in group.arrays():
                found[f"{store.name}:{group_name}/{name}"] = decoded(array)
    return found


def decoded(array: zarr.Array) -> bytes:
    """The values of an array: texts as they read, numbers as bytes."""
    values = np.asarray(array[:])
    return values.tobytes() if values.dtype.kind in "biufc" else "\n".join(map(str, values.ravel().tolist())).encode()


Run = Callable[..., int]


@dataclass
class Heard:
    """Runs commands as the console script does, and keeps all that they say."""

    capture: pytest.CaptureFixture[str]
    log: pytest.LogCaptureFixture
    patch: pytest.MonkeyPatch
    said: dict[str, bytes]

    def run(self, *arguments: object, keep: bool = True) -> int:
        """The exit code; what was said goes to `said` unless it was asked for."""
        self.patch.setattr(sys, "argv", ["embedcache", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self.capture.readouterr()
        if keep:
            typed = " ".join(map(str, arguments[:2]))
            self.said[f"{len(self.said)} {typed}"] = f"{out}\n{err}\n{self.log.text}".encode()
        self.log.clear()
        assert isinstance(ended.value.code, int)
        return ended.value.code


@pytest.fixture
def heard(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Heard:
    """At the level at which libraries say most."""
    caplog.set_level(logging.DEBUG)
    return Heard(capfd, caplog, monkeypatch, {})


def everything(heard: Heard, source: tuple[object, ...], cache: Path, tiny: Path, task: str | None) -> None:
    """Every command that reads a source or a cache, for people and as JSON."""
    asked = (*source, "--cache", cache, "--size", 28, "--device", "cpu", "--workers", 1, "--batch-size", 4)
    both: tuple[tuple[str, ...], ...] = ((), ("--json",))
    for json_ in both:
        assert heard.run("plan", *asked, "--backbone", tiny, *json_) == 0
    assert heard.run("extract", *asked, "--backbone", tiny) in (0, 1)
    assert heard.run("extract", *asked, "--backbone", "pixels:28", "--tokens", "cls", "--json") in (0, 1)
    assert heard.run("extract", *asked, "--backbone", tiny, "--retry-quarantined") in (0, 1)
    if task:  # once: two more processes with torch, and seconds of trials of the file system
        assert heard.run("doctor", "--cache", cache) == 0
        assert heard.run("extract", *asked, "--backbone", tiny, "--layers", "1", "--devices", "cpu:2") in (0, 1)
    stores = sorted(cache.glob("*/*/*.zarr"))
    assert len(stores) == 2
    store = stores[0]
    split = cache / "split.csv"
    for json_ in both:
        assert heard.run("ls", cache, *json_) == 0
        for path in stores:
            assert heard.run("show", path, *json_) == 0
            assert heard.run("show", path, "--quarantine", *json_) == 0
            assert heard.run("verify", path, *json_) == 0
        assert heard.run("splits", "make", store, "-o", split, "--redraw", *json_) == 0
        assert heard.run("splits", "import", split, store, "--name", "mine", *json_) == 0
        assert heard.run("splits", "export", store, "-o", cache / "exported.csv", *json_) in (0, 2)
        assert heard.run("leaks", cache, *json_) in (0, 1)
        assert heard.run("leaks", store, "--split", split, *json_) in (0, 1)
        assert heard.run("labels", "sync", *source, "--cache", cache, *json_) == 0
        assert heard.run("datasets", "check", source[1], source[3], *json_) in (0, 1)
        assert heard.run("gc", cache, "--dry-run", *json_) == 0
        if task:
            assert heard.run("probe", "knn", store, "--task", task, "--split", split, *json_) == 0
            assert heard.run("probe", "logistic", store, "--task", task, "--split", split, *json_) == 0


def test_nothing_of_a_table_and_its_files_comes_out(planted: Planted, heard: Heard, tmp_path: Path, tiny: Path) -> None:
    source = ("--dataset", "table", "--root", planted.table)
    everything(heard, source, tmp_path / "cache", tiny, "finding")
    outputs = written(tmp_path / "cache")
    assert any("quarantine" in text.decode() or "set aside" in text.decode() for text in heard.said.values())
    assert found_in(outputs, planted.secrets) == set()
    assert found_in(heard.said, planted.secrets) == set()


def test_nothing_of_a_tree_of_dicom_files_comes_out(planted: Planted, heard: Heard, tmp_path: Path, tiny: Path) -> None:
    root = tmp_path / PATH / "archive"
    root.mkdir(parents=True)
    for path in planted.folder.iterdir():
        (root / path.name).symlink_to(path)
    everything(heard, ("--dataset", "dicom-tree", "--root", root), tmp_path / "cache", tiny, None)
    assert found_in(written(tmp_path / "cache"), planted.secrets) == set()
    assert found_in(heard.said, planted.secrets) == set()


def test_nothing_of_a_folder_of_classes_comes_out(planted: Planted, heard: Heard, tmp_path: Path, tiny: Path) -> None:
    root = tmp_path / PATH / "scans"
    for i, path in enumerate(sorted(planted.folder.glob("*.*"))):
        if path.is_file() and path.suffix in (".dcm", ".png"):
            place = root / ("train", "test")[i // 2 % 2] / ("mass", "none")[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            (place / path.name).symlink_to(path)
    everything(heard, ("--dataset", "folder", "--root", root), tmp_path / "cache", tiny, None)
    assert found_in(written(tmp_path / "cache"), planted.secrets) == set()
    assert found_in(heard.said, planted.secrets) == set()


def test_what_is_looked_for_would_be_found(planted: Planted, heard: Heard, tmp_path: Path, tiny: Path) -> None:
    """With `--ids keep` the ids are in the store, raw and decoded, and in the label table; `ids show` says the paths."""
    cache = tmp_path / "kept"
    asked = ("--dataset", "table", "--root", planted.table, "--cache", cache, "--size", 28, "--device", "cpu")
    extract = ("extract", *asked, "--workers", 1, "--backbone", tiny)
    assert heard.run(*extract, "--ids", "keep") == 1
    found = found_in(written(cache), planted.secrets)
    (store,) = cache.glob("*/*/*.zarr")
    assert (f"{store.name}:patient_id", "QX0003-PATID") in found
    assert (f"{store.name}:sample_id", FILE) in found
    assert ("labels.parquet:sample", FILE) in found
    assert {name for name, _ in found if name.startswith("bytes of cases/tiny")}

    hidden = tmp_path / "hidden"
    assert heard.run(*[hidden if word == cache else word for word in extract]) == 1
    (store,) = hidden.glob("*/*/*.zarr")
    sample = str(zarr.open_group(store, mode="r")["sample_id"][0])
    heard.said.clear()
    assert heard.run("ids", "show", hidden / "cases", sample) == 0
    assert found_in(heard.said, planted.secrets)

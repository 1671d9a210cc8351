import importlib.util
import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("EMBEDCACHE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is not there (EMBEDCACHE_SHARED_DATA)")
    return SHARED


@pytest.fixture(scope="session")
def nilearn_data() -> Path:
    return _package("nilearn") / "datasets" / "data"


@pytest.fixture(scope="session")
def nibabel_data() -> Path:
    return _package("nibabel") / "tests" / "data"


@pytest.fixture(scope="session")
def pydicom_file():
    """Name → path of a file that pydicom or pydicom-data ships; nothing is downloaded."""
    folders = [_package("pydicom") / "data" / "test_files", _package("data_store") / "data"]

    def find(name: str) -> str:
        for folder in folders:
            if (folder / name).is_file():
                return str(folder / name)
        pytest.skip(f"pydicom's test file {name} is not installed")

    return find


@pytest.fixture(scope="session")
def dicom_files() -> list[Path]:
    """All files of pydicom and pydicom-data."""
    folders = [_package("pydicom") / "data" / "test_files", _package("data_store") / "data"]
    return sorted(path for folder in folders for path in folder.glob("*.dcm"))


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {name} is not installed")
    return Path(spec.submodule_search_locations[0])

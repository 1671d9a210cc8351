"""CONTRIBUTING.md names files that are there, and a main path that can be read in one sitting."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
MAIN_PATH = re.findall(r"`([\w/]+\.(?:py|md))`", TEXT.split("## The main path")[1].split("##")[0])
LONGEST = 400


def test_the_main_path_leads_from_the_readme_over_types_store_extraction_and_a_probe_to_a_result() -> None:
    rooms = [str(Path(name).parent) for name in MAIN_PATH]
    stations = [".", *(f"embedcache/{room}" for room in ("types", "store", "extraction", "evaluation", "probes"))]
    assert list(dict.fromkeys(rooms)) == stations
    assert (MAIN_PATH[0], MAIN_PATH[-1]) == ("README.md", "embedcache/evaluation/results.py")


@pytest.mark.parametrize("name", MAIN_PATH)
def test_a_file_of_the_main_path_is_there_and_can_be_read_at_once(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= LONGEST


def test_no_file_of_the_package_is_longer() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for room in ("embedcache", "cli")
        for path in (ROOT / room).rglob("*.py")
    }
    assert len(lengths) > 300
    assert {name: n for name, n in lengths.items() if n > LONGEST} == {}

"""CONTRIBUTING.md names files that are there, and a main path that can be read in one sitting."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
MAIN_PATH = re.findall(r"`([\w/]+\.(?:py|md))`", TEXT.split("## The main path")[1].split("##")[0])
LONGEST = 400
BASE = {"errors", "coded", "fields", "half"}
"""What any room may import without the table saying so."""
HOUSE = TEXT.split("\nembedcache/\n")[1].split("cli/embedcache_cli/")[0]


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


def imported_rooms(room: str) -> set[str]:
    """Rooms that the files of `room` import when they run."""
    found = set()
    for file in (ROOT / "embedcache" / room).rglob("*.py"):
        tree = ast.parse(file.read_text())
        typing = [
            node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ]
        unread = {id(inner) for node in typing for inner in ast.walk(node)}
        names = [
            node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module and id(node) not in unread
        ]
        found |= {name.split(".")[1] for name in names if name.startswith("embedcache.")}
    return found - {room} - BASE


def test_the_house_names_what_each_room_imports() -> None:
    told = {}
    for room in re.split(r"\n(?=  \w)", HOUSE):
        if name := re.match(r" *(\w+)/", room):
            told[name[1]] = set(re.findall(r"\w+", re.split(r" {2,}", room.rstrip())[-1]))
    assert told.keys() >= {"types", "images", "store", "datasets", "backbones", "probes", "extraction", "evaluation"}
    rooms = {path.name for path in (ROOT / "embedcache").iterdir() if path.is_dir()} | {"registry"}
    for name, said in told.items():
        if said not in ({"everything"}, {"to", "come"}):
            assert said & rooms == imported_rooms(name), name

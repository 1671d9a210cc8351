"""What the pages say of arrays, figures, messages and public names is held against the program."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import zarr

import embedcache
from embedcache.evaluation import calibration, segmentation, statistics
from embedcache.evaluation.metrics import HIGHER_IS_BETTER
from embedcache.evaluation.patch_probe import MEAN_MASK, POSITION
from embedcache.store.labels import read_labels
from tests.docs.conftest import Session
from tests.docs.pages import ROOT, inline_code

DOCS = ROOT / "docs"


def texts(package: Path) -> Iterator[str]:
    """Every constant text in the sources but docstrings, implicit joins done; of an f-string the parts between its values."""
    for file in package.rglob("*.py"):
        tree = ast.parse(file.read_text())
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield " ".join(node.value.split())


def messages() -> list[str]:
    """What the page on troubleshooting quotes: the first cell of each row."""
    rows = re.findall(r"^\| `([^`]+)`[^|]*\| ", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    return [row for row in rows if row != "you see"]


SAID = "\n".join({*texts(ROOT / "embedcache"), *texts(ROOT / "cli" / "embedcache_cli")})


def test_messages_are_quoted_as_they_are() -> None:
    quoted = messages()
    assert len(quoted) > 30
    for message in quoted:
        for part in filter(None, (part.strip(" ;:,()") for part in message.split("…"))):
            assert part in SAID, f"no message says {part!r} (of {message!r})"
    assert "one patient is in three splits" not in SAID


def test_every_figure_and_way_to_an_interval_is_explained() -> None:
    named = set(inline_code(DOCS / "figures.md"))
    ways = {
        statistics.LOGIT,
        statistics.BCA,
        statistics.FISHER,
        statistics.WILSON,
        statistics.EXACT,
        calibration.INVERTED,
    }
    assert {*HIGHER_IS_BETTER, *segmentation.FIGURES, MEAN_MASK, POSITION, *ways} <= named


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")  # string index arrays, see FORMAT.md
def test_the_page_of_the_store_names_all_that_a_store_holds(session: Session) -> None:
    extract = "embedcache extract --dataset table --root cases.csv --backbone facebook/dinov2-small --tokens"
    for tokens in ("cls,mean,patch", "cls,mean,patch --dtype int8"):
        assert session.shell(f"{extract} {tokens} --cache {tokens[-4:]}")[0] == 0
    named = set(inline_code(DOCS / "store.md"))
    found, attributes = set(), set()
    for store in session.folder.glob("*/cases/*/*.zarr"):
        root = zarr.open_group(store, mode="r")
        arrays = [path for path, member in root.members(max_depth=None) if isinstance(member, zarr.Array)]
        found |= {re.sub(r"_p[0-9a-f]{8}$", "_<pass>", path.rpartition("/")[2]) for path in arrays}
        attributes |= set(root.attrs["embedcache"])
    assert {"patch_tokens", "patch_scale", "manifest", "commits_<pass>"} <= found
    assert found <= named
    assert attributes <= named
    columns = read_labels(next(session.folder.glob("*/cases/labels.parquet")))
    assert {"task", "sample", "value", "split", "patient"} <= named
    assert columns.get("effusion").kind == "binary"


def test_every_public_name_is_on_the_page_of_python() -> None:
    shown = re.findall(r"^::: embedcache\.(\w+)$", (DOCS / "python.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(set(embedcache.__all__) - {"__version__"})

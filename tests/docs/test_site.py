"""The site is built as `make docs` builds it, and asks nothing of a network when it is read."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from embedcache_cli.main import app

from tests.docs.pages import ROOT
from tests.docs.test_pages import options_by_command


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages, built with every warning an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {page.stem for page in site.glob("*.html")}
    assert {*(page.stem for page in (ROOT / "docs").glob("*.md")), "commands"} <= pages
    assert not list(site.rglob("*.py"))
    for page in site.glob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*src=\"?([^\" >]+)", page.read_text())
        loaded += re.findall(r"<link[^>]*href=\"?([^\" >]+)", page.read_text())
        assert loaded
        assert [url for url in loaded if re.match(r"(https?:)?//", url)] == []


def test_the_page_of_commands_has_every_command_and_option(site: Path) -> None:
    text = (site / "commands.html").read_text()
    for path, options in options_by_command(typer.main.get_command(app)).items():
        assert f"{' '.join(path)}<a" in text
        for option in options - {"--help"}:
            assert re.search(rf"<code>{option}[ <]", text), f"{path}: {option}"

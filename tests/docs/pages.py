"""The README and the pages below `docs/`, taken apart into what a reader would run."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
COMMANDS = ("bash", "console")
SHOWN = ("text", "csv", "json")
"""Languages of blocks that are there to be read, and hold no command."""
_FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]*?) -->\n)?^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    line: int
    language: str
    text: str
    title: str
    """The file that it is, "" for none: then the reader writes it, and does not run it."""
    reason: str
    """Why a test can not run it, "" where it is run."""

    @property
    def where(self) -> str:
        """`docs/gpu.md:12`."""
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Lines of a shell, each whole: without prompts, remarks and what a console answers."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        found = [re.sub(r"\s+#\s.*", "", line).strip() for line in lines]
        return [line for line in found if line and not line.startswith("#")]


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        language, _, rest = match["info"].partition(" ")
        title = _TITLE.search(rest)
        found.append(
            Block(
                str(page.relative_to(ROOT)),
                text[: match.start("info")].count("\n") + 1,
                language,
                match["text"],
                title[1] if title else "",
                match["reason"] or "",
            )
        )
    return found


def inline_code(page: Path) -> list[str]:
    """What stands within the text as code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]

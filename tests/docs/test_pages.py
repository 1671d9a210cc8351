"""Every command and every block of Python in the README and the pages runs; what can not is parsed, and says why."""

import re
from pathlib import Path

import pytest
import typer

from tests.docs.conftest import Session
from tests.docs.pages import COMMANDS, PAGES, SHOWN, Block, blocks_of, inline_code
from tests.docs.parsing import EXTRAS, fault_of, fault_of_arguments

BLOCKS = {str(page.name): blocks_of(page) for page in PAGES}
RUNNABLE = [name for name, blocks in BLOCKS.items() if any(b.language in (*COMMANDS, "python") for b in blocks)]
LONG = {"index.md", "gpu.md", "extending.md", "offline.md", "extracting.md"}
"""Their blocks take 20 seconds each, and more: they run in the slow suite."""


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")  # string index arrays, see FORMAT.md
@pytest.mark.parametrize(
    "page", [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in RUNNABLE]
)
def test_every_block_of_a_page_runs(page: str, session: Session) -> None:
    for block in BLOCKS[page]:
        if not block.reason:
            session.run(block)


@pytest.mark.parametrize("page", BLOCKS)
def test_no_block_is_passed_over(page: str) -> None:
    for block in BLOCKS[page]:
        if not block.title:
            assert block.language in (*COMMANDS, *SHOWN, "python"), f"{block.where}: a block of {block.language!r}"
        if block.language in SHOWN:
            assert not re.search(r"^\$? ?(embedcache|pip|make) ", block.text, re.MULTILINE), f"{block.where}: a command"
    text = next(path for path in PAGES if path.name == page).read_text()
    assert text.count("\n```") + text.startswith("```") == 2 * len(BLOCKS[page])
    assert text.count("<!-- not run:") == sum(bool(block.reason) for block in BLOCKS[page])


def test_what_is_not_run_is_parsed() -> None:
    unrun = [block for blocks in BLOCKS.values() for block in blocks if block.reason]
    assert len(unrun) >= 5
    for block in unrun:
        assert len(block.reason) > 10
        if block.language == "python":
            compile(block.text, block.where, "exec")
            continue
        for line in block.commands:
            assert not (fault := fault_of(line)), f"{block.where}: `{line}`: {fault}"


def options_by_command(group: object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], set[str]]:
    """Every command below a group → its options."""
    found = {}
    for name, command in getattr(group, "commands", {}).items():
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        found[(*path, name)] = {option for option in (*options, "--help") if option.startswith("-")}
        found |= options_by_command(command, (*path, name))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_options_and_extras_within_the_text_exist(page: Path) -> None:
    from embedcache_cli.main import app

    known = options_by_command(typer.main.get_command(app))
    everything = set().union(*known.values())
    for code in inline_code(page):
        words = code.split()
        if words[0] == "pip":
            assert {e for named in re.findall(r"embedcache\[([\w,]+)\]", code) for e in named.split(",")} <= EXTRAS, (
                code
            )
            continue
        options = {word.split("=")[0] for word in words if re.fullmatch(r"-{1,2}[A-Za-z][a-z-]*(=.*)?", word)}
        if words[0] == "embedcache" and len(words) > 1:
            path = max((p for p in known if tuple(words[1 : 1 + len(p)]) == p), key=len, default=None)
            assert path is not None, f"no command: {code}"
            assert options <= known[path], f"no option of {path}: {code}"
        elif words[0].startswith("-") or words[0] in {path[0] for path in known}:
            assert options <= everything, f"no option of any command: {code}"


# --- what these tests would see ----------------------------------------------------------------------


def block(text: str, language: str = "bash") -> Block:
    return Block("page.md", 1, language, text, "", "")


def test_a_wrong_option_or_command_of_a_page_is_seen(session: Session) -> None:
    session.run(block("embedcache backbones   # a remark\n"))
    for wrong in ("embedcache plan --dataset table --roof cases.csv", "embedcache plam", "false", "nowhere | cat"):
        with pytest.raises(AssertionError, match=r"page\.md:1: "):
            session.run(block(wrong + "\n"))


def test_a_wrong_option_of_what_is_not_run_is_seen() -> None:
    taken = "embedcache extract --dataset table --root cases.csv --backbone facebook/dinov2-base"
    assert fault_of(f"HF_HUB_OFFLINE=1 {taken} --devices all") == ""
    assert "--devises" in fault_of(f"{taken} --devises all")
    assert "unknown command 'extrakt'" in fault_of("embedcache extrakt")
    assert "'spread'" in fault_of("embedcache splits spread x.zarr")
    assert fault_of_arguments(["probe", "logistic", "x.zarr", "--seed", "five"])
    assert fault_of_arguments(["weights", "pull", "facebook/dinov2-base"])  # it needs --to
    assert fault_of("pip install 'embedcache[gpu,dicoms]'") == "no extra: dicoms"
    assert fault_of("make demmo")
    assert fault_of("rsync 'a")


def test_commands_of_a_console_are_what_stands_behind_a_prompt() -> None:
    shown = block("$ embedcache ls cache \\\n  --json\nanswer\n", "console")
    assert shown.commands == ["embedcache ls cache    --json"]

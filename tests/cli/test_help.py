"""Help: what an option lists is what it takes, what the list says of a command is what the command says, and it is quick."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import embedcache_cli
import pytest
import typer
from embedcache_cli.commands import COMMANDS, Loaded
from embedcache_cli.main import app

from embedcache.extraction.config import TOKEN_WORDS
from embedcache.store.pooling import POOLS


def commands(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        yield from commands(command) if hasattr(command, "commands") else [command]


def helps(name: str) -> list[str]:
    """The help of an option, in each command that has it; `embed` stores nothing, and its --tokens names one vector."""
    found = [command for command in commands(typer.main.get_command(app)) if command.name != "embed"]
    return [option.help for command in found for option in command.params if f"--{name}" in option.opts]


@pytest.mark.parametrize(
    ("name", "words"), [("tokens", set(TOKEN_WORDS)), ("pool", {*POOLS} - {"bags"} | {"none"})], ids=["tokens", "pool"]
)
def test_the_help_of_an_option_lists_every_word_that_it_takes(name: str, words: set[str]) -> None:
    assert helps(name)
    for told in helps(name):
        listed = told.replace(",", " ").replace(";", " ").replace(":", " ").replace(".", " ").split()
        assert words <= set(listed), told


def test_what_the_list_says_of_a_command_is_what_the_command_says_of_itself() -> None:
    group: Any = typer.main.get_command(app)
    with typer.Context(group) as context:
        listed = {name: group.get_command(context, name).help for name in group.list_commands(context)}
    assert listed == {name: " ".join(c.help.split("\n\n")[0].split()) for name, c in group.commands.items()}


def test_every_command_is_listed() -> None:
    folder = Path(embedcache_cli.__file__).parent
    texts = {path.stem: path.read_text() for path in folder.glob("*.py")}
    runs = {
        stem
        for stem, text in texts.items()
        if re.search(r"^(def command|app = |from embedcache_cli.probe import app)", text, re.M)
    }
    of_the_group = {"probe", "probe_all", "probe_linear", "probe_patch"}
    assert {listed.module for listed in COMMANDS.values()} == runs - of_the_group - {"main"}


@pytest.mark.parametrize(
    ("arguments", "commands"),
    [(["--help"], set()), (["--version"], set()), (["ls", "--help"], {"ls"}), (["plam"], set())],
    ids=lambda given: " ".join(given),
)
def test_no_command_is_imported_that_is_not_asked_for(arguments: list[str], commands: set[str]) -> None:
    code = (
        "import sys; from embedcache_cli.main import main\n"
        "try: main()\n"
        "finally: print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    imported = set(done.stderr.splitlines()[-1].split())
    assert "embedcache_cli.commands" in imported
    modules = {listed.module for listed in COMMANDS.values()}
    assert {name for name in modules if f"embedcache_cli.{name}" in imported} == commands
    assert not {"numpy", "torch", "zarr", "sklearn", "transformers"} & imported


def test_a_command_is_made_once_and_only_when_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    make = Loaded.__getitem__
    monkeypatch.setattr(Loaded, "__getitem__", lambda self, name: made.append(name) or make(self, name))
    group: Any = typer.main.get_command(app)
    with typer.Context(group) as context:
        assert "ls" in group.commands
        assert group.get_command(context, "ls").name == "ls"
        assert made == []
        assert group.resolve_command(context, ["ls", "cache"])[::2] == ("ls", ["cache"])
    assert made == ["ls"]

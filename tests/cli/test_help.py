"""What the help of an option lists is what the option takes."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer
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

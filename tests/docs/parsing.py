"""A command that can not be run here is at least parsed: by the command line itself, or held against what it names."""

import re
import shlex
import subprocess
import tomllib
from typing import Any

import typer
from embedcache_cli.main import app

from embedcache.errors import EmbedcacheError
from tests.docs.pages import ROOT

EXTRAS = frozenset(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
TARGETS = frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def fault_of(line: str) -> str:
    """What is wrong with a line of a shell; "" where nothing is seen to be."""
    spelled = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True, check=False)
    if spelled.returncode:
        return spelled.stderr.strip()
    words = without_settings(shlex.split(line))
    match words:
        case ["embedcache", *arguments]:
            return fault_of_arguments(arguments)
        case [pip, "install", *_] if pip.endswith("pip"):
            asked = {
                extra for word in words for named in re.findall(r"\[([\w,]+)\]$", word) for extra in named.split(",")
            }
            return f"no extra: {', '.join(sorted(asked - EXTRAS))}" if asked - EXTRAS else ""
        case ["make", *targets]:
            return f"no target: {targets}" if set(targets) - TARGETS else ""
    return ""


def without_settings(words: list[str]) -> list[str]:
    """A command without the `NAME=VALUE` before it."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words


def fault_of_arguments(arguments: list[str]) -> str:
    """What the command line says of these arguments before it does anything; "" if it takes them."""
    command: Any = typer.main.get_command(app)
    parent = None
    try:
        while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
            parent = typer.Context(command, info_name=command.name, parent=parent)
            _, command, arguments = command.resolve_command(parent, arguments)
        command.make_context(command.name, list(arguments), parent=parent)
    except (typer.TyperException, EmbedcacheError) as error:
        return str(getattr(error, "message", "") or error)
    return ""

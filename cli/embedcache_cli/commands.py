"""The commands by name. The module of one is imported, and its options read, when it is asked for and not before:
all of them take longer than Python and typer together, and a command line is started many times a day.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from embedcache.errors import suggest


@dataclass(frozen=True)
class Listed:
    """What `embedcache --help` says of a command, and the module that has it as `command`, or a group of them as `app`."""

    module: str
    line: str


COMMANDS: Mapping[str, Listed] = {
    "plan": Listed(
        "plan", "Say how many rows and bytes `extract` with the same options would write, and how long it would take."
    ),
    "extract": Listed(
        "extract", "Run frozen backbones once over every image and store their tokens. Run it again to resume."
    ),
    "embed": Listed(
        "embed",
        "Write vectors of a few images now; nothing else stays. The file names the images as you do: it is yours to share.",
    ),
    "ls": Listed("ls", "List the stores of a cache with what they hold and how much disk they use."),
    "show": Listed("show", "Show one store: recipe, arrays, passes, and what was set aside."),
    "rm": Listed("rm", "Remove one store from disk. Labels and results stay."),
    "verify": Listed(
        "verify", "Read every byte of a store and name what is not as it was written. Exit 1 if anything is."
    ),
    "repair": Listed(
        "repair",
        "Put a damaged store back: from the rest of it, from the dataset, and by computing lost tokens again.",
    ),
    "gc": Listed(
        "gc",
        "Remove what is of no use any more: junk of killed writers, superseded shards, stores that were never begun.",
    ),
    "leaks": Listed(
        "leaks",
        "Look for patients and pictures in two parts, and for labels that are ids. Exit 1 where one is certain.",
    ),
    "relocate": Listed(
        "relocate",
        "Tell the private index of this machine that the sources were moved. Exit 1 if some are not at the new place.",
    ),
    "results": Listed(
        "results",
        "List the results and few-shot curves of a cache: what was asked and chosen, figures with their 95% intervals.",
    ),
    "few-shot": Listed("few_shot", "Few-shot curve: AUROC by patients of each class, drawn many times over."),
    "compare": Listed(
        "compare",
        "Paired tests between results: every pair, differences with 95% intervals by patient, p after Holm's correction.",
    ),
    "subgroups": Listed(
        "subgroups", "A result's test rows measured apart for each value of a column (sex, age, scanner, site, view)."
    ),
    "doctor": Listed(
        "doctor",
        "Say what is installed, which devices there are, and what to do about what is missing. Exit 1 if something is "
        "wrong.",
    ),
    "demo": Listed(
        "demo",
        "Extract, probe and draw, on real images that packages ship. Weights are a trained ViT-S/14, not DINOv2's.",
    ),
    "datasets": Listed("datasets", "Which datasets can be read, and whether a folder holds one."),
    "backbones": Listed("backbones", "Which backbones there are, and what one of them is."),
    "weights": Listed("weights", "Carry weights to a machine without a network."),
    "labels": Listed("labels", "What a table or dataset says of its samples."),
    "probe": Listed("probe_group", "Fit a cheap head on cached features and measure it."),
    "figure": Listed("figure", "Pictures from a cache."),
    "splits": Listed("splits", "Which samples train, validate and test, as files."),
    "ids": Listed("ids", "The key of the pseudonyms, and what a pseudonym stands for."),
}
"""In the order of `embedcache --help`."""


class Commands(TyperGroup):
    """A group of commands that names the nearest one, and all that there are, when one is unknown."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names. Raises UnknownNameError."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise suggest("command", args[0], self.commands)
        return super().resolve_command(ctx, args)


class AllCommands(Commands):
    """The group of all: what only lists commands gets names and lines, what runs one gets it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = Loaded()

    def list_commands(self, ctx: Any) -> list[str]:
        """Names."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The name and line of a command, for the list of them; None if there is no such command."""
        listed = COMMANDS.get(cmd_name)
        return None if listed is None else TyperCommand(cmd_name, help=listed.line)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names, ready to run. Raises UnknownNameError."""
        if args[0] in self.commands:
            return args[0], self.commands[args[0]], args[1:]
        return super().resolve_command(ctx, args)


class Loaded(Mapping[str, Any]):
    """Commands by name, each made when it is taken."""

    def __getitem__(self, name: str) -> Any:
        module = import_module(f"embedcache_cli.{COMMANDS[name].module}")
        around = typer.Typer(add_completion=False)
        if not hasattr(module, "app"):
            around.command(name)(module.command)
            return get_command(around)
        around.add_typer(module.app, name=name, cls=Commands)
        group: Any = get_command(around)
        return group.commands[name]

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS  # a Mapping's own would make the command to see whether there is one

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

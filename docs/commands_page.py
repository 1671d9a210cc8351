"""The page of all commands, written from the command line itself whenever the site is built: it can not go stale."""

from collections.abc import Iterator
from typing import Any, get_args

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

LEAD = """# Commands

Exit codes: 0, all is done; 1, it ran and something was set aside or found wrong; 2, it could not start, or was asked for
something that can not be; 128 and a signal's number, it was stopped; 70, a bug. With `--json` stdout holds one JSON document and
nothing else, an error too. This page is written from the program when the site is built.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to those that lie in the folder."""
    files.append(File.generated(config, "commands.md", content=commands_page()))
    return files


def commands_page() -> str:
    """Every command with its arguments and options, as Markdown."""
    from embedcache_cli.main import app

    sections = [_section(path, command) for path, command in _below(typer.main.get_command(app), ())]
    return "\n".join([LEAD, *sections])


def _below(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from _below(command, (*path, name))


def _section(path: tuple[str, ...], command: Any) -> str:
    title = f"{'#' * (1 + len(path))} {' '.join(path)}"
    shown = [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
    arguments = [p for p in shown if p.param_type_name == "argument"]
    options = [p for p in shown if p.param_type_name == "option"]
    lines = [title, "", " ".join((command.help or "").split()), ""]
    if not hasattr(command, "commands"):
        words = ["embedcache", *path, *(_argument(p) for p in arguments), *(["[OPTIONS]"] if options else [])]
        lines += ["```text", " ".join(words), "```", ""]
    rows: dict[str, list[str]] = {}
    for parameter in (*arguments, *options):
        name = f"`{_argument(parameter)}`" if parameter in arguments else _names(parameter)
        panel = getattr(parameter, "rich_help_panel", None) or ""
        rows.setdefault(panel, []).append(f"| {name} | {_default(parameter)} | {_told(parameter)} |")
    for panel, of_panel in rows.items():
        lines += [*([f"**{panel}**", ""] if panel else []), "| | unless given | |", "|---|---|---|", *of_panel, ""]
    return "\n".join(lines)


def _argument(parameter: Any) -> str:
    name = parameter.name.upper()
    name = f"{name}..." if parameter.nargs == -1 else name
    return name if parameter.required else f"[{name}]"


def _names(parameter: Any) -> str:
    return ", ".join(f"`{name}{_value(parameter)}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _value(parameter: Any) -> str:
    """What is written behind an option: its words where it takes a few, else of what kind it is."""
    if parameter.is_flag:
        return ""
    annotation = parameter.type_descriptor.annotation
    words = [word for word in get_args(annotation) if isinstance(word, str)]
    kind = {int: "NUMBER", float: "NUMBER"}.get(annotation, "TEXT")
    return f" {'/'.join(words) if words else kind}"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "needed"
    if parameter.default is None or parameter.default is False or callable(parameter.default):
        return ""
    if getattr(parameter, "is_flag", False):  # one that is on
        return f"`{parameter.opts[0]}`"
    return f"`{parameter.default}`" if parameter.default != "" else ""


def _told(parameter: Any) -> str:
    return " ".join((parameter.help or "").split()).replace("|", "\\|")

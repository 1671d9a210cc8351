"""`embedcache`: the commands, and what happens when one fails.

Nothing heavy is imported here: each command reaches embedcache through its lazy public names.
"""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import embedcache
from embedcache.errors import EmbedcacheError, suggest
from embedcache_cli import (
    backbones,
    compare,
    datasets,
    demo,
    doctor,
    embed,
    extract,
    few_shot,
    figure,
    gc,
    ids,
    labels,
    leaks,
    ls,
    plan,
    probe,
    probe_all,
    probe_heads,
    probe_linear,
    probe_patch,
    relocate,
    repair,
    results,
    rm,
    show,
    splits,
    subgroups,
    verify,
    weights,
)
from embedcache_cli.output import fail, fail_of_system, fail_unexpectedly, wants_json


class Commands(TyperGroup):
    """A group of commands that names the nearest one, and all that there are, when one is unknown."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names. Raises UnknownNameError."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise suggest("command", args[0], self.commands)
        return super().resolve_command(ctx, args)


def tell_version(asked: bool) -> None:
    """Print the version, if it is asked for, and end."""
    if asked:
        print(f"embedcache {embedcache.__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    name="embedcache",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ALONE = (
    plan, extract, embed, ls, show, rm, verify, repair, gc, leaks, relocate, results, few_shot, compare, subgroups, doctor, demo,
)  # fmt: skip


@app.callback()
def whole(
    version: Annotated[
        bool, typer.Option("--version", callback=tell_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run a frozen vision backbone once over medical images, keep its tokens, probe them on a laptop."""


for module in ALONE:
    app.command(module.NAME)(module.command)
for module in (datasets, backbones, weights, labels, probe, figure, splits, ids):
    app.add_typer(module.app, name=module.NAME, cls=Commands)
for command in (probe_all, probe_linear, probe_patch):
    probe.app.command(command.NAME)(command.command)
for name, head in probe_heads.COMMANDS.items():
    probe.app.command(name)(head)


def main() -> None:
    """Run the command line. Errors become one line (one JSON line under --json) and an exit code, never a traceback."""
    as_json = wants_json(sys.argv[1:])
    try:
        code = app(standalone_mode=False)
    except EmbedcacheError as error:
        fail(str(error), type(error).__name__, error.exit_code, as_json)
    except typer.TyperException as error:  # a wrong argument
        message = error.format_message()
        if "unexpected extra argument" in message and "probe" in sys.argv[1:2] and ".zarr" in message:
            message = f"{message.rstrip('.')}: this command takes one store; `embedcache probe all` takes several."
        if not message:  # a bare group of commands has printed its help
            sys.exit(2)
        fail(message, "UsageError", 2, as_json)
    except typer.Abort:
        fail("stopped", "Abort", 130, as_json)
    except KeyboardInterrupt:
        fail(
            "stopped at once; what was committed stays, and the same command resumes", "KeyboardInterrupt", 130, as_json
        )
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        fail_of_system(error, as_json)
    except Exception as error:  # noqa: BLE001 a traceback at a user is a bug, so even a bug is one line
        fail_unexpectedly(error, as_json)
    else:
        sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()

"""`embedcache`: the commands, and what happens when one fails.

Nothing heavy is imported here: each command reaches embedcache through its lazy public names.
"""

import sys
from typing import Annotated

import typer

import embedcache
from embedcache.errors import EmbedcacheError
from embedcache_cli.commands import AllCommands
from embedcache_cli.output import fail, fail_of_system, fail_unexpectedly, wants_json


def tell_version(asked: bool) -> None:
    """Print the version, if it is asked for, and end."""
    if asked:
        print(f"embedcache {embedcache.__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=AllCommands,
    name="embedcache",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def whole(
    version: Annotated[
        bool, typer.Option("--version", callback=tell_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run a frozen vision backbone once over medical images, keep its tokens, probe them on a laptop."""


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

"""`embedcache weights`."""

from typing import Annotated

import typer

import embedcache
from embedcache_cli.output import Json, counted, print_json, silent, size, tell

app = typer.Typer(help="Carry weights to a machine without a network.", no_args_is_help=True)


@app.command("pull")
def pull_command(
    names: Annotated[list[str], typer.Argument(help="Hub names, or timm:NAME.")],
    to: Annotated[str, typer.Option(help="The folder to fill; give it as --weights where there is no network.")],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit; the default branch unless given.")
    ] = None,
    json: Json = False,
) -> int:
    """Fetch configuration and weights from the hub, at one commit. Run it again to resume, or to verify what is there."""
    pulled = embedcache.pull_weights(names, to, revision=revision, tell=silent if json else tell)
    if json:
        print_json([{**vars(one), "bytes": one.bytes} for one in pulled])
        return 0
    for one in pulled:
        did = f"{counted(len(one.fetched), 'file')} fetched" if one.fetched else "verified, nothing fetched"
        print(f"{one.name} at {one.commit}: {counted(len(one.files), 'file')}, {size(one.bytes)}, {did}")
    return 0


@app.command("check")
def check_command(
    folder: Annotated[str, typer.Argument(help="The folder that `weights pull` filled.")], json: Json = False
) -> int:
    """Read every byte of carried weights and hold it against the digests. Exit 1 if something is not as it was pulled."""
    checked = embedcache.check_weights(folder)
    code = 1 if any(one.problems for one in checked) else 0
    if json:
        print_json(checked)
        return code
    for one in checked:
        print(
            f"{one.name} at {one.commit}: {counted(one.files, 'file')}, {size(one.bytes)}, {'DAMAGED' if one.problems else 'ok'}"
        )
        for problem in one.problems:
            print(f"  {problem}; pull or carry it again")
    return code

"""`embedcache ids`."""

from pathlib import Path
from typing import Annotated

import typer

import embedcache
from embedcache_cli.output import Json, print_json

app = typer.Typer(help="The key of the pseudonyms, and what a pseudonym stands for.", no_args_is_help=True)
key = typer.Typer(help="Carry the key to another machine of yours.", no_args_is_help=True)
app.add_typer(key, name="key")


@key.command("export")
def export_command(
    file: Annotated[str, typer.Argument(help="Where to write it; must not be there.")], json: Json = False
) -> int:
    """Write the key to a file. Whoever has it can link pseudonyms to your ids: keep it apart from every cache."""
    exported = embedcache.export_key(Path(file))
    if json:
        print_json({"key_id": exported.id, "file": file})
    else:
        print(f"key {exported.id} written to {file}; keep it apart from every cache")
    return 0


@key.command("import")
def import_command(
    file: Annotated[str, typer.Argument(help="A file that `ids key export` wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in place of another key, which is kept aside.")
    ] = False,
    json: Json = False,
) -> int:
    """Take over the key of another machine of yours, so that equal ids get equal pseudonyms."""
    imported = embedcache.import_key(Path(file), replace)
    if json:
        print_json({"key_id": imported.id})
    else:
        print(f"key {imported.id} is in use")
    return 0


@app.command("show")
def show_command(
    dataset: Annotated[str, typer.Argument(help="A dataset's folder in a cache: CACHE/DATASET.")],
    sample: Annotated[list[str], typer.Argument(help="Ids as the store and its messages have them.")],
    json: Json = False,
) -> int:
    """Say which file a pseudonym stands for, from the private index of this machine."""
    found = embedcache.reveal(dataset, sample)
    if json:
        print_json(found)
    else:
        for name, path in found.items():
            print(f"{name}  {path}")
    return 0

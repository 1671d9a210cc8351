"""`embedcache doctor`."""

from typing import Annotated

import typer

import embedcache
from embedcache_cli.output import Json, print_json, size

NAME = "doctor"


def command(
    cache: Annotated[
        str | None,
        typer.Option(help="Try what a store needs of this folder's file system: rename, sync, links, locks."),
    ] = None,
    json: Json = False,
) -> int:
    """Say what is installed, which devices there are, and what to do about what is missing. Exit 1 if something is wrong."""
    report = embedcache.doctor(cache)
    if json:
        print_json({**vars(report), "healthy": report.healthy})
        return 0 if report.healthy else 1
    for name, version in report.versions.items():
        print(f"{name:16} {version}")
    for device in report.devices:
        print(f"{'device':16} {device}")
    for name, value in report.places.items():
        print(f"{name:16} {value}")
    for trial in report.file_system:
        print(f"{trial.name:21} {'ok' if trial.ok else 'FAILED'}: {trial.meaning}")
    if report.free is not None:
        print(f"{'free at the cache':21} {size(report.free)}")
    for problem in report.problems:
        print(f"problem: {problem}")
    if report.healthy:
        print("no problem found")
    return 0 if report.healthy else 1

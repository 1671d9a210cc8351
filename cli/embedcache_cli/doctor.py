"""`embedcache doctor`."""

import embedcache
from embedcache_cli.output import Json, print_json

NAME = "doctor"


def command(json: Json = False) -> int:
    """Say what is installed, which devices there are, and what to do about what is missing. Exit 1 if something is wrong."""
    report = embedcache.doctor()
    if json:
        print_json({**vars(report), "healthy": report.healthy})
        return 0 if report.healthy else 1
    for name, version in report.versions.items():
        print(f"{name:16} {version}")
    for device in report.devices:
        print(f"{'device':16} {device}")
    for name, value in report.places.items():
        print(f"{name:16} {value}")
    for problem in report.problems:
        print(f"problem: {problem}")
    if report.healthy:
        print("no problem found")
    return 0 if report.healthy else 1

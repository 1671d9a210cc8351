"""`embedcache leaks`."""

from typing import Annotated

import typer

import embedcache
from embedcache_cli.output import Json, counted, print_json, print_table

NAME = "leaks"


def command(
    where: Annotated[str, typer.Argument(help="A .zarr store, or a cache.")],
    split: Annotated[str | None, typer.Option(help="A split file; else the parts that the labels name.")] = None,
    pixels: Annotated[bool, typer.Option(help="Look at the images, where this machine knows where they lie.")] = True,
    json: Json = False,
) -> int:
    """Look for patients and pictures in two parts, and for labels that are ids. Exit 1 where one is certain."""
    reports = embedcache.find_leaks(where, split, pixels)
    if json:
        print_json([{**vars(r), "exit_code": r.exit_code} for r in reports])
        return max(r.exit_code for r in reports)
    for r in reports:
        by = f"parts by {r.parts}" if r.parts else "no parts are named, so pairs of two patients are listed"
        print(f"{r.store}: {counted(r.samples, 'sample')}, {by}")
        print(f"{counted(len(r.torn_patients), 'patient')} in several parts")
        if r.torn_patients:
            print_table(
                ("patient", "samples"),
                [(t.patient, ", ".join(f"{part} {n}" for part, n in t.samples.items())) for t in r.torn_patients],
            )
        listed = [(r.pairs, f"{counted(len(r.pairs), 'pair')} of one picture ({r.looked_at:,} candidates looked at)")]
        if r.candidates:
            low, high = r.candidates[-1].cosine, r.candidates[0].cosine
            between = f"{counted(len(r.candidates), 'candidate')}, not looked at (cosine {low:.3f} to {high:.3f})"
            listed.append((r.candidates, f"{between}: one picture, or two that are alike"))
        for pairs, line in listed:
            print(line)
            if pairs:
                print_table(
                    ("sample", "part", "sample", "part", "how", "cosine"),
                    [(p.first, p.parts[0], p.second, p.parts[1], p.how, f"{p.cosine:.3f}") for p in pairs],
                )
        together = ", ".join(f"{how} {n:,}" for how, n in r.within.items())
        print(
            f"{counted(sum(r.within.values()), 'pair')} more that no split parts"
            + (f": {together}" if together else "")
        )
        for task in r.id_tasks:
            print(f"task {task.task}: {task.reason}, as an id has")
        if r.blank:
            print(f"{counted(r.blank, 'blank image')} not compared")
        if r.left_out:
            print(f"{counted(r.left_out, 'weaker candidate')} left out: too many to hold")
        for note in r.notes:
            print(f"note: {note}")
    return max(r.exit_code for r in reports)

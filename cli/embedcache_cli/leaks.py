"""`embedcache leaks`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

import embedcache
from embedcache.errors import InputError
from embedcache_cli.output import Json, counted, print_json, print_table

if TYPE_CHECKING:
    from embedcache.evaluation.leaks import LeakReport, TwinPair
    from embedcache.evaluation.shared import SharedReport

_MOST = 20
"""Lines of a table of two stores, which may share all they have; --json has them all."""


def command(
    where: Annotated[str, typer.Argument(help="A .zarr store, or a cache.")],
    split: Annotated[str | None, typer.Option(help="A split file; else the parts that the labels name.")] = None,
    against: Annotated[
        str | None, typer.Option(help="Another store: look for what is in both, as of one that --test names.")
    ] = None,
    pixels: Annotated[bool, typer.Option(help="Look at the images, where this machine knows where they lie.")] = True,
    json: Json = False,
) -> int:
    """Look for patients and pictures in two parts, and for labels that are ids. Exit 1 where one is certain."""
    if against is not None:
        if split is not None:
            raise InputError("--against looks at all of both stores, whatever their parts; leave --split out.")
        return _compare(embedcache.find_shared(where, against, pixels), json)
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
        _print_pairs(r.pairs, r.candidates, r.looked_at)
        together = ", ".join(f"{how} {n:,}" for how, n in r.within.items())
        print(
            f"{counted(sum(r.within.values()), 'pair')} more that no split parts"
            + (f": {together}" if together else "")
        )
        for task in r.id_tasks:
            print(f"task {task.task}: {task.reason}, as an id has")
        _print_end(r)
    return max(r.exit_code for r in reports)


def _print_pairs(
    pairs: "Sequence[TwinPair]", candidates: "Sequence[TwinPair]", looked_at: int, most: int | None = None
) -> None:
    listed = [(pairs, f"{counted(len(pairs), 'pair')} of one picture ({looked_at:,} candidates looked at)")]
    if candidates:
        low, high = candidates[-1].cosine, candidates[0].cosine
        between = f"{counted(len(candidates), 'candidate')}, not looked at (cosine {low:.3f} to {high:.3f})"
        listed.append((candidates, f"{between}: one picture, or two that are alike"))
    for found, line in listed:
        print(line)
        if found:
            print_table(
                ("sample", "part", "sample", "part", "how", "cosine"),
                [(p.first, p.parts[0], p.second, p.parts[1], p.how, f"{p.cosine:.3f}") for p in found[:most]],
            )
            _print_rest(len(found), most)


def _print_rest(count: int, most: int | None) -> None:
    if most is not None and count > most:
        print(f"… and {count - most:,} more: --json names all")


def _compare(r: "SharedReport", json: bool) -> int:
    """What two stores share, and the exit code."""
    if json:
        print_json({**vars(r), "exit_code": r.exit_code})
        return r.exit_code
    print(f"{r.store}: {counted(r.samples[0], 'sample')}")
    print(f"{r.against}: {counted(r.samples[1], 'sample')}")
    if r.ids != "apart":
        ids = f"{counted(len(r.patients), 'id')} of patients and {len(r.sample_ids):,} of samples are in both"
        print(f"{ids}{', perhaps by chance' if r.patients and r.ids == 'perhaps' else ''}")
        if r.patients:
            print_table(
                ("patient", "samples", "samples of the other"),
                [(p.patient, p.first_samples, p.second_samples) for p in r.patients[:_MOST]],
            )
            _print_rest(len(r.patients), _MOST)
    _print_pairs(r.pairs, r.candidates, r.looked_at, _MOST)
    if r.pairs:
        first, second = (len({getattr(p, name) for p in r.pairs}) for name in ("first", "second"))
        print(f"{first:,} of {r.samples[0]:,} samples are in the other, {second:,} of its {r.samples[1]:,}")
    _print_end(r)
    return r.exit_code


def _print_end(r: "LeakReport | SharedReport") -> None:
    """What was compared with nothing, and what is to be said."""
    if r.blank:
        print(f"{counted(r.blank, 'blank image')} not compared")
    if r.left_out:
        print(f"{counted(r.left_out, 'weaker candidate')} left out: too many to hold")
    for note in r.notes:
        print(f"note: {note}")

"""`embedcache show`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

import embedcache
from embedcache_cli.output import Json, counted, plain, print_json, print_records, print_table, size, tell, whose_ids


def command(
    store: Annotated[str, typer.Argument(help="A .zarr store.")],
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="List the slices that were set aside, and why.")
    ] = False,
    json: Json = False,
) -> int:
    """Show one store: recipe, arrays, passes, and what was set aside."""
    shown = embedcache.show_store(store)
    if json:
        print_json(shown)
        return 0
    if quarantine:
        if shown.quarantine:
            rows = [(q.sample, q.slice_index, q.stage, q.reason) for q in shown.quarantine]
            print_table(("sample", "slice", "stage", "reason"), rows)
            if hint := whose_ids(shown.store, shown.identifiers["scheme"]):
                tell(hint)
        print(f"{counted(len(shown.quarantine), shown.unit)} set aside")
        return 0
    held = f"{counted(shown.samples, 'sample')} of {counted(shown.patients, 'patient')}, {counted(shown.slices, shown.unit)}"
    aside = f"{counted(len(shown.quarantine), shown.unit)}; --quarantine lists them" if shown.quarantine else ""
    summary = {"holds": held, "set aside": aside, "on disk": size(shown.bytes), "fingerprint": shown.fingerprint}
    about = {"dataset": shown.dataset, "weights": shown.weights, "identifiers": shown.identifiers, **shown.recipe}
    passes = {f"pass {name}": {**p, "arrays": "; ".join(p["arrays"])} for name, p in shown.passes.items()}
    print_records([(shown.store, summary), *((title, _said(plain(what))) for title, what in (about | passes).items())])
    return 0


def _said(what: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Names and values as text; nested ones as `window.name`, what is empty left out."""
    lines: dict[str, str] = {}
    for name, value in what.items():
        if isinstance(value, dict):
            lines |= _said(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            lines[prefix + name] = ", ".join(str(item) for item in value)
        else:
            lines[prefix + name] = "" if value is None else str(value)
    return {name.replace("_", " "): text for name, text in lines.items() if text}

"""The demo's page: one HTML file that needs nothing beside it."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from embedcache.store.files import replace_file
from embedcache.types import Metric, Result

METRIC_NAMES = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "brier": "Brier score",
}
"""Of the metrics those that the page shows; the others are in the results' files."""

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>embedcache demo</title>
<style>
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.5rem 4rem; background: #fff; color: #222;
       font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 1.9rem; }
h2 { margin: 2.8rem 0 .4rem; font-size: 1.25rem; }
p { max-width: 46rem; margin: .5rem 0 .9rem; }
.lead { font-size: 1.1rem; }
.note { max-width: 46rem; padding: .7rem 1rem; border-left: 4px solid #D55E00; background: #fdf4ee; }
.row { display: flex; flex-wrap: wrap; gap: .7rem; margin: .7rem 0; align-items: flex-start; }
figure { margin: 0; width: 8.2rem; font-size: .8rem; line-height: 1.3; color: #555; }
figure img { display: block; width: 100%; height: 8.2rem; object-fit: contain; background: #000; border-radius: 4px; }
figure.asked img { outline: 3px solid #0072B2; }
figcaption { padding-top: .35rem; }
.arrow { align-self: center; padding-bottom: 2.6rem; color: #0072B2; font-size: 1.4rem; }
img.wide { width: 100%; height: auto; margin: .4rem 0; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 1.6rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #ddd; }
th { font-weight: 600; }
pre { overflow-x: auto; padding: .8rem 1rem; background: #f5f6f7; border-radius: 4px; font-size: .85rem; }
</style>
</head>
<body>
$body
</body>
</html>
""")


@dataclass(frozen=True)
class Card:
    """A small picture and what is written below it."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading and what follows it, as HTML."""

    title: str
    html: str


def write_page(path: Path, lead: str, notice: str, sections: Sequence[Section]) -> Path:
    """Write the page to `path`, whole or not at all."""
    parts = [
        "<h1>embedcache demo</h1>",
        f'<p class="lead">{escape(lead)}</p>',
        f'<p class="note">{escape(notice)}</p>',
    ]
    parts += [f"<h2>{escape(section.title)}</h2>\n{section.html}" for section in sections]
    replace_file(path, _PAGE.substitute(body="\n".join(parts)).encode())
    return path


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def code(lines: Iterable[str]) -> str:
    """Lines as they are typed."""
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def cards(items: Iterable[Card]) -> str:
    """Small pictures side by side."""
    return f'<div class="row">{"".join(_card(item) for item in items)}</div>'


def neighbours(asked: Card, found: Iterable[Card]) -> str:
    """A picture and those that are nearest to it."""
    arrow = '<span class="arrow">&rarr;</span>'
    return f'<div class="row">{_card(asked, "asked")}{arrow}{"".join(_card(item) for item in found)}</div>'


def picture(png: Path, alternative: str) -> str:
    """A picture over the whole width."""
    return f'<img class="wide" alt="{escape(alternative)}" src="{_data_uri(png.read_bytes())}">'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text; without column names, the first cell of each row is its name."""
    head = f"<tr>{''.join(f'<th>{escape(c)}</th>' for c in columns)}</tr>" if columns else ""
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(c)}</td>' if columns or i else f'<th>{escape(c)}</th>' for i, c in enumerate(row))}</tr>"
        for row in rows
    )
    return f"<table>{head}{body}</table>"


def results_table(results: Iterable[Result]) -> str:
    """Every metric of every probe, with its interval."""
    rows = [
        (result.probe, METRIC_NAMES[m.name], *value_and_interval(m), m.note)
        for result in results
        for m in result.metrics
        if m.label != "macro" and m.name in METRIC_NAMES
    ]
    return table(("Probe", "Metric", "Value", "95% interval", "Note"), rows)


def value_and_interval(m: Metric) -> tuple[str, str]:
    """Three decimals, and a dash for what is undefined."""
    value = "-" if m.value is None else f"{m.value:.3f}"
    return value, "-" if m.low is None or m.high is None else f"{m.low:.3f} to {m.high:.3f}"


def _card(item: Card, kind: str = "") -> str:
    name = f' class="{kind}"' if kind else ""
    text = escape(item.caption)
    return f'<figure{name}><img alt="{text}" src="{_data_uri(item.png)}"><figcaption>{text}</figcaption></figure>'


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"

"""`embedcache demo`: the whole path on real images that packages ship, told on one page.

Write a user's files and tables, extract them once, extract them again (nothing is left to do), look for neighbours,
fit two probes, and show patch tokens as colours. Only what any user could call is called.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedcache.datasets.base import DatasetOptions
from embedcache.datasets.private import ENVIRONMENT
from embedcache.evaluation.figures import draw_result
from embedcache.evaluation.pca_figure import pca_figure
from embedcache.evaluation.predictions import read_predictions
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.extraction.config import ExtractConfig
from embedcache.extraction.job import extract
from embedcache.extraction.progress import Listener, Progress
from embedcache.extraction.report import ExtractReport
from embedcache.store.catalog import summarise
from embedcache.store.features import Features
from embedcache.store.layout import OK
from embedcache.store.reader import FeatureCache
from embedcache.testing import demo_page as page
from embedcache.testing.demo_images import DemoImages, check_packages, make_images, rows_of
from embedcache.testing.demo_pictures import HeadPoint, draw_along_head, shown, thumbnail
from embedcache.testing.trained_vit import WHAT_IT_IS, make_trained_vit
from embedcache.types import Metric, Result

Tell = Callable[[str], None]

TASK = "grey_rich"
PROBES = ("logistic", "knn")
ASKED = ("chest", "head-ct", "shoulder-mr", "slab-14")
NEIGHBOURS = 5
COLOUR_LAYER, COLOUR_SIZE = 8, 448
"""Of the patch colours: of these weights' layers, one in the middle shows most of the anatomy."""

QUIET_SECONDS = 15.0

NOTICE = (
    f"The weights are {WHAT_IT_IS}. The images are one averaged head and a dozen test files. "
    "They show that everything runs; nothing here says how good a model is, and nothing is clinical."
)


@dataclass(frozen=True)
class DemoReport:
    """What the demo did, and where its page is."""

    page: str
    seconds: float
    samples: int
    slices: int
    """Of the first store."""
    decoded: int
    """Slices that this run decoded for it: all of them, or 0 if the demo was run before."""
    decoded_again: int
    """Slices that a second extraction decoded: 0."""
    stores: tuple[str, ...]
    auroc: dict[str, Metric]
    """By probe, on the held-out slabs."""


def run_demo(out: str | Path, tell: Tell = lambda _: None) -> DemoReport:
    """Extract, probe and draw into the folder `out`, and say each step to `tell`; a second run resumes the first.

    The images come from installed packages, the weights are a trained ViT-S/14 in DINOv2 format, not DINOv2's. The
    user's own key and private index stay untouched: while the demo runs its own lie in `out`. Raises
    MissingPackageError, naming every package that is missing.
    """
    started = time.monotonic()
    check_packages()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with _private_home(out / "home"):
        tell(NOTICE)
        weights = make_trained_vit(out / "weights" / "trained-vit-s14")
        images = make_images(out / "images")
        tell(f"the images and their tables lie in {images.folder}")
        config = _config(out, weights, images)
        first, again = _extract_twice(config, tell)
        cache = FeatureCache.open(first.stores[0].path)
        results = _probe(cache, tell)
        levels, figure = _colours(out, weights, images, tell)
    report = DemoReport(
        page=str(out / "index.html"),
        seconds=time.monotonic() - started,
        samples=first.samples,
        slices=first.stores[0].slices,
        decoded=first.decoded,
        decoded_again=again.decoded,
        stores=(first.stores[0].path, levels.stores[0].path),
        auroc={result.probe: result.metric("auroc", result.task.classes[0]) for result in results},
    )
    _write_page(out, images, first, again, results, figure)
    tell(f"done in {report.seconds:.0f} s")
    return report


@contextmanager
def _private_home(folder: Path) -> Iterator[None]:
    """Key and private index in `folder` while the block runs."""
    before = os.environ.get(ENVIRONMENT)
    os.environ[ENVIRONMENT] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[ENVIRONMENT]
        else:
            os.environ[ENVIRONMENT] = before


# --- the jobs -------------------------------------------------------------------------------------


def _config(out: Path, weights: Path, images: DemoImages) -> ExtractConfig:
    """Every image of the table; labels from a second table, a row per slice. The ids are public, so they are kept."""
    labels = DatasetOptions(name="demo", label_table=str(images.labels), level="slice", tasks=(f"{TASK}=binary",))
    return ExtractConfig(
        "table", str(images.table), (str(weights),), cache=str(out / "cache"), ids="keep", options=labels
    )


def _extract_twice(config: ExtractConfig, tell: Tell) -> tuple[ExtractReport, ExtractReport]:
    tell("extracting CLS and mean patch tokens of every slice at 224 x 224 (under a minute on two idle cores) ...")
    first = extract(config, _progress(tell))
    if first.decoded:
        rate = first.decoded / first.seconds
        tell(f"{first.decoded} slices of {first.samples} samples in {first.seconds:.1f} s ({rate:.1f} a second)")
    else:
        tell(f"{first.stores[0].slices} slices of {first.samples} samples were there from an earlier run")
    again = extract(config)
    tell(f"the same extraction again: {again.decoded} slices decoded, {again.seconds:.2f} s")
    return first, again


def _progress(tell: Tell) -> Listener:
    """A line in `QUIET_SECONDS`, for a machine that is slow or busy."""
    last = [time.monotonic()]

    def hear(progress: Progress) -> None:
        if time.monotonic() - last[0] > QUIET_SECONDS:
            last[0] = time.monotonic()
            tell(f"  {progress.done} of {progress.total} slices")

    return Listener(progress=hear)


def _probe(cache: FeatureCache, tell: Tell) -> list[Result]:
    """Slices apart (`pool=None`), since each slice has a label; the slabs of the test part are in the table."""
    results = []
    for probe in PROBES:
        result = run_probe(ProbeConfig(probe, cache.path, task=TASK, pool=None))
        m = result.metric("auroc", result.task.classes[0])
        value, interval = page.value_and_interval(m)
        tell(f"probe {probe}: AUROC {value} ({interval}) on {m.n} slices of {m.patients} held-out slabs")
        results.append(result)
    return results


def _colours(out: Path, weights: Path, images: DemoImages, tell: Tell) -> tuple[ExtractReport, Path]:
    rows = rows_of(images.levels)
    tell(f"extracting patch tokens of {len(rows)} slices at {COLOUR_SIZE} x {COLOUR_SIZE} for a picture ...")
    report = extract(
        ExtractConfig(
            "table", str(images.levels), (str(weights),), cache=str(out / "cache"), tokens="patch",
            layers=str(COLOUR_LAYER), size=COLOUR_SIZE, ids="keep", options=DatasetOptions(name="demo-levels"),
        ),
        _progress(tell),
    )  # fmt: skip
    cache = FeatureCache.open(report.stores[0].path)
    tokens = cache.layer(COLOUR_LAYER).patch_tokens.read()[cache.row_status == OK]
    by_id = {row["id"]: row for row in rows}
    order = [by_id[i] for i in cache.samples().id.tolist()]
    pictures = [shown(images.folder / row["path"]) for row in order]
    path = _figures(out) / "patch-colours.png"
    pca_figure(tokens, pictures, [row["what"] for row in order], path)
    return report, path


def _figures(out: Path) -> Path:
    folder = out / "figures"
    folder.mkdir(exist_ok=True)
    return folder


# --- the page -------------------------------------------------------------------------------------


def _write_page(
    out: Path, images: DemoImages, first: ExtractReport, again: ExtractReport, results: list[Result], colours: Path
) -> Path:
    cache = FeatureCache.open(first.stores[0].path)
    lead = (
        f"{first.samples} image files in three formats became tokens in one store, once; the neighbours and the probes below "
        "read nothing but the store."
    )
    sections = (
        page.Section("What went in", _went_in(images)),
        page.Section("Extracted once", _extracted(out, first, again)),
        page.Section("Nearest neighbours", _neighbours(images, cache)),
        page.Section("Probed", _probed(out, images, results)),
        page.Section("Patch tokens as colours", _coloured(colours)),
        page.Section("The same on the command line", _commands(out, first)),
    )
    return page.write_page(out / "index.html", lead, NOTICE, sections)


def _went_in(images: DemoImages) -> str:
    rows = rows_of(images.table)
    slabs = [row for row in rows if row["path"].startswith("head/")]
    few = [row for row in rows if row not in slabs] + slabs[2::6]
    text = (
        "DICOM files of radiographs, CT, MR and ultrasound (from pydicom and pydicom-data), NIfTI slabs of the MNI152 "
        f"average head (from nilearn; {len(slabs)} of them, a few are shown), and PNG slices of the same head. "
        "Each is shown in the window that was extracted."
    )
    return page.paragraph(text) + page.cards(_card(images, row) for row in few)


def _card(images: DemoImages, row: dict[str, str], more: str = "") -> page.Card:
    return page.Card(thumbnail(shown(images.folder / row["path"])), row["what"] + more)


def _extracted(out: Path, first: ExtractReport, again: ExtractReport) -> str:
    store = first.stores[0]
    used = summarise(Path(store.path)).bytes
    took = "an earlier run had decoded them all"
    if first.decoded:
        took = f"{first.seconds:.1f} s, {first.decoded / first.seconds:.1f} slices a second; {first.binds} binds"
    rows = [
        ("Samples", f"{first.samples}, of {store.slices} slices"),
        ("First run", took),
        ("Second run", f"{again.decoded} slices decoded, {again.seconds:.2f} s"),
        ("Stored", ", ".join(store.arrays) + f"; {used / 1e6:.1f} MB"),
        ("Store", os.path.relpath(store.path, out)),
        ("Set aside", "; ".join(f"{n} ({reason})" for reason, n in first.quarantined.items()) or "none"),
    ]
    text = (
        "The second run opened no image and loaded no weights: a shard that is committed is never made again. A run that "
        "is killed loses at most the shards that it had not committed, and the same command goes on from there."
    )
    return page.table((), rows) + page.paragraph(text)


def _neighbours(images: DemoImages, cache: FeatureCache) -> str:
    features = cache.features("cls")
    unit = features.X / np.linalg.norm(features.X, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    ids = features.sample_id.tolist()
    row_of = {row["id"]: row for row in rows_of(images.table)}
    html = [page.paragraph(
        "The CLS tokens of each sample, averaged over its slices, compared by cosine similarity. A neighbour is as good as "
        "the weights: some of these pairs share a shape and no anatomy. " + _twins(features)
    )]  # fmt: skip
    for name in ASKED:
        if name not in ids:  # set aside, as a machine may do that takes minutes for one file
            continue
        i = ids.index(name)
        nearest = np.argsort(-similarity[i], kind="stable")[:NEIGHBOURS].tolist()
        found = [_card(images, row_of[ids[j]], f" ({similarity[i, j]:.2f})") for j in nearest]
        html.append(page.neighbours(_card(images, row_of[name]), found))
    return "".join(html)


def _twins(features: Features) -> str:
    """What became of one radiograph in two encodings."""
    pair = [features.X[features.sample_id == name] for name in ("chest", "chest-j2k")]
    if not all(map(len, pair)):
        return ""
    difference = float(np.abs(pair[0] - pair[1]).max())
    outcome = f"differ by {difference:.2g}" if difference else "are the same to the last bit"
    return f"The chest radiograph is there twice, uncompressed and as lossless JPEG 2000; its tokens {outcome}."


def _probed(out: Path, images: DemoImages, results: list[Result]) -> str:
    logistic, knn = results
    along = _draw_scores(images, knn, _figures(out) / "along-the-head.png")
    curves = draw_result(logistic, _figures(out) / "logistic.png")
    counts = logistic.counts
    text = (
        "Does a slice of the head hold more grey matter, as a share of grey and white, than the median slice? The answer "
        "comes from nilearn's tissue maps. Slabs of 4 slices stand in for patients: a whole slab trains, validates or "
        f"tests, and 2 mm between two slabs are left out. The test part is {counts['test_rows']} slices of "
        f"{counts['test_patients']} slabs, hence the wide intervals. It is one head, and raw pixels answer the question even "
        "better: these figures show the machinery, and are no finding."
    )
    return (
        page.paragraph(text)
        + page.picture(along, "Grey matter's share and the kNN probe's score by height in the head")
        + page.results_table(results)
        + "".join(page.paragraph(f"Note of probe {r.probe}: {line}") for r in results for line in r.warnings)
        + page.paragraph("The figure that embedcache probe logistic --figure draws; its patients are the slabs:")
        + page.picture(curves, "AUROC with its interval, and the ROC curve")
    )


def _draw_scores(images: DemoImages, result: Result, path: Path) -> Path:
    predictions = read_predictions(result)
    test = predictions.take(np.asarray(predictions.part == "test"))
    named = zip(test.sample.tolist(), test.slice.tolist(), test.score[:, 0].tolist(), strict=True)
    score = {(sample, place): value for sample, place, value in named}
    points = [
        HeadPoint(
            float(row["height_mm"]),
            float(row["grey_share"]),
            row[TASK] == "1",
            score.get((row["id"], int(row["slice"]))),
        )
        for row in rows_of(images.labels)
    ]
    return draw_along_head(points, f"{result.probe}: {result.chosen['scores_are']}", path)


def _coloured(figure: Path) -> str:
    text = (
        f"Patch tokens of layer {COLOUR_LAYER} at {COLOUR_SIZE} x {COLOUR_SIZE}; each stands for 14 x 14 pixels. Without "
        "any label, a first principal component over all slices finds the background; three more of what is left are red, "
        "green and blue. Equal colours are similar tokens."
    )
    return page.paragraph(text) + page.picture(figure, "Axial slices of the head above the colours of their patches")


def _commands(out: Path, first: ExtractReport) -> str:
    store = Path(first.stores[0].path)
    lines = (
        f"export {ENVIRONMENT}=home    # the demo's own key and index",
        "embedcache extract --dataset table --root images/images.csv --name demo --labels images/labels.csv \\",
        f"    --level slice --task {TASK}=binary --backbone weights/trained-vit-s14 --ids keep --cache cache",
        "embedcache ls cache",
        f"embedcache probe logistic {os.path.relpath(store, out)} --pool none --figure logistic.png",
        f"embedcache probe knn {os.path.relpath(store, out)} --pool none",
    )
    return page.paragraph(f"In the folder {out.name}:") + page.code(lines)

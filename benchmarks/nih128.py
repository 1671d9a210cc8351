"""The main job on real radiographs: trained tokens against a random ViT and against raw pixels, by patient.

`nih_128` (2,911 chest radiographs of 780 patients, 14 findings) is extracted once with four backbones that share one
reading, then probed from the cache: logistic regression and kNN on the seven commonest findings, 20% of the training
patients for validation (seed 0), tested once.

ours: macro AUROC of the trained ViT-S/14 (a trained ViT in DINOv2's format; not DINOv2's weights), logistic,
CLS + mean patch token, standardised on train. baseline: the better of raw pixels (32x32) and a random ViT-S,
under the very same probe. EfficientNet-Lite0, trained on photographs, stands beside them. Of ours, scikit-learn's
LogisticRegression is fitted to the same rows at the C that was chosen, and must decide the test rows alike. `--quick` takes what
a finished cache holds, or else 600 images.
"""

import argparse
import os
from pathlib import Path

from common import ROOT, SHARED_DATA, finish, machine

import embedcache
from embedcache.testing.trained_cnn import make_trained_cnn
from embedcache.testing.trained_vit import make_random_vit, make_trained_vit

COMMONEST = ("Infiltration", "Atelectasis", "Effusion", "Nodule", "Pleural_Thickening", "Pneumothorax", "Mass")
"""The seven with the most positives in `nih_128`."""
PIXELS = "pixels:32"
FEATURES = {
    "trained ViT-S/14": "cls+mean",
    "random ViT-S/14": "cls+mean",
    "EfficientNet-Lite0": "mean",
    "pixels 32x32": "cls",
}
"""What each backbone has of the last layer; a CNN's mean patch is its global average pool."""
AT_LEAST, MARGIN = 0.63, 0.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="reuse a finished cache, or take 600 images")
    parser.add_argument("--root", default=str(SHARED_DATA / "nih_128"))
    parser.add_argument("--work", default=str(ROOT / ".benchmark-cache" / "nih128"), help="cache, weights and home")
    options = parser.parse_args()
    work = Path(options.work)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["EMBEDCACHE_HOME"] = str(work / "home")
    trained = str(make_trained_vit(ROOT / ".test-weights" / "trained-vit-s14"))
    random = str(make_random_vit(ROOT / ".test-weights" / "random-vit-s14", seed=0))
    cnn = str(make_trained_cnn(ROOT / ".test-weights" / "efficientnet-lite0"))
    names = {trained: "trained ViT-S/14", random: "random ViT-S/14", cnn: "EfficientNet-Lite0", PIXELS: "pixels 32x32"}
    stores = find_stores(work / "cache")
    if not (options.quick and len(stores) == len(names)):
        extract(options.root, tuple(names), work / "cache", limit=600 if options.quick else None)
        stores = find_stores(work / "cache")
    images = max(s.samples for s in stores.values())
    scores = {}
    for backbone, title in names.items():
        store = Path(stores[Path(backbone).name.replace(":", "-")].path)
        for probe in ("logistic", "knn"):
            config = embedcache.ProbeConfig(
                probe=probe,
                store=store,
                features=FEATURES[title],
                classes=COMMONEST,
                validation=0.2,
                seed=0,
            )
            result = embedcache.probe(config)
            scores[title, probe] = result.metric("auroc")
            if (title, probe) == ("trained ViT-S/14", "logistic"):
                alike, apart = against_scikit_learn(config, result)
            print(row(title, probe, result), flush=True)
    ours = scores["trained ViT-S/14", "logistic"].value or 0.0
    pixels = scores["pixels 32x32", "logistic"].value or 1.0
    untrained = scores["random ViT-S/14", "logistic"].value or 1.0
    baseline = max(pixels, untrained)
    finish(
        "nih128",
        {
            "macro_auroc_at_least_.63": ours >= AT_LEAST,
            "at_least_.03_above_pixels": ours >= pixels + MARGIN,
            "at_least_.03_above_random": ours >= untrained + MARGIN,
            "all_images": images == 2911 or options.quick,
            "decisions_of_scikit_learn": alike,
        },
        ours=round(ours, 4),
        baseline=round(baseline, 4),
        baseline_name="the better of raw 32x32 pixels and a random ViT-S/14, same probe",
        ratio=round(ours / baseline, 3),
        images=images,
        score_apart=apart,
        table={f"{title}, {probe}": [m.value, m.low, m.high] for (title, probe), m in scores.items()},
        machine=machine(),
    )


def against_scikit_learn(config: embedcache.ProbeConfig, result: embedcache.Result) -> tuple[bool, float]:
    """Whether each label's decisions on the test rows are scikit-learn's, and how far log-odds are apart at most."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from embedcache.evaluation.predictions import read_predictions
    from embedcache.evaluation.question import ask
    from embedcache.evaluation.splits import part_rows
    from embedcache.probes.standardizer import Standardizer

    question = ask(config)
    features = question.cache.features(result.chosen["features"], task=question.task.name)
    parts = part_rows(question.split, features.sample_id)
    fitted, tested = np.isin(parts, ["train", "validation"]), parts == "test"
    scale = Standardizer.fit(features.X[fitted])
    X, new = (scale.apply(features.X[rows]).astype(np.float64) for rows in (fitted, tested))
    y = features.y[:, question.columns][fitted].astype(int)
    model = LogisticRegression(C=result.chosen["C"], solver="newton-cholesky", tol=1e-10, max_iter=1000)
    theirs = np.column_stack([model.fit(X, labels).decision_function(new) for labels in y.T])
    ours = read_predictions(result).of("test").score
    return bool(((ours > 0) == (theirs > 0)).all()), float(np.abs(ours - theirs).max())


def extract(root: str, backbones: tuple[str, ...], cache: Path, limit: int | None, layers: str = "last") -> None:
    report = embedcache.extract(
        embedcache.ExtractConfig(
            dataset="nih-cxr14",
            root=root,
            backbones=backbones,
            cache=str(cache),
            limit=limit,
            layers=layers,
            rows_per_shard=256,
        ),
        embedcache.Listener(
            progress=lambda p: print(f"{p.done} of {p.total}", flush=True) if p.done % 200 == 0 else None
        ),
    )
    print(
        f"{report.decoded} images decoded once for {len(backbones)} backbones in {report.seconds:.0f} s; {report.binds} binds"
    )


def find_stores(cache: Path) -> dict[str, "embedcache.store.catalog.StoreSummary"]:
    """Finished stores of the cache by backbone."""
    found = embedcache.list_stores(cache) if cache.is_dir() else ()
    return {s.backbone: s for s in found if s.state == "complete"}


def row(title: str, probe: str, result: embedcache.Result) -> str:
    macro = result.metric("auroc")
    each = ", ".join(
        f"{m.label} {m.value:.3f}" for m in result.metrics if m.name == "auroc" and m.label != "macro" and m.value
    )
    return f"| {title} | {probe} | {macro.value:.3f} ({macro.low:.3f} to {macro.high:.3f}) | {each} |"


if __name__ == "__main__":
    main()

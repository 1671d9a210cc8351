"""The example scripts run as a user runs them, on small files."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import embedcache
import embedcache.testing
from embedcache import FeatureCache
from embedcache.store.labels import write_labels
from embedcache.testing.files import write_png
from embedcache.testing.labelled_stores import LabelledStore, long_labels, make_labelled_store
from embedcache.testing.stores import make_plan, make_store
from embedcache.types import ArraySpec, Task

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
SOURCES = [*SCRIPTS, *sorted((EXAMPLES / "plugin").glob("*.py"))]
CASES = 60
PARTS = ("test", "validation", "train", "train", "train")
"""By patient: a drawn split would go by pseudonyms, which are others in each home."""


def run(script: str, *arguments: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(script: str) -> ModuleType:
    """Its functions, to hold what they return against what embedcache does."""
    spec = importlib.util.spec_from_file_location(Path(script).stem, EXAMPLES / script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of images, two a patient: the ill are brighter, and a square, which the mask marks, lies left or right."""
    folder = tmp_path_factory.mktemp("cases")
    rng = np.random.default_rng(0)
    lines, export = ["path,patient,split,ill,left,mask"], []
    for i in range(CASES):
        ill = (i // 2) % 2
        pixels = (rng.integers(0, 50, (40, 40)) + 40 * ill).astype(np.uint8)
        mask = np.zeros((40, 40), dtype=np.uint8)
        y, x = rng.integers(0, 20, 2)
        mask[y : y + 20, x : x + 20] = 255
        pixels[mask > 0] += 150
        write_png(folder / f"{i}.png", pixels)
        write_png(folder / f"mask{i}.png", mask)
        lines.append(f"{i}.png,P{i // 2},{PARTS[i // 2 % 5]},{ill},{int(x < 10)},mask{i}.png")
        export.append({"image": f"{i}.png", "patient": f"P{i // 2}", "findings": ["mass", "node"][: ill + i % 2]})
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    (folder / "cases.json").write_text(json.dumps(export))
    return folder / "cases.csv"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> LabelledStore:
    """Three slices a sample, some set aside, of one sample all; a binary task with missing labels."""
    folder = tmp_path_factory.mktemp("labelled")
    made = make_labelled_store(
        folder, Task("ill", "binary", ("ill",)), n=80, slices=3, quarantined=(0, 7, 9, 10, 11), layers=(1, 2)
    )
    y = made.y.copy()
    y[[5, 40]] = np.nan
    made.relabel(y)
    return made


def test_every_example_is_tested_here() -> None:
    """A script is tested by a call of `run` that names it."""
    tested = {
        node.args[0].value
        for node in ast.walk(ast.parse(Path(__file__).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "run"
        if isinstance(node.args[0], ast.Constant)
    }
    assert tested == {path.name for path in SCRIPTS}
    assert len(tested) >= 12


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_shows_and_prints(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 60
    said = ast.get_docstring(ast.parse(text)) or ""
    assert f"python {path.name} " in said.splitlines()[0]
    assert "\nShows " in said
    assert re.search(r"\bPrints ", said)
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        load(path.name).main()
    told = capsys.readouterr().out
    assert f"usage: {path.name}" in told
    assert "positional arguments:" in told


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_an_example_uses_public_names_only(path: Path) -> None:
    public = {"embedcache": set(embedcache.__all__), "embedcache.testing": set(embedcache.testing.__all__)}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "embedcache":
            assert node.module in public
            assert {alias.name for alias in node.names} <= public[node.module]
        if isinstance(node, ast.Import):
            assert all(a.name == "embedcache" or not a.name.startswith("embedcache.") for a in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "embedcache":
            assert node.attr in public["embedcache"]


def test_own_table_then_own_head(cases: Path, tmp_path: Path, tiny: Path) -> None:
    told = run("own_table.py", cases, tiny, "ill", "--cache", tmp_path / "cache")
    assert f"{CASES} slices, {CASES} of them decoded now" in told
    assert "logistic: AUROC 1.0" in told
    (store,) = (tmp_path / "cache").glob("*/*/*.zarr")
    folds = run("own_head.py", store, "ill")
    assert folds.count("1.000") == 3


def test_own_tokens_are_learned_from(tmp_path: Path) -> None:
    samples = [f"s{i}" for i in range(40)]
    arrays = (ArraySpec(1, "patch_tokens", "float16", (2, 2, 8)), ArraySpec(1, "cls_token", "float16", (8,)))
    store = tmp_path / "made" / "tiny" / "x.zarr"
    make_store(store, make_plan([1] * 40), arrays)
    truth = FeatureCache.open(store).layer(1).patch_tokens.read()[:40, 0, 0, 0].astype(np.float32)
    y = (truth > np.median(truth)).astype(float)[:, None]
    task = Task("ill", "binary", ("ill",))
    write_labels(tmp_path / "made", long_labels(task, samples, [f"p{i}" for i in range(40)], y, [""] * 40))
    told = run("own_tokens.py", store, "ill", "--epochs", "30").splitlines()
    assert "on 40 slices of (2, 2, 8) tokens" in told[0]
    first, last = (float(line.split("loss ")[1].split()[0]) for line in (told[0], told[-1]))
    assert last < first


def test_own_backbone_by_its_weights(cases: Path, tmp_path: Path) -> None:
    """A state_dict of its net, in a file that names the store."""
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 48, 16, 16), torch.nn.GELU(), torch.nn.Conv2d(48, 48, 1))
    torch.save(net.state_dict(), tmp_path / "trained.pt")
    told = run("own_backbone.py", cases, "--weights", "trained.pt", "--cache", tmp_path / "cache", cwd=tmp_path)
    assert told.splitlines()[0] == "own:trained.pt holds to what every backbone promises"
    assert f"cases x trained: {CASES} samples, {CASES} slices; layer_1/patch_mean" in told


def test_own_dataset(cases: Path, tmp_path: Path) -> None:
    told = run("own_dataset.py", cases.parent, "--backbone", "pixels:4", "--cache", tmp_path / "cache")
    assert "own holds to what every dataset promises; its findings are mass, node" in told
    assert f"own x pixels-4: {CASES} samples" in told


def test_own_estimator(labelled: LabelledStore) -> None:
    told = run("own_estimator.py", labelled.store)
    assert told.startswith("curved holds to what every probe promises\n")
    found = re.search(r"C \d+\.\d: AUROC (0\.\d+|1\.0+) \(", told)
    assert found is not None
    assert float(found[1]) > 0.8


def test_own_probe(labelled: LabelledStore) -> None:
    found = re.fullmatch(r"means keeps them; share 0\.\d: AUROC ([\d.]+)\n", run("own_probe.py", labelled.store, "ill"))
    assert found is not None
    assert float(found[1]) > 0.8


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")  # string index arrays, see FORMAT.md
def test_a_store_is_read_without_embedcache(labelled: LabelledStore) -> None:
    store, array = str(labelled.store), "layer_1/cls_token"
    told = run("read_store.py", store, "--array", array)
    assert "numpy: (235, 6)" in told  # 240 slices, 5 of them set aside
    assert "xarray: {'slice': 235, 'feature': 6}" in told
    assert told.count("(16, 6)") == 14
    module = load("read_store.py")
    expected = FeatureCache.open(store).features("cls", layers=1, pool=None).X
    np.testing.assert_array_equal(module.in_numpy(store, array), expected)
    np.testing.assert_array_equal(module.in_xarray(store, array).to_numpy(), expected)
    items = module.InTorch(store, array)
    np.testing.assert_array_equal([items[i].numpy() for i in range(len(items))], expected)


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_labels_are_read_without_embedcache(labelled: LabelledStore) -> None:
    store, array = str(labelled.store), "layer_1/cls_token"
    told = run("read_labels.py", store, "ill", "--array", array)
    assert told.startswith("(77, 6) AUROC ")  # 80 samples, one without a slice, two without a label
    assert all(float(fold) > 0.8 for fold in told.split()[3:])
    module = load("read_labels.py")
    expected = FeatureCache.open(store).features("cls", layers=1, task="ill")
    X, ids, patients = module.read_samples(store, array)
    np.testing.assert_allclose(X, expected.X, rtol=1e-6)
    assert ids.tolist() == expected.sample_id.tolist()
    assert patients.tolist() == expected.groups.tolist()
    np.testing.assert_array_equal(module.read_task(store, "ill", ids), expected.y)


@pytest.mark.parametrize("script", ["read_store.py", "read_labels.py"])
def test_the_readers_do_without_embedcache(script: str) -> None:
    tree = ast.parse((EXAMPLES / script).read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "zarr" in modules
    assert not any(name.split(".")[0] == "embedcache" for name in modules)


def test_few_shot_curve(labelled: LabelledStore, tmp_path: Path) -> None:
    figure = tmp_path / "curve.png"
    told = run("few_shot_curve.py", labelled.store, "--shots", "1", "8", "--seeds", "4", "--figure", figure)
    lines = told.splitlines()
    assert lines[0] == "made-up, task ill:"
    aurocs = [float(re.search(r"AUROC ([\d.]+)", line)[1]) for line in lines[1:4]]  # type: ignore[index]
    assert aurocs[0] < aurocs[1]
    assert "1 patients of each class" in lines[1]
    assert "over 4 draws" in lines[1]
    assert "all patients of each class" in lines[3]
    assert "over 1 draws - to -" in lines[3]
    assert figure.stat().st_size > 1000


def test_segment_patches(cases: Path, tmp_path: Path) -> None:
    told = run(
        "segment_patches.py",
        cases,
        "patches:4",
        "--size",
        "40",
        "--mask-values",
        "255=bright",
        "--cache",
        tmp_path / "cache",
    )
    dice = dict(re.findall(r"^(.+): Dice of bright ([\d.]+) \(", told, re.MULTILINE))
    assert dice.keys() == {"patch tokens", "the mean mask", "positions"}
    assert float(dice["patch tokens"]) > 0.8
    assert float(dice["patch tokens"]) > float(dice["positions"])


def test_compare_backbones(cases: Path, tmp_path: Path) -> None:
    """Where the mask is, one pixel can not tell."""
    told = run("compare_backbones.py", cases, "left", "pixels:8", "pixels:1", "pixels:4", "--cache", tmp_path / "cache")
    assert f"{CASES} slices decoded for 3 stores" in told
    aurocs = dict(re.findall(r"^(pixels-\d): AUROC ([\d.]+) on 12 test samples of 6 patients", told, re.MULTILINE))
    pairs = re.findall(
        r"^(pixels-\d) - (pixels-\d): ([+-][\d.]+) \([+-][\d.]+ to [+-][\d.]+\), p [\d.]+ by ", told, re.MULTILINE
    )
    assert [pair[:2] for pair in pairs] == [
        ("pixels-8", "pixels-1"),
        ("pixels-8", "pixels-4"),
        ("pixels-1", "pixels-4"),
    ]
    assert float(pairs[0][2]) > 0.2
    for a, b, difference in pairs:
        assert abs(float(aurocs[a]) - float(aurocs[b]) - float(difference)) < 0.002

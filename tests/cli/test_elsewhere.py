"""What a cache is for: carried to another machine, without images, key and torch, it answers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from embedcache import FeatureCache
from embedcache.store.labels import read_labels

from .conftest import Cli, World

HEAVY = ("torch", "transformers", "sklearn", "pyarrow", "zarr", "faiss", "pandas", "matplotlib")
RUN = """
import json, sys
sys.argv = ["embedcache", *sys.argv[1:]]
from embedcache_cli.main import main
try:
    main()
except SystemExit as ended:
    print(json.dumps({"code": ended.code, "modules": sorted(m for m in sys.modules if "." not in m)}), file=sys.stderr)
"""


def fresh(*arguments: object) -> tuple[str, set[str]]:
    """Run a command in a process of its own; what it printed, and which packages it imported."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)], capture_output=True, text=True, check=True, env=os.environ
    )
    ended = json.loads(done.stderr.splitlines()[-1])
    assert ended["code"] == 0, done.stderr
    return done.stdout, set(ended["modules"])


@pytest.mark.parametrize("command", [(), ("extract",)])
def test_help_imports_nothing_heavy(command: tuple[str, ...]) -> None:
    shown, modules = fresh(*command, "--help")
    assert "Usage" in shown
    assert modules.isdisjoint(HEAVY)


def test_a_copied_cache_is_probed_without_torch_and_a_rerun_returns_the_same_file(copied: World, cli: Cli) -> None:
    assert not copied.table.exists()
    assert not list(copied.home.iterdir())
    probe = ("probe", "logistic", copied.store, "--task", "bright", "--C", "0.01,1", "--json")
    first, modules = fresh(*probe)
    assert modules.isdisjoint({"torch", "transformers"})
    path = Path(json.loads(first)["path"])
    assert path.parent == copied.cache.resolve() / "results"
    written = path.read_bytes(), path.stat().st_mtime_ns

    again, modules = fresh(*probe)
    assert modules.isdisjoint({"torch", "transformers", "sklearn"})
    assert json.loads(again) == json.loads(first)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == written
    assert cli("ls", copied.cache).code == cli("verify", copied.cache).code == 0


@pytest.fixture
def alone(copied: World, tmp_path: Path) -> Path:
    """A lone store, away from everything."""
    store = tmp_path / "usb-stick" / "features.zarr"
    store.parent.mkdir()
    shutil.copytree(copied.store, store)
    return store


def test_a_lone_store_wants_labels_and_takes_a_copied_label_table(
    alone: Path, copied: World, cli: Cli, tmp_path: Path
) -> None:
    wanting = cli("probe", "knn", alone, "--task", "bright")
    assert wanting.code == 2
    assert "give one with --labels FILE" in wanting.err

    labels = tmp_path / "l.parquet"
    shutil.copy(copied.cache / "cases" / "labels.parquet", labels)
    there = cli("probe", "knn", copied.store, "--task", "bright", "--json").document
    document = cli("probe", "knn", alone, "--task", "bright", "--labels", labels, "--json").document
    assert document["inputs"] == there["inputs"]
    assert document["metrics"] == there["metrics"]
    assert Path(document["path"]).parent == alone.parent.resolve() / "results"


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("by", ["sample", "patient"])
def test_a_lone_store_takes_a_table_of_ones_own(
    alone: Path, copied: World, cli: Cli, tmp_path: Path, form: str, by: str
) -> None:
    labels = read_labels(copied.cache / "cases")
    of_task = labels.task == "bright"
    ids, parts = (labels.sample if by == "sample" else labels.patient)[of_task].tolist(), labels.split[of_task].tolist()
    rows = dict(zip(ids, zip(labels.value[of_task].tolist(), parts, strict=True), strict=True))
    columns = {
        "whose": list(rows),
        "seen": ["yes" if value else "no" for value, _ in rows.values()],
        "split": [part for _, part in rows.values()],
    }
    table = tmp_path / f"mine.{form}"
    (pq.write_table if form == "parquet" else pyarrow.csv.write_csv)(pa.table(columns), table)

    unnamed = cli("probe", "knn", alone, "--labels", table)
    assert unnamed.code == 2
    assert "--join-on" in unnamed.err
    # a task of patients would be measured by patient
    command = ("probe", "knn", alone, "--labels", table, "--join-on", "whose", "--pool-by", "sample", "--json")
    document = cli(*command).document
    assert document["task"]["name"] == "seen"
    assert document["task"]["level"] == by
    there = cli("probe", "knn", copied.store, "--task", "bright", "--json").document
    assert document["inputs"]["split"] == there["inputs"]["split"], "the table's column of parts counts"
    assert [m["value"] for m in document["metrics"]] == [m["value"] for m in there["metrics"]]


def test_a_split_made_for_a_lone_store_needs_no_labels(alone: Path, cli: Cli, tmp_path: Path) -> None:
    made = tmp_path / "split.csv"
    assert cli("splits", "make", alone, "--out", made).code == 0
    assert len(made.read_text().splitlines()) == 1 + len(FeatureCache.open(alone).samples())
    refused = cli("splits", "import", made, alone, "--name", "mine")
    assert refused.code == 2
    assert "give the file to --split" in refused.err

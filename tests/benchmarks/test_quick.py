"""The benchmarks run, and end in the one JSON line that is promised. Their figures are not judged here.

Most take longer than the main suite may: they are `slow`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def last_line(script: str, *arguments: str) -> dict[str, Any]:
    """The JSON line of a run; the exit code says the same as its checks."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments], capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == (0 if all(line["checks"].values()) else 1), done.stderr
    assert line["checks"]
    assert all(isinstance(held, bool) for held in line["checks"].values())
    assert {"cpu", "cores", "load"} <= set(line["machine"])
    return line


def test_startup() -> None:
    line = last_line("startup.py", "--quick")
    assert {"name", "ours", "baseline", "baseline_name", "ratio", "unit", "checks"} <= set(line)
    assert line["ratio"] == pytest.approx(line["baseline"] / line["ours"])
    assert line["checks"]["no_torch_imported"]


@pytest.mark.slow
def test_extract(tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On nilearn's images, which are there wherever the tests run."""
    monkeypatch.setenv("EMBEDCACHE_SHARED_DATA", str(tmp_path))
    line = last_line("extract.py", "--quick", "--backbone", str(tiny), "--images", "12", "--rounds", "1")
    assert {"name", "ours", "baseline", "baseline_name", "ratio", "F", "D", "F_setup", "binds", "checks"} <= set(line)
    assert {"F_plain", "F_screened", "second_run_seconds", "dataloader", "ratio_dataloader"} <= set(line)
    assert line["images"] == 12
    for name in ("tokens_equal", "all_rows_ok", "second_run_decodes_nothing"):
        assert line["checks"][name], name


@pytest.mark.slow
def test_multi() -> None:
    line = last_line("multi.py", "--quick", "--images", "8", "--rounds", "1")
    assert {"name", "ours", "baseline", "baseline_name", "ratio", "ratio_layers", "ratio_backbones", "checks"} <= set(
        line
    )
    assert line["ratio"] == min(line["ratio_layers"], line["ratio_backbones"])
    for name in (
        "every_layer_equals_itself_alone",
        "decoded_once",
        "stores_equal_those_of_single_runs",
        "stores_of_unlike_rows_per_shard_equal_those_of_single_runs",
    ):
        assert line["checks"][name], name


@pytest.mark.slow
def test_read() -> None:
    line = last_line("read.py", "--quick")
    assert {"name", "ours", "baseline", "baseline_name", "ratio", "ratio_pread", "ratio_full", "checks"} <= set(line)
    assert {"ratio_2", "ratio_pread_2", "ratio_full_2", "ratio_pread_fresh", "ratio_full_fresh", "crc_rate"} <= set(
        line
    )
    assert set(line["checks"]) == {"rows_equal", "same_as_zarr", "crc_checked"}
    assert all(line["checks"].values())


@pytest.mark.slow
def test_int8(tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On nilearn's images, which are there wherever the tests run."""
    monkeypatch.setenv("EMBEDCACHE_SHARED_DATA", str(tmp_path))
    line = last_line(
        "int8.py", "--quick", "--backbone", str(tiny), "--layers", "1,2", "--size", "56", "--work", str(tmp_path)
    )
    assert {"name", "ours", "baseline", "baseline_name", "ratio", "error", "error_float16", "layers"} <= set(line)
    assert all(line["checks"].values())
    # 16 patches of 32 features: a chunk of 1,024 bytes as float16, two of 512 and 32 as int8; each with its 20 of crc and index
    assert line["ratio"] == pytest.approx((1024 + 20) / (512 + 20 + 32 + 20), rel=0.01)
    assert line["error_float16"]["greatest"] < line["error"]["median"] < 0.01


@pytest.mark.slow
def test_fuzz_images() -> None:
    line = last_line("fuzz_images.py", "--quick")
    assert {"name", "tried", "held", "ratio", "outcomes", "by_kind", "foreign", "faults", "peak_MiB", "checks"} <= set(
        line
    )
    assert line["faults"] == []
    assert (line["tried"], line["held"], line["ratio"]) == (100, 100, 1)
    assert {"dcm", "nii", "nii.gz", "png", "mat", "npz"} <= set(line["formats"])


@pytest.mark.slow
def test_leaks(shared_data: Path) -> None:
    line = last_line("leaks.py", "--quick", "--root", str(shared_data / "nih_128"), "--n", "20")
    assert {"name", "ours", "baseline", "ratio", "found", "false_share", "by_kind", "by_vectors_alone"} <= set(line)
    assert line["planted"] == 80
    assert set(line["checks"]) == {"at_least_95%_found", "at_most_1%_false"}
    assert all(line["checks"].values())


@pytest.mark.slow
def test_decode() -> None:
    line = last_line("decode.py", "--quick", "--rounds", "2")
    assert {"name", "ours", "baseline", "ratio", "compared", "kinds", "checks"} <= set(line)
    assert set(line["kinds"]) == {"png_1024", "ct_512_raw", "ct_512_jpeg_2000", "jpeg_lossless", "nifti_gz"}
    assert all(held for name, held in line["checks"].items() if name.endswith("_equal"))
    assert line["ratio"] == min(kind["ratio"] for kind in line["kinds"].values())


@pytest.mark.slow
def test_flip() -> None:
    line = last_line("flip.py", "--quick")
    assert {"name", "tried", "found", "held", "ratio", "by_type", "faults", "checks"} <= set(line)
    assert line["faults"] == []
    assert (line["tried"], line["found"], line["held"], line["ratio"]) == (40, 40, 40, 1)
    assert set(line["checks"]) == {"all_found", "all_repaired", "as_many_as_asked"}


@pytest.mark.slow
def test_fuzz_store() -> None:
    line = last_line("fuzz_store.py", "--quick")
    assert {"name", "tried", "held", "ratio", "outcomes", "by_kind", "faults", "checks"} <= set(line)
    assert line["faults"] == []
    assert (line["tried"], line["held"], line["ratio"]) == (100, 100, 1)
    assert set(line["checks"]) == {"no_hang", "no_escape", "all_refused_clearly"}


@pytest.mark.slow
def test_scale_plan() -> None:
    line = last_line("scale_plan.py", "--quick")
    assert {"name", "ours", "baseline", "ratio", "peak_gib", "open_s", "scan_s", "rows", "checks"} <= set(line)
    assert line["rows"] == 100_000
    assert line["ratio"] == pytest.approx(60 / line["ours"])
    for name in ("plan_correct", "pending_correct"):
        assert line["checks"][name], name


@pytest.mark.slow
def test_scale_leaks() -> None:
    line = last_line("scale_leaks.py", "--quick")
    assert {"name", "ours", "baseline", "baseline_name", "ratio", "peak_gib", "candidates", "checks"} <= set(line)
    assert line["rows"] == 8_000
    assert line["checks"]["at_least_95%_found"]
    assert 0 < line["reported"] <= line["candidates"]


@pytest.mark.slow
def test_extract_with_the_trained_backbone(trained: Path) -> None:
    line = last_line("extract.py", "--quick")
    assert line["F_setup"]["attention"] in ("sdpa", "eager")
    assert line["checks"]["tokens_equal"]


@pytest.mark.slow
def test_twenty_kills() -> None:
    """The main suite runs the same engine, in tests/extraction."""
    line = last_line("kill.py", "--quick")
    assert {"name", "tried", "held", "ratio", "halfway", "faults", "checks"} <= set(line)
    assert line["tried"] == line["held"] == 20
    assert line["ratio"] == 1
    assert line["checks"]["half_landed_halfway"]

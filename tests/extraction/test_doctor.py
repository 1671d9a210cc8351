"""`doctor`: packages, torch and its neighbours, a cache's file system, named backbones, what to carry, a device."""

import math
import shutil
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from embedcache.errors import InputError
from embedcache.extraction import doctor
from embedcache.extraction.bundle import make_bundle
from embedcache.extraction.device_check import Agreement, BackboneOnDevice, DeviceReport, check_device
from embedcache.store.trial import Trial


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether torch imports is tried elsewhere, and takes seconds."""
    monkeypatch.setattr(doctor, "installed", lambda name: "absent")


@pytest.mark.usefixtures("without_torch")
def test_without_a_cache_no_file_system_is_tried() -> None:
    report = doctor.doctor()
    assert report.file_system == ()
    assert report.free is None
    assert (report.backbones, report.bundle, report.device) == ((), None, None)


@pytest.mark.usefixtures("without_torch")
def test_a_sound_cache(tmp_path: Path) -> None:
    report = doctor.doctor(tmp_path)
    assert len(report.file_system) == 6
    assert all(t.ok for t in report.file_system)
    assert report.free is not None
    assert report.problems == doctor.doctor().problems


@pytest.mark.usefixtures("without_torch")
def test_a_failure_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Trial("lock", False, "run one command at a time", "two processes hold one lock")
    monkeypatch.setattr(doctor, "try_file_system", lambda folder: ((failed,), 10))
    report = doctor.doctor(tmp_path)
    assert not report.healthy
    assert report.problems[-1] == "lock, at the cache: run one command at a time (two processes hold one lock)"


@pytest.mark.usefixtures("without_torch")
def test_an_absent_cache(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        doctor.doctor(tmp_path / "absent")


# --- torch and its neighbours ---------------------------------------------------------------------

SOUND = {"devices": [], "cuda": None, "mended": False, "models": ""}
VERSIONS = {"torch": "2.14.1", "torchvision": "0.28.0", "transformers": "5.24.0"}


def looked(monkeypatch: pytest.MonkeyPatch, said: dict[str, Any] | None) -> tuple[list[str], list[str], list[str]]:
    monkeypatch.setattr(doctor, "ask_torch", lambda: said)
    return doctor.look_at_torch(dict(VERSIONS))


def test_a_sound_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked(monkeypatch, {**SOUND, "devices": ["cuda:0 X, 80 GiB"]}) == (["cuda:0 X, 80 GiB"], [], [])


def test_a_mended_pair_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    _, problems, warnings = looked(monkeypatch, {**SOUND, "mended": True})
    assert problems == []
    (line,) = warnings
    assert "torchvision 0.28.0 is not the version for torch 2.14.1, so its compiled part does not load: " in line
    assert "needs torchvision 0.29 in the same build (CPU or CUDA) as torch 2.14.1" in line


def test_the_right_torchvision_in_another_build_is_not_called_another_version() -> None:
    line = doctor.beside_torch("0.28.0", "2.13.0+cpu")
    assert (
        "torchvision 0.28.0 is the version for torch 2.13.0+cpu, in a build whose compiled part does not load" in line
    )
    assert "nothing is to be done for it" in line
    assert "not the version" not in line
    assert "is not the version" in doctor.beside_torch("0.2.0", "2.13.0")


def test_models_that_do_not_import_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    _, problems, _ = looked(monkeypatch, {**SOUND, "models": "operator torchvision::nms\ndoes not exist"})
    (line,) = problems
    assert "\n" not in line
    assert "(operator torchvision::nms does not exist): install transformers anew, and torchvision 0.29" in line


def test_a_torch_that_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked(monkeypatch, None)[1] == ["torch does not import: install torch anew, in the build for this machine"]


def test_the_pair_of_this_installation() -> None:
    """Whatever is installed here, torch answers, and embedcache runs with it."""
    said = doctor.ask_torch()
    assert said is not None
    assert said["models"] == ""
    torch, torchvision = doctor.installed("torch"), doctor.installed("torchvision")
    if torchvision != "absent" and "+cpu" in torch and "+cpu" not in torchvision:
        assert said["mended"]


def test_faiss_none_or_one() -> None:
    both = {"faiss-cpu": "1.15", "faiss-gpu": "1.15"}
    (line,) = doctor.look_at_faiss(both)
    assert "pip uninstall both, then install one of them" in line
    assert doctor.look_at_faiss({"faiss-cpu": "1.15", "faiss-gpu": "absent"}) == []


# --- backbones, and what to carry -----------------------------------------------------------------


@pytest.mark.usefixtures("without_torch")
def test_named_backbones_and_what_to_carry(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "mine", ignore=shutil.ignore_patterns(".*")))
    report = doctor.doctor(backbones=(str(folder), "facebook/dinov2-base"), bundle=True)
    assert [b.loads for b in report.backbones] == [True, False]
    assert any(line.startswith("facebook/dinov2-base can not load here: ") for line in report.problems)
    assert report.bundle is not None
    here, absent = report.bundle.models
    assert here.bytes == sum(f.stat().st_size for f in folder.iterdir() if f.name[0] != ".")
    assert absent.files == ()
    assert "weights pull facebook/dinov2-base" in absent.todo


def test_the_wheels_are_those_of_this_installation() -> None:
    bundle = make_bundle(())
    wheels = {wheel.name: wheel.version for wheel in bundle.wheels}
    for name in (
        "numpy",
        "zarr",
        "torch",
        "transformers",
        "huggingface-hub",
        "filelock",
    ):  # the last two by way of others
        assert wheels[name] == distribution(name).version
    assert "pytest" not in wheels, "what only develops embedcache is not carried"
    assert "embedcache" not in wheels
    assert "cpu" in bundle.extras
    assert all(wheels[name] == "" for name in bundle.absent)


# --- a device -------------------------------------------------------------------------------------


@pytest.mark.slow  # the command's own test, in tests/cli, is in the main suite
def test_the_cpu_against_itself_where_the_gpu_is_not_there(tiny: Path, vit3d: Path, empty_home: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU; tests/gpu tries it")
    report = check_device("cuda:0", (str(tiny), str(vit3d)))
    assert report.device == "cpu"
    (line,) = report.problems
    assert "no CUDA device is visible" in line
    assert "The CPU was tried instead." in line
    assert set(report.matmul) == {"float32", "bfloat16"}
    assert min(report.matmul.values()) > 0
    random, _, volumes = report.backbones
    assert [b.name for b in report.backbones] == ["a tiny random ViT", str(tiny), str(vit3d)]
    assert [b.images.split(" of ")[0] for b in report.backbones] == [
        *["16 synthetic PNG"] * 2,
        "4 synthetic NIfTI volumes",
    ]
    assert all(b.ok for b in report.backbones)
    assert {a.array: a.tokens for a in volumes.agreement} == {
        "layer_3/cls_token": 4,
        "layer_3/patch_mean": 4,
        "layer_3/patch_tokens": 4 * 4 * 3 * 4,
    }
    for b in report.backbones:
        assert {a.array.rpartition("/")[2] for a in b.agreement} == {"cls_token", "patch_mean", "patch_tokens"}
        assert all(a.ok and a.tokens >= 4 for a in b.agreement)
        assert b.binds in ("decode", "forward", "write")
        assert b.stages is not None
        assert min(b.stages.values()) > 0
        assert [s.compute_dtype for s in b.speeds] == ["float32", "bfloat16"]
        assert all(s.share > 0 and str(s.batch) in s.tried for s in b.speeds)
    # 4 blocks of 192: each token meets 12 * 192^2 weights, and 257 others in the attention
    blocks = 4 * (12 * 192**2 * 257 + 2 * 257**2 * 192) * 2
    assert random.flops == pytest.approx(blocks + 2 * 256 * 3 * 14**2 * 192, rel=0.01)
    assert list(empty_home.iterdir()) == [], "the trial's images enter no index of the user's"


def test_a_device_that_is_none() -> None:
    with pytest.raises(InputError, match="device must be cpu, cuda or cuda:N"):
        check_device("tpu")


def test_a_difference_beyond_the_bound_is_a_problem() -> None:
    far = Agreement("layer_12/cls_token", 16, 2e-3, 1e-5)
    backbone = BackboneOnDevice("x", "", (far, replace(far, worst=1e-6)))
    report = DeviceReport("cuda:0", "cuda:0", "X", "2.13", "", "the CPU", {}, (backbone,))
    (line,) = report.problems
    assert "layer_12/cls_token differs from the CPU by 2.0e-03, more than 1e-05; do not extract here" in line
    assert not backbone.ok
    assert not replace(far, worst=math.nan).ok

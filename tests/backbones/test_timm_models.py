"""Describing a model of timm: what its configuration says, what timm says once, and what is refused."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from embedcache.backbones import describe_backbone, load_backbone, timm_models
from embedcache.backbones.weights import find_weights
from embedcache.errors import InputError, MissingPackageError
from embedcache.images.geometry import place
from embedcache.testing.tiny_timm import make_tiny_timm

timm = pytest.importorskip("timm", reason="pip install --no-deps timm torchvision")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_tiny_timm("vit", tmp_path_factory.mktemp("timm") / "vit"))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "vit"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's cache directory is: nothing is remembered from other tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def edited(folder: Path, nested: dict[str, Any] | None = None, **changes: Any) -> str:
    """The folder with other entries in its configuration, and in `pretrained_cfg`."""
    document = json.loads((folder / "config.json").read_text())
    document["pretrained_cfg"].update(nested or {})
    document.update(changes)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
    return str(folder)


# --- no torch, no timm ------------------------------------------------------------------------------


def test_describing_imports_neither_torch_nor_timm(folder: Path) -> None:
    """Also the first time, when timm must be asked."""
    code = (
        "import sys; from embedcache.backbones import describe_backbone\n"
        f"print(describe_backbone({str(folder)!r}).layers, sorted({{'torch', 'timm', 'torchvision'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3 []"


def test_what_timm_says_is_remembered(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = describe_backbone(str(folder))
    (note,) = (cache / "embedcache" / "timm").iterdir()

    def refused(request: object) -> None:
        raise AssertionError("timm was asked again")

    with monkeypatch.context() as patch:
        patch.setattr(timm_models, "_ask", refused)
        assert describe_backbone(str(folder)) == first
        note.write_text("{")  # a damaged note is no truth
        with pytest.raises(AssertionError, match="asked again"):
            describe_backbone(str(folder))
    assert describe_backbone(str(folder)) == first
    with monkeypatch.context() as patch:
        patch.setattr(timm_models, "version", lambda _: "9.9.9")
        patch.setattr(timm_models, "_ask", refused)
        with pytest.raises(AssertionError, match="asked again"):  # another version may build another model
            describe_backbone(str(folder))


def test_a_cache_that_can_not_be_written_is_no_obstacle(folder: Path, cache: Path) -> None:
    cache.write_text("a file where a folder should be")
    assert describe_backbone(str(folder)).layers == 3


def test_without_timm_one_line_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = timm_models.importlib.util.find_spec
    monkeypatch.setattr(
        timm_models.importlib.util, "find_spec", lambda name: None if name == "timm" else find_spec(name)
    )
    with pytest.raises(
        MissingPackageError, match=r"pip install 'embedcache\[timm\]' .*--no-deps timm torchvision"
    ) as e:
        describe_backbone(str(folder))
    assert "\n" not in str(e.value)


def test_a_child_that_dies_is_one_line(folder: Path) -> None:
    """Of a timm that can not be imported, say."""
    code = (
        "import os; from embedcache.backbones import describe_backbone\n"
        "from embedcache.errors import InputError\n"
        "import embedcache.backbones.timm_models as m\n"
        "m.sys.executable = '/bin/false'\n"
        f"try: describe_backbone({str(folder)!r})\n"
        "except InputError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("timm could not be asked about vit_tiny_patch16_224:")
    assert len(done.stdout.splitlines()) == 1


# --- the configuration ------------------------------------------------------------------------------


def test_the_checkpoints_own_numbers(folder: Path) -> None:
    info = describe_backbone(
        edited(
            folder,
            {
                "mean": [0.1, 0.2, 0.3],
                "std": [0.4, 0.5, 0.6],
                "license": "cc-by-nc-4.0",
                "paper_name": "A paper",
                "paper_ids": ["arXiv:1", "arXiv:2"],
            },
        )
    )
    assert (info.mean, info.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (info.licence, info.citation) == ("CC-BY-NC-4.0", "A paper, arXiv:1, arXiv:2")
    assert (info.size, info.grid((32, 72))) == ((48, 48), (4, 9))


def test_a_hub_name_of_timm_lies_in_timms_organisation(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Carried weights stand in for the hub, which tests do not reach."""
    from embedcache.backbones.carried import Manifest, WeightFile, write_manifest
    from embedcache.backbones.digest import read_digest

    there = Path(shutil.copytree(folder, tmp_path / "carried" / "timm--tiny.test"))
    files = tuple(
        WeightFile(f.name, f.stat().st_size, read_digest(f))
        for f in sorted(there.iterdir())
        if not f.name.startswith(".")
    )
    write_manifest(there, Manifest("timm/tiny.test", "c0ffee", files))
    info = describe_backbone("timm:tiny.test", weights=str(tmp_path / "carried"))
    assert (info.name, info.model.source, info.model.revision) == ("timm:tiny.test", "timm/tiny.test", "c0ffee")
    assert info.store_name == "timm--tiny.test"
    assert info.model == describe_backbone("timm/tiny.test", weights=str(tmp_path / "carried")).model


def test_an_older_flat_configuration(folder: Path) -> None:
    document = json.loads((folder / "config.json").read_text())
    nested = describe_backbone(str(folder))
    flat = {
        **document.pop("pretrained_cfg"),
        "architecture": document["architecture"],
        "model_args": document["model_args"],
    }
    (folder / "config.json").write_text(json.dumps(flat))
    info = describe_backbone(str(folder))
    assert (info.stages, info.size, info.mean, info.kinds) == (nested.stages, nested.size, nested.mean, nested.kinds)


def test_without_a_pretrained_cfg_timms_default_counts(folder: Path) -> None:
    info = describe_backbone(edited(folder, pretrained_cfg=None))
    assert (info.size, info.mean) == ((48, 48), tuple(timm.get_pretrained_cfg("vit_tiny_patch16_224").mean))
    assert load_backbone(info).info == info


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"architecture": "vit_tiny_patch61_224"},
            r"has no architecture vit_tiny_patch61_224; did you mean vit_tiny_patch16",
        ),
        ({"architecture": "hf-hub:someone/else"}, "must name an architecture of timm. Got 'hf-hub:someone/else'"),
        ({"architecture": 7}, "must name an architecture of timm"),
        ({"model_args": {"checkpoint_path": "other.bin"}}, "model_args of config.json must not have checkpoint_path"),
        (
            {"model_args": {"no_such_thing": 1}},
            "can not build vit_tiny_patch16_224 from its config.json: .*no_such_thing",
        ),
        ({"model_args": {"in_chans": 1}}, "takes 1 channels; only 3 are supported"),
        ({"model_args": [1]}, "must be JSON objects"),
        (
            {"architecture": "inception_v3", "model_args": {}, "pretrained_cfg": {"input_size": [3, 299, 299]}},
            "inception_v3 is not supported: .* whole number of pixels",
        ),
        ({"architecture": "coat_tiny", "model_args": {}}, "coat_tiny is not supported"),
    ],
)
def test_what_can_not_be_supported_is_one_line(folder: Path, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line) as e:
        describe_backbone(edited(folder, **changes))
    assert "\n" not in str(e.value)


def test_weights_that_do_not_fill_the_architecture_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if k != "blocks.1.mlp.fc1.weight"}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"do not fit its configuration \(.*blocks\.1\.mlp\.fc1\.weight") as e:
        load_backbone(describe_backbone(str(folder)))
    assert "\n" not in str(e.value)


def test_weights_of_another_width_are_refused(folder: Path) -> None:
    info = describe_backbone(
        edited(folder, model_args={**json.loads((folder / "config.json").read_text())["model_args"], "depth": 4})
    )
    with pytest.raises(InputError, match=r"do not fit its configuration"):
        load_backbone(info)


# --- the processor ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(300, 200), (171, 333), (64, 64), (101, 55), (103, 57)])
@pytest.mark.parametrize("crop", [{"crop_pct": 0.9}, {"crop_pct": 0.875}, {"crop_pct": 1.0, "crop_mode": "squash"}])
def test_the_processor_places_a_picture_as_timms_transform_does(
    folder: Path, shape: tuple[int, int], crop: dict[str, Any]
) -> None:
    """A picture of its own coordinates: what the centre of the crop shows is where `place` says that it is."""
    info = describe_backbone(edited(folder, crop))
    rows, columns = np.meshgrid(np.linspace(0, 255, shape[0]), np.linspace(0, 255, shape[1]), indexing="ij")
    picture = Image.fromarray(np.stack([rows, columns, rows], axis=-1).round().astype(np.uint8))
    config = {**crop, "input_size": (3, 48, 48), "interpolation": "bicubic", "mean": (0.0,) * 3, "std": (1.0,) * 3}
    seen = timm.data.create_transform(**config)(picture).numpy() * 255
    placement = place(*shape, info.size, "processor", info.processor)
    y, x = placement.to_source(np.arange(48) + 0.5, np.arange(48) + 0.5)
    inner = slice(4, -4)  # at the borders the resize sees less of the ramp
    pixel = 255 / (min(shape) - 1)
    expected = (y - 0.5) * 255 / (shape[0] - 1), (x - 0.5) * 255 / (shape[1] - 1)
    assert np.abs(seen[0, inner, 24] - expected[0][inner]).max() < max(1.0, 0.3 * pixel * min(shape) / 48)
    assert np.abs(seen[1, 24, inner] - expected[1][inner]).max() < max(1.0, 0.3 * pixel * min(shape) / 48)


def test_a_processor_that_pads_is_not_offered(folder: Path) -> None:
    assert describe_backbone(edited(folder, {"crop_mode": "border"})).processor == {}


def test_the_numbers_of_the_processor(folder: Path) -> None:
    processor = describe_backbone(edited(folder, {"crop_pct": 0.9, "interpolation": "bilinear"})).processor
    assert processor["size"] == {"shortest_edge": math.floor(48 / 0.9)}
    assert (processor["resample"], processor["crop_size"]) == (2, {"height": 48, "width": 48})


def test_the_digest_covers_the_configuration(folder: Path) -> None:
    before = find_weights(str(folder)).digest
    edited(folder, {"mean": [0.1, 0.2, 0.3]})
    assert find_weights(str(folder)).digest != before

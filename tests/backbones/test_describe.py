import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from embedcache.backbones import describe_backbone, image_recipe, list_backbones, load_backbone
from embedcache.backbones.description import processor_geometry
from embedcache.backbones.dinov2 import describe
from embedcache.backbones.weights import find_weights
from embedcache.errors import InputError, MissingPackageError, UnknownNameError
from embedcache.types import Window

RANGE = Window("range")


def edited(folder: Path, target: Path, file: str = "config.json", **changes: object) -> str:
    """A copy of a model's folder with other entries in one of its JSON files."""
    shutil.copytree(folder, target)
    document = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps({**document, **changes}))
    return str(target)


def test_describing_imports_no_torch(tiny: Path) -> None:
    """A second `extract` of a finished store describes its backbone and must stay light."""
    code = (
        "import sys; from embedcache.backbones import describe_backbone, image_recipe, list_backbones\n"
        "from embedcache.types import Window\n"
        f"list_backbones(); image_recipe(describe_backbone({str(tiny)!r}), Window('range'))\n"
        "print(sorted({'torch', 'transformers', 'huggingface_hub', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_numbers_of_a_plain_model(tiny: Path) -> None:
    info = describe_backbone(str(tiny))
    assert (info.family, info.hidden_size, info.layers, info.patch_size, info.registers) == ("dinov2", 32, 2, 14, 0)
    assert info.size == (56, 56)
    assert info.grid((28, 70)) == (2, 5)
    assert info.kinds == ("cls_token", "patch_mean", "patch_tokens")
    assert info.store_name == info.model.source == "tiny"
    assert info.model.position_interpolation == "transformers-bicubic"
    assert (info.model.compute_dtype, info.model.attention, info.model.revision) == ("float32", "sdpa", "")


def test_the_numbers_of_a_model_with_registers(tiny_registers: Path) -> None:
    info = describe_backbone(str(tiny_registers), compute_dtype="bfloat16", attention="eager")
    assert (info.family, info.registers) == ("dinov2_with_registers", 3)
    assert (info.model.compute_dtype, info.model.attention) == ("bfloat16", "eager")
    assert info.model.position_interpolation == "transformers-bicubic-antialias"


def test_two_models_have_two_digests(tiny: Path, tiny_registers: Path) -> None:
    assert (
        describe_backbone(str(tiny)).model.weights_digest != describe_backbone(str(tiny_registers)).model.weights_digest
    )


def test_without_a_processor_the_published_numbers_hold(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "bare")
    (folder / "preprocessor_config.json").unlink()
    info = describe_backbone(str(folder))
    assert (info.size, info.mean, info.std) == ((224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert info.processor["size"] == {"shortest_edge": 256}


def test_the_processors_own_numbers_win(tiny: Path, tmp_path: Path) -> None:
    changes = {"crop_size": 42, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "size": 48}
    info = describe_backbone(edited(tiny, tmp_path / "other", "preprocessor_config.json", **changes))
    assert (info.size, info.mean, info.std) == ((42, 42), (0.5,) * 3, (0.25,) * 3)
    assert info.processor["size"] == {"shortest_edge": 48}


@pytest.mark.parametrize(
    ("processor", "size", "crop"),
    [
        ({"do_center_crop": False, "size": {"height": 224, "width": 448}}, {"height": 224, "width": 448}, (224, 448)),
        ({"do_center_crop": False, "size": {"shortest_edge": 518}}, {"shortest_edge": 518}, (518, 518)),
        ({"crop_size": {"height": 14, "width": 28}}, {"shortest_edge": 256}, (14, 28)),
    ],
)
def test_the_input_size_is_what_leaves_the_processor(
    processor: dict[str, object], size: dict[str, int], crop: tuple[int, int]
) -> None:
    geometry = processor_geometry(processor)
    assert geometry["size"] == size
    assert (geometry["crop_size"]["height"], geometry["crop_size"]["width"]) == crop


def test_only_published_weights_carry_a_licence(tiny: Path) -> None:
    weights = find_weights(str(tiny))
    local = describe(weights, compute_dtype="float32", attention="sdpa")
    hub = describe(replace(weights, source="facebook/dinov2-small"), compute_dtype="float32", attention="sdpa")
    assert (local.licence, hub.licence) == ("", "Apache-2.0")
    assert local.citation.startswith("weights of an unstated origin")
    assert hub.citation.startswith("Oquab et al.")
    assert hub.store_name == "facebook--dinov2-small"


def test_an_unknown_family_names_the_nearest(tiny: Path, tmp_path: Path) -> None:
    name = edited(tiny, tmp_path / "odd", model_type="dinov3")
    with pytest.raises(UnknownNameError, match=r"unknown backbone family 'dinov3'; did you mean 'dinov2'\?"):
        describe_backbone(name)
    assert {"dinov2", "dinov2_with_registers"} <= set(list_backbones())


def test_settings_are_checked_by_name(tiny: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"'float23'; did you mean 'float32'\?"):
        describe_backbone(str(tiny), compute_dtype="float23")
    with pytest.raises(UnknownNameError, match="unknown attention implementation 'flash'"):
        describe_backbone(str(tiny), attention="flash")


@pytest.mark.parametrize(
    ("changes", "line"),
    [({"num_channels": 1}, "takes 1 channels"), ({"patch_size": [14, 16]}, "only square ones are supported")],
)
def test_architectures_that_are_not_supported(
    tiny: Path, tmp_path: Path, changes: dict[str, object], line: str
) -> None:
    with pytest.raises(InputError, match=line):
        describe_backbone(edited(tiny, tmp_path / "odd", **changes))


def test_a_missing_package_names_the_extra(tiny: Path) -> None:
    info = replace(describe_backbone(str(tiny)), loader="no_such_package_here:load")
    with pytest.raises(MissingPackageError, match=r"needs no_such_package_here: pip install 'embedcache\[cpu\]'"):
        load_backbone(info)


# --- the image recipe -------------------------------------------------------------------------------


def test_the_default_recipe_squashes_to_the_processors_size(tiny: Path) -> None:
    info = describe_backbone(str(tiny))
    image = image_recipe(info, RANGE)
    assert (image.size, image.fit, image.mean, image.std, dict(image.processor)) == (
        (56, 56),
        "squash",
        info.mean,
        info.std,
        {},
    )
    assert image_recipe(info, RANGE, "pad", (28, 84)).size == (28, 84)


def test_a_size_that_patches_do_not_divide(tiny: Path) -> None:
    with pytest.raises(InputError, match=r"100x56 is no multiple of .*patch size 14; use 98\."):
        image_recipe(describe_backbone(str(tiny)), RANGE, size=(100, 56))


def test_the_processors_fit_is_its_own_size_and_bicubic(tiny: Path) -> None:
    info = describe_backbone(str(tiny))
    assert image_recipe(info, RANGE, "processor").processor == info.processor
    with pytest.raises(InputError, match=r"own 56x56 crop\. Got size 28x28"):
        image_recipe(info, RANGE, "processor", (28, 28))
    bilinear = replace(info, processor={**info.processor, "resample": 2})
    with pytest.raises(InputError, match="does not resize bicubically"):
        image_recipe(bilinear, RANGE, "processor")
    assert image_recipe(bilinear, RANGE).fit == "squash"

"""What `check_backbone` finds in encoders of whole volumes that are broken on purpose."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedcache.backbones import describe_backbone, load_backbone
from embedcache.backbones.monai_encoder import MonaiEncoder
from embedcache.testing import backbone_contract as contract
from embedcache.testing import backbone_subject, check_backbone, contract_of_store, contract_of_tokens
from embedcache.testing.backbone_subject import Subject
from embedcache.testing.contract_of_places import of_places, places_on
from embedcache.testing.contract_of_store import of_store
from embedcache.testing.contract_of_tokens import of_odd_sizes, of_shapes
from embedcache.types import ArraySpec

from .altered import Alter, Altered, breaches, patches

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def loaded(folder: Path) -> Any:
    return load_backbone(describe_backbone(str(folder)))


def of_patches(alter: Callable[[torch.Tensor], torch.Tensor]) -> Alter:
    return lambda path, values, _: alter(values) if patches(path) else values


def test_whole_encoders_break_nothing(vit3d: Path) -> None:
    assert breaches(vit3d) == []


# --- where patches lie ------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [("z", "y"), ("z", "x"), ("y", "x")])
def test_two_axes_exchanged(vit3d: Path, first: str, second: str) -> None:
    """In the shape that was told, as a wrong reshape of a sequence of tokens leaves it."""
    axes = 1 + "zyx".index(first), 1 + "zyx".index(second)
    subject = Subject(Altered(loaded(vit3d), of_patches(lambda v: v.transpose(*axes).reshape(v.shape))), CPU)
    found = list(of_places(subject))
    for layer in (1, 2, 3):
        assert any(line.startswith(f"layer_{layer}/patch_tokens: of 48 cubes ") for line in found)
        assert any(line.startswith(f"layer_{layer}/patch_tokens: cubes that move by one patch") for line in found)


def test_two_axes_exchanged_where_they_are_only_two_patches_long(swin3d: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cube is then more than one patch off: that it does not move along with its patch shows it."""
    monkeypatch.setattr(backbone_subject, "GRIDS", {3: (2, 1, 2)})
    swin = loaded(swin3d)
    assert list(of_places(Subject(swin, CPU))) == []
    found = list(of_places(Subject(Altered(swin, of_patches(lambda v: v.transpose(1, 3))), CPU)))
    assert {line.partition(": ")[2].rpartition(" show ")[0] for line in found} == {
        "cubes that move by one patch along z",
        "cubes that move by one patch along x",
    }


@pytest.mark.parametrize(("axis", "name"), [(1, "z"), (2, "y"), (3, "x")])
def test_an_axis_that_runs_backwards(vit3d: Path, axis: int, name: str) -> None:
    found = list(of_places(Subject(Altered(loaded(vit3d), of_patches(lambda v: v.flip(axis))), CPU)))
    turned = [line for line in found if f"cubes that move by one patch along {name} show -1.0 patches further" in line]
    assert len(turned) == 3
    assert not any(f"along {other} show" in line for line in found for other in "zyx".replace(name, ""))


def test_the_models_own_axes_forgotten(vit3d: Path) -> None:
    """As an orientation that is not that of the model's training: its volumes are turned, and not its tokens."""
    whole = loaded(vit3d)
    assert isinstance(whole, MonaiEncoder)
    turned = replace(whole, outputs=lambda m, x, g: [(cls, maps.flip(2)) for cls, maps in whole.outputs(m, x, g)])
    found = list(of_places(Subject(turned, CPU)))
    assert any("cubes that move by one patch along x show -1.0" in line for line in found)


@pytest.mark.parametrize(("axis", "name"), [(1, "z"), (2, "y"), (3, "x")])
def test_a_map_that_is_one_patch_off(vit3d: Path, axis: int, name: str) -> None:
    def shifted(v: torch.Tensor) -> torch.Tensor:
        return torch.cat([v.narrow(axis, 1, v.shape[axis] - 1), v.narrow(axis, v.shape[axis] - 1, 1)], dim=axis)

    found = list(of_places(Subject(Altered(loaded(vit3d), of_patches(shifted)), CPU)))
    along = ", ".join(f"{'-1.0' if one == name else '+0.0'} patches along {one}" for one in "zyx")
    assert f"layer_1/patch_tokens: cubes show {along} from where they are" in found


def test_places_go_from_end_to_end_and_each_axis_has_its_own_course() -> None:
    assert places_on((2, 3, 4)) == [(z, y, x) for z in range(2) for y in range(3) for x in range(4)]
    far = np.array(places_on((14, 9, 30)))
    assert len(far) == 4**3
    assert far.min(axis=0).tolist() == [0, 0, 0]
    assert far.max(axis=0).tolist() == [13, 8, 29]
    np.testing.assert_allclose(np.corrcoef(far.T), np.eye(3), atol=1e-12)


# --- what tokens are --------------------------------------------------------------------------------


def test_a_volume_that_sees_the_others_of_its_batch(vit3d: Path) -> None:
    found = breaches(vit3d, lambda path, values, _: values + 1e-3 * values.mean(dim=0))
    assert "layer_2/patch_tokens differs when with other images in the batch" in found
    assert any("of an image alone is" in line for line in found)


def test_a_volume_that_is_standardised_by_itself_is_no_number_where_it_is_constant(vit3d: Path) -> None:
    found = breaches(vit3d, lambda path, values, x: values / x.std(dim=(1, 2, 3, 4)).view(-1, *[1] * (values.ndim - 1)))
    assert "layer_1/cls_token of a constant image of 1.0 is not finite" in found


def test_a_layer_that_is_not_finite(vit3d: Path) -> None:
    found = breaches(vit3d, lambda path, values, _: values / 0 if path == "layer_2/patch_mean" else values)
    assert "layer_2/patch_mean at 32x24x16 is not finite" in found
    assert not any("layer_1/patch_mean at" in line for line in found)


def test_a_nan_that_hides(vit3d: Path) -> None:
    found = breaches(vit3d, lambda path, values, _: torch.nan_to_num(values))
    assert "layer_3/patch_tokens of an image of NaN is stored as if it were tokens" in found


def test_tokens_of_another_shape_or_type(vit3d: Path) -> None:
    wrong = Subject(Altered(loaded(vit3d), of_patches(lambda v: v.flatten(1, 3))), CPU)
    assert (
        "layer_1/patch_tokens at 32x24x16 is torch.float32 of shape (2, 48, 24), and float32 (2, 4, 3, 4, 24) was told"
        in list(of_shapes(wrong))
    )
    turned = Subject(Altered(loaded(vit3d), of_patches(lambda v: v.transpose(1, 2))), CPU)
    assert any("shape (2, 3, 4, 4, 24), and float32 (2, 4, 3, 4, 24)" in line for line in of_shapes(turned))
    halved = Subject(Altered(loaded(vit3d), lambda path, values, _: values.half()), CPU)
    assert any("layer_3/cls_token at 32x24x16 is torch.float16" in line for line in of_shapes(halved))


def test_layers_that_are_one(vit3d: Path) -> None:
    found = breaches(vit3d, lambda path, values, x: torch.ones_like(values) * x.mean())
    assert "layer_1/patch_tokens and layer_2/patch_tokens are the same" in found


def test_tokens_drawn_anew_each_time(vit3d: Path) -> None:
    found = breaches(vit3d, lambda path, values, _: values + 1e-6 * torch.randn_like(values))
    assert "layer_1/cls_token differs when computed twice, after another size" in found
    assert "layer_1/cls_token differs when asked for without the layers other than 1" in found


def test_a_load_that_draws_weights(vit3d: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Altered(loaded(vit3d), lambda path, values, _: 2 * values)
    monkeypatch.setattr(contract_of_tokens, "load_backbone", lambda *_: other)
    assert any("differs when loaded twice" in line for line in breaches(vit3d))


# --- what it tells and takes ------------------------------------------------------------------------


def test_what_is_told_and_is_not_so(vit3d: Path) -> None:
    def told(**changes: Any) -> list[str]:
        whole = loaded(vit3d)
        return list(contract._of_description(Subject(replace(whole, info=replace(whole.info, **changes)), CPU)))

    assert told() == []
    assert any("mean and std are one number each" in line for line in told(mean=(0.0,) * 3, std=(1.0,) * 3))
    assert any("does not say what norm" in line for line in told(norm=""))
    assert any("its own input does not fit" in line for line in told(size=(24, 18)))


def test_a_size_that_ends_in_another_error(vit3d: Path) -> None:
    class Careless(Altered):
        def tokens(self, x: torch.Tensor, arrays: Sequence[ArraySpec]) -> dict[str, torch.Tensor]:
            if x.shape[2] == 64:  # whole patches, and not what its position embeddings are for
                raise RuntimeError("shapes do not match")
            return super().tokens(x, arrays)

    whole = loaded(vit3d)
    assert list(of_odd_sizes(Subject(whole, CPU))) == []
    found = list(of_odd_sizes(Subject(Careless(whole, lambda path, values, _: values), CPU)))
    assert found == ["an input of 64x24x16 ends in RuntimeError, and not in an InputError"]


def test_a_store_that_holds_something_else(vit3d: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of volumes that were not turned by their affine, as an extraction would make them that forgot to."""
    subject = Subject(loaded(vit3d), CPU)
    assert list(of_store([subject], {})) == []
    write = contract_of_store.write_nifti
    monkeypatch.setattr(
        contract_of_store, "write_nifti", lambda path, voxels, affine: write(path, voxels[::-1], affine)
    )
    found = list(of_store([subject], {}))
    assert any(line.startswith("vit3d: layer_3/patch_tokens computed and of the store are ") for line in found)


def test_volumes_that_can_not_be_extracted(vit3d: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = contract_of_store.write_nifti
    monkeypatch.setattr(
        contract_of_store, "write_nifti", lambda path, voxels, affine: write(path, voxels[..., :1], affine)
    )
    (line,) = of_store([Subject(loaded(vit3d), CPU)], {})
    assert line == "an extraction of three volumes ends with exit code 1"


def test_encoders_of_slices_and_of_volumes_together(vit3d: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "breaches_of", lambda subject: [str(subject.axes)])
    with pytest.raises(AssertionError, match=r"contract: pixels-8: 2; vit3d: 3$"):
        check_backbone("pixels:8", str(vit3d))

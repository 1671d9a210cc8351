"""The vision tower of an open_clip checkpoint, against the same weights in timm's model and a projection by hand."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedcache.backbones import describe_backbone, load_backbone
from embedcache.backbones.weights import find_weights
from embedcache.errors import InputError
from embedcache.testing.backbone_contract import check_backbone
from embedcache.testing.backbone_subject import relative_l2
from embedcache.testing.tiny_timm import make_tiny_open_clip
from embedcache.types import ArraySpec

timm = pytest.importorskip("timm", reason="pip install --no-deps timm torchvision")

POOLED = ArraySpec(0, "pooled", "float32", (24,))
CLS = ArraySpec(6, "cls_token", "float32", (64,))
PATCHES = ArraySpec(6, "patch_tokens", "float32", (6, 6, 64))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(make_tiny_open_clip(tmp_path / "clip"))


def pictures(size: tuple[int, int] = (96, 96)) -> torch.Tensor:
    return torch.randn((2, 3, *size), generator=torch.Generator().manual_seed(0))


def edited(folder: Path, **changes: object) -> str:
    """The folder with other entries in `vision_cfg`."""
    file = folder / "open_clip_config.json"
    document = json.loads(file.read_text())
    document["model_cfg"]["vision_cfg"].update(changes)
    file.write_text(json.dumps(document))
    return str(folder)


@pytest.mark.parametrize("size", [(96, 96), (64, 112)])
@pytest.mark.parametrize("projection", ["linear", "mlp", ""])
@torch.inference_mode()
def test_tokens_and_the_projected_embedding(tmp_path: Path, projection: str, size: tuple[int, int]) -> None:
    folder = Path(make_tiny_open_clip(tmp_path / "clip", projection=projection))
    tensors = load_file(folder / "open_clip_model.safetensors")
    trunk = timm.create_model("test_vit", img_size=96, num_classes=0, dynamic_img_size=True).eval()
    trunk.load_state_dict({k[13:]: v for k, v in tensors.items() if k.startswith("visual.trunk.")})
    x = pictures(size)
    features = trunk.forward_features(x)
    embedding = trunk(x)
    head = {key[12:]: value for key, value in tensors.items() if key.startswith("visual.head.")}
    if projection == "linear":
        embedding = embedding @ head["proj.weight"].T
    elif projection == "mlp":
        hidden = torch.nn.functional.gelu(embedding @ head["mlp.fc1.weight"].T + head["mlp.fc1.bias"])
        embedding = hidden @ head["mlp.fc2.weight"].T + head["mlp.fc2.bias"]

    backbone = load_backbone(describe_backbone(str(folder)))
    found = backbone.tokens(x, [POOLED, CLS, PATCHES])
    assert found["pooled"].shape == (2, backbone.info.pooled_size) == embedding.shape
    assert relative_l2(found["pooled"], embedding) <= 1e-5
    assert relative_l2(found[CLS.path], features[:, 0]) <= 1e-5
    assert relative_l2(found[PATCHES.path].flatten(1, 2), features[:, 1:]) <= 1e-4


def test_what_is_known_of_it(folder: Path) -> None:
    info = describe_backbone(str(folder))
    assert (info.family, info.size, info.layers, info.hidden_size, info.patch_size) == (
        "open_clip",
        (96, 96),
        6,
        64,
        16,
    )
    assert (info.pooled_size, info.mean, info.std) == (24, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    assert info.kinds == ("cls_token", "patch_mean", "patch_tokens", "pooled")
    assert info.processor["size"] == {"shortest_edge": 96}
    assert info.model.position_interpolation == "timm-bicubic-antialias"
    assert info.licence == ""


def test_its_own_files_make_the_digest(folder: Path) -> None:
    before = find_weights(str(folder)).digest
    (folder / "README.md").write_text("words")
    assert find_weights(str(folder)).digest == before
    edited(folder, timm_pool="avg")
    assert find_weights(str(folder)).digest != before


def test_torchs_own_format_loads_to_the_same(folder: Path) -> None:
    x, safe = pictures(), load_backbone(describe_backbone(str(folder)))
    torch.save(load_file(folder / "open_clip_model.safetensors"), folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_model.safetensors").unlink()
    pickled = load_backbone(describe_backbone(str(folder)))
    assert torch.equal(pickled.tokens(x, [POOLED])["pooled"], safe.tokens(x, [POOLED])["pooled"])


def test_a_transformers_configuration_beside_it_counts(folder: Path) -> None:
    """Repositories that have both are taken as transformers' or timm's, whose files are there too."""
    (folder / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    with pytest.raises(InputError, match=r"holds no weights; expected model\.safetensors .* beside config\.json"):
        find_weights(str(folder))


def test_image_models_that_are_not_supported(folder: Path) -> None:
    with pytest.raises(InputError, match="is not timm's; use the same weights from a transformers or timm repository"):
        describe_backbone(edited(folder, timm_model_name=None))
    with pytest.raises(InputError, match="open_clip's own pooling or projection"):
        describe_backbone(edited(folder, timm_model_name="test_vit", timm_pool="abs_attn"))
    with pytest.raises(InputError, match="has no architecture test_vot; did you mean test_vit"):
        describe_backbone(edited(folder, timm_model_name="test_vot", timm_pool=""))


def test_weights_that_do_not_fill_it_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "open_clip_model.safetensors")
    save_file({k: v for k, v in tensors.items() if "proj" not in k}, folder / "open_clip_model.safetensors")
    with pytest.raises(InputError, match=r"do not fit its configuration \(.*proj\.weight") as e:
        load_backbone(describe_backbone(str(folder)))
    assert "\n" not in str(e.value)


def test_it_holds_to_the_contract_of_backbones(folder: Path) -> None:
    check_backbone(str(folder))

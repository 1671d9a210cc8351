"""Weights of MONAI's encoders in the forms in which they come, and what is refused of them."""

import importlib.util
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedcache.backbones import describe_backbone
from embedcache.errors import InputError, MissingPackageError
from embedcache.types import ArraySpec

from .test_monai import SIZE, everything, loaded, with_config

Rewrite = Callable[[dict[str, torch.Tensor]], Any]


def training(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {
        "epoch": 7,
        "state_dict": {f"module.{key}": value for key, value in state.items()},
        "optimizer": {"lr": 1e-4},
    }


def self_supervised(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """As Tang et al. published theirs: the encoder alone, `module.`, the MLP's layers `fc1` and `fc2`."""
    encoder = {key.removeprefix("swinViT."): value for key, value in state.items() if key.startswith("swinViT.")}
    renamed = {key.replace("linear1", "fc1").replace("linear2", "fc2"): value for key, value in encoder.items()}
    return {"state_dict": {f"module.{key}": value for key, value in renamed.items()}}


@pytest.mark.parametrize(
    ("file", "rewrite"),
    [("model.pt", training), ("model.pt", self_supervised), ("models/model.pt", dict), ("pytorch_model.bin", dict)],
)
def test_checkpoints_of_other_forms_give_the_same_tokens(
    swin3d: Path, tmp_path: Path, file: str, rewrite: Rewrite
) -> None:
    folder = with_config(swin3d, tmp_path / "other")
    (folder / "model.safetensors").unlink()
    (folder / file).parent.mkdir(exist_ok=True)
    torch.save(rewrite(load_file(swin3d / "model.safetensors")), folder / file)
    x = torch.rand(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(11))
    specs = everything(describe_backbone(str(swin3d)), (32, 32, 32))
    expected, got = loaded(swin3d).tokens(x, specs), loaded(folder).tokens(x, specs)
    for path, tokens in expected.items():
        torch.testing.assert_close(got[path], tokens, rtol=0, atol=0)


def test_a_unetrs_encoder_is_found_in_it(vit3d: Path, tmp_path: Path) -> None:
    folder = with_config(vit3d, tmp_path / "unetr")
    state = load_file(vit3d / "model.safetensors")
    whole = {f"vit.{key}": value for key, value in state.items()} | {"decoder.weight": torch.zeros(2)}
    # older versions of MONAI had no norm of cross-attention, newer ones had weights of it that nothing used
    whole = {key: value for key, value in whole.items() if "norm_cross_attn" not in key}
    whole["vit.blocks.0.cross_attn.out_proj.weight"] = torch.zeros(24, 24)
    save_file(whole, folder / "model.safetensors")
    x = torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(12))
    spec = [ArraySpec(3, "cls_token", "float32", (24,))]
    torch.testing.assert_close(loaded(folder).tokens(x, spec), loaded(vit3d).tokens(x, spec), rtol=0, atol=0)


def test_weights_that_do_not_fill_the_architecture_are_refused(vit3d: Path, swin3d: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"do not fit its config\.json: 0 parameters absent, .* of another shape"):
        loaded(with_config(vit3d, tmp_path / "wider", mlp_dim=64))
    with pytest.raises(InputError, match=r"\d+ parameters absent, .* first blocks.3"):
        loaded(with_config(vit3d, tmp_path / "deeper", num_layers=4))
    other = with_config(vit3d, tmp_path / "other")
    (other / "model.safetensors").write_bytes((swin3d / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"has no patch_embedding\.position_embeddings"):
        loaded(other)
    two = with_config(vit3d, tmp_path / "two")
    state = load_file(vit3d / "model.safetensors")
    both = {f"{who}.{key}": value.clone() for who in ("student", "teacher") for key, value in state.items()}
    save_file(both, two / "model.safetensors")
    with pytest.raises(InputError, match=r"holds 2 encoders \(student\., teacher\.\)"):
        loaded(two)
    with pytest.raises(InputError, match="MONAI can not build its ViT"):
        loaded(with_config(vit3d, tmp_path / "heads", num_heads=5))


@dataclass
class Trap:
    """Would run code if a pickle were loaded."""

    trace: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


def test_no_pickled_object_is_ever_loaded(swin3d: Path, tmp_path: Path) -> None:
    folder = with_config(swin3d, tmp_path / "trap")
    (folder / "model.safetensors").unlink()
    trap = Trap(tmp_path / "trace")
    (folder / "model.pt").write_bytes(pickle.dumps({"state_dict": trap}))
    with pytest.raises(InputError, match=r"model\.pt holds more than tensors, or is damaged"):
        loaded(folder)
    torch.save({"state_dict": load_file(swin3d / "model.safetensors"), "args": trap}, folder / "model.pt")
    with pytest.raises(InputError, match="holds more than tensors"):
        loaded(folder)
    assert not trap.trace.exists()


def test_without_monai_the_extra_is_named(vit3d: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "monai" else real(name, *a))
    with pytest.raises(MissingPackageError, match=r"needs monai: pip install 'embedcache\[monai\]'"):
        loaded(vit3d)

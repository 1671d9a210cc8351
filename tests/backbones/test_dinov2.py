"""Parity with transformers' own forward pass, on the tiny random models and on a trained one."""

import functools
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from embedcache.backbones import Backbone, describe_backbone, load_backbone
from embedcache.backbones.captured import CapturedBackbone
from embedcache.errors import InputError
from embedcache.types import ArraySpec, TokenKind

CLS_BOUND, PATCH_BOUND = 1e-5, 1e-4
"""Relative L2 per token between two ways of computing the same float32 tokens: what the project promises."""


@pytest.fixture(params=["tiny", "tiny_registers", "trained"])
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@functools.cache  # nothing changes a loaded backbone, and loading is most of these tests' time
def load(folder: Path, **settings: str) -> CapturedBackbone:
    backbone = load_backbone(describe_backbone(str(folder), **settings))
    assert isinstance(backbone, CapturedBackbone)
    return backbone


def specs(backbone: Backbone, *wanted: tuple[int, TokenKind]) -> list[ArraySpec]:
    """Shapes and stored dtypes do not matter to `tokens`; only the writer reads them."""
    return [ArraySpec(layer, kind, "float32", (backbone.info.hidden_size,)) for layer, kind in wanted]


def tokens(backbone: Backbone, x: torch.Tensor, *wanted: tuple[int, TokenKind]) -> list[torch.Tensor]:
    arrays = specs(backbone, *wanted)
    found = backbone.tokens(x, arrays)
    return [found[spec.path] for spec in arrays]


@functools.cache
def reference(folder: Path, attention: str = "sdpa") -> Any:
    return AutoModel.from_pretrained(folder, attn_implementation=attention).eval()


def pictures(n: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn((n, 3, *size), generator=torch.Generator().manual_seed(seed))


def relative_l2(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((torch.linalg.norm(a - b, dim=-1) / torch.linalg.norm(b, dim=-1)).max())


# --- parity -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("size", [(56, 56), (28, 70), (84, 84)])
@torch.inference_mode()
def test_the_last_layer_is_transformers_last_hidden_state(folder: Path, attention: str, size: tuple[int, int]) -> None:
    """Bit for bit, at the native size and where position embeddings are interpolated by transformers' own method."""
    backbone, x = load(folder, attention=attention), pictures(3, size)
    last = backbone.info.layers
    cls, patches = tokens(backbone, x, (last, "cls_token"), (last, "patch_tokens"))
    expected = reference(folder, attention)(x).last_hidden_state
    gy, gx = size[0] // 14, size[1] // 14
    assert torch.equal(cls, expected[:, 0])
    assert torch.equal(patches, expected[:, -gy * gx :].reshape(3, gy, gx, -1))
    assert expected.shape[1] == 1 + backbone.info.registers + gy * gx


@torch.inference_mode()
def test_every_layer_passes_through_the_models_own_final_norm(folder: Path) -> None:
    """Hidden states as transformers gives them are not normed; hidden_states[i] is what leaves block i."""
    backbone, x, model = load(folder), pictures(2, (56, 56)), reference(folder)
    states = model(x, output_hidden_states=True).hidden_states
    layers = range(1, backbone.info.layers + 1)
    found = tokens(backbone, x, *((layer, "cls_token") for layer in layers))
    for layer, cls in zip(layers, found, strict=True):
        assert torch.equal(cls, model.layernorm(states[layer])[:, 0])
        assert not torch.allclose(cls, states[layer][:, 0], atol=1e-2)


def test_patch_mean_is_the_mean_of_the_patches_and_of_nothing_else(folder: Path) -> None:
    mean, patches = tokens(load(folder), pictures(2, (28, 70)), (2, "patch_mean"), (2, "patch_tokens"))
    # the mean of 10 float32 numbers in another order
    torch.testing.assert_close(mean, patches.double().mean(dim=(1, 2)).float(), atol=1e-6, rtol=1e-6)


def test_sdpa_and_eager_agree_within_the_promised_bounds(folder: Path) -> None:
    x, wanted = pictures(2, (224, 224)), ((2, "cls_token"), (2, "patch_tokens"))
    if "trained" in folder.name:
        wanted = ((12, "cls_token"), (12, "patch_tokens"))
    first, second = (tokens(load(folder, attention=a), x, *wanted) for a in ("sdpa", "eager"))
    assert relative_l2(first[0], second[0]) <= CLS_BOUND
    assert relative_l2(first[1], second[1]) <= PATCH_BOUND


# --- where things are -------------------------------------------------------------------------------


@pytest.mark.parametrize(("y", "x"), [(0, 0), (1, 3), (3, 0), (2, 4)])
def test_a_bright_square_that_moves_is_followed_by_its_patch(folder: Path, y: int, x: int) -> None:
    """On a 4x5 grid, so that rows and columns can not be exchanged unseen."""
    backbone = load(folder)
    picture = torch.zeros(1, 3, 56, 70)
    (dark,) = tokens(backbone, picture, (1, "patch_tokens"))
    picture[:, :, 14 * y : 14 * y + 14, 14 * x : 14 * x + 14] = 2
    (bright,) = tokens(backbone, picture, (1, "patch_tokens"))
    change = torch.linalg.norm(bright - dark, dim=-1)[0]
    assert change.shape == (4, 5)
    assert divmod(int(change.argmax()), 5) == (y, x)


def test_a_row_does_not_see_the_others(folder: Path) -> None:
    """Within one batch size, bit for bit: which pictures share a batch must not show (zeros fill the last one)."""
    backbone, x = load(folder), pictures(4, (56, 56))
    wanted = ((1, "patch_tokens"), (2, "cls_token"), (2, "patch_mean"))
    filled = x.clone()
    filled[2:] = 0
    for a, b in zip(tokens(backbone, x, *wanted), tokens(backbone, filled, *wanted), strict=True):
        assert torch.equal(a[:2], b[:2])


# --- what is run and kept ---------------------------------------------------------------------------


def ran(backbone: CapturedBackbone, arrays: Sequence[ArraySpec]) -> list[int]:
    """The blocks that a call ran, counted from 1."""
    seen: list[int] = []
    hooks = [
        block.register_forward_hook(lambda *_, number=number: seen.append(number))
        for number, block in enumerate(backbone.model.encoder.layer, start=1)
    ]
    backbone.tokens(pictures(1, (28, 28)), arrays)
    for hook in hooks:
        hook.remove()
    return seen


def test_no_block_beyond_the_deepest_asked_is_run(tiny: Path) -> None:
    backbone = load(tiny)
    assert ran(backbone, specs(backbone, (1, "cls_token"), (1, "patch_mean"))) == [1]
    assert ran(backbone, specs(backbone, (2, "cls_token"))) == [1, 2]


def test_exactly_the_asked_arrays_come_back(tiny: Path) -> None:
    backbone = load(tiny)
    found = backbone.tokens(pictures(2, (28, 42)), specs(backbone, (2, "patch_tokens"), (1, "cls_token")))
    assert {path: tuple(value.shape) for path, value in found.items()} == {
        "layer_2/patch_tokens": (2, 2, 3, 32),
        "layer_1/cls_token": (2, 32),
    }
    assert all(v.dtype == torch.float32 and not v.requires_grad for v in found.values())


@pytest.mark.parametrize("compute_dtype", ["bfloat16", "float16"])
def test_a_16_bit_run_is_near_and_comes_back_in_float32(tiny: Path, compute_dtype: str) -> None:
    x, wanted = pictures(2, (56, 56)), ((2, "cls_token"), (2, "patch_mean"))
    exact = tokens(load(tiny), x, *wanted)
    rounded = tokens(load(tiny, compute_dtype=compute_dtype), x, *wanted)
    for a, b in zip(rounded, exact, strict=True):
        assert a.dtype == torch.float32
        assert 0 < relative_l2(a, b) < 0.05  # bfloat16 keeps 8 bits, a relative step of 0.004, through two blocks


# --- bad input --------------------------------------------------------------------------------------


def test_a_size_that_patches_do_not_divide_is_refused(tiny: Path) -> None:
    """transformers would drop the last 5 columns without a word."""
    backbone = load(tiny)
    with pytest.raises(InputError, match="28x33 is no multiple"):
        backbone.tokens(pictures(1, (28, 33)), specs(backbone, (1, "cls_token")))


def test_layers_and_kinds_that_are_not_there(tiny: Path) -> None:
    backbone = load(tiny)
    for layer in (0, 3):
        with pytest.raises(InputError, match=rf"has layers 1 to 2\. Got {layer}"):
            backbone.tokens(pictures(1, (28, 28)), specs(backbone, (layer, "cls_token")))
    with pytest.raises(InputError, match="has no pooled; it has cls_token"):
        backbone.tokens(pictures(1, (28, 28)), specs(backbone, (0, "pooled")))


def test_weights_that_do_not_fill_the_architecture_are_refused(tiny: Path, tmp_path: Path) -> None:
    """transformers would draw what is absent at random, with no more than a log line."""
    folder = shutil.copytree(tiny, tmp_path / "holes")
    weights = load_file(folder / "model.safetensors")
    lost = next(key for key in weights if "fc1.weight" in key)
    save_file({k: v for k, v in weights.items() if k != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"do not fit its config\.json: 1 parameters absent, .*fc1\.weight"):
        load(folder)


def test_the_mask_token_may_be_absent(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "unmasked")
    weights = load_file(folder / "model.safetensors")
    kept = {k: v for k, v in weights.items() if not k.endswith("mask_token")}
    assert len(kept) == len(weights) - 1
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    x = pictures(1, (56, 56))
    assert torch.equal(tokens(load(folder), x, (2, "cls_token"))[0], tokens(load(tiny), x, (2, "cls_token"))[0])


def test_pickled_weights_load_to_the_same(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    x = pictures(1, (56, 56))
    assert torch.equal(tokens(load(folder), x, (2, "cls_token"))[0], tokens(load(tiny), x, (2, "cls_token"))[0])


def test_loading_says_nothing(tiny_registers: Path) -> None:
    """No progress bar, log line or warning of transformers reaches the user, whose stdout may be a JSON document."""
    code = (
        "from embedcache.backbones import describe_backbone, load_backbone\n"
        f"load_backbone(describe_backbone({str(tiny_registers)!r}))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

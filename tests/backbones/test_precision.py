"""What a forward pass computes in, and compiled blocks: recorded, close to float32, and refused in one line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from embedcache.backbones import compute_dtype_named, describe_backbone, load_backbone
from embedcache.backbones.device import prepare_device
from embedcache.errors import InputError, TokenOverflowError, UnknownNameError
from embedcache.extraction.stored import stored_tokens
from embedcache.store.fingerprint import LATER_FIELDS, fingerprint
from embedcache.testing.stores import make_recipe
from embedcache.types import ArraySpec, BackboneInfo

ARRAYS = (ArraySpec(1, "patch_mean", "float16", (32,)), ArraySpec(2, "cls_token", "float16", (32,)))


def batch() -> torch.Tensor:
    return torch.randn((3, 3, 56, 56), generator=torch.Generator().manual_seed(0))


def tokens(name: Path, **asked: Any) -> dict[str, torch.Tensor]:
    return load_backbone(describe_backbone(str(name), **asked)).tokens(batch(), ARRAYS)


def worst(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest relative L2 difference of a token."""
    return max(float(((a[path] - b[path]).norm(dim=-1) / b[path].norm(dim=-1)).max()) for path in a)


@pytest.mark.parametrize(
    ("typed", "recorded"),
    [
        ("fp32", "float32"),
        ("bf16", "bfloat16"),
        ("fp16", "float16"),
        ("bf16-cast", "bfloat16-cast"),
        ("float16-cast", "float16-cast"),
    ],
)
def test_short_names_are_recorded_in_full(tiny: Path, typed: str, recorded: str) -> None:
    assert compute_dtype_named(typed) == recorded
    assert describe_backbone(str(tiny), compute_dtype=typed).model.compute_dtype == recorded


@pytest.mark.parametrize("typed", ["fp64", "fp32-cast", "bf16-", "-cast", ""])
def test_what_is_no_compute_dtype(typed: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown compute dtype"):
        compute_dtype_named(typed)


def test_each_choice_is_a_recipe_of_its_own(tiny: Path) -> None:
    choices: list[dict[str, Any]] = [{"compute_dtype": name} for name in ("fp32", "bf16", "fp16", "bf16-cast")]
    choices += [{"tf32": True}, {"compiled": True}]
    names = {fingerprint(replace(make_recipe(), model=describe_backbone(str(tiny), **c).model)) for c in choices}
    assert len(names) == len(choices)
    assert LATER_FIELDS["model"]["compiled"] is False


def test_floors_have_nothing_that_these_would_change() -> None:
    plain = describe_backbone("pixels:8")
    assert describe_backbone("pixels:8", compute_dtype="bf16-cast", tf32=True, compiled=True) == plain


@pytest.mark.parametrize(
    ("typed", "bound"), [("bf16", 0.02), ("fp16", 0.002), ("bf16-cast", 0.05), ("fp16-cast", 0.01)]
)
def test_16_bits_are_close_to_float32_and_come_out_as_float32(tiny: Path, typed: str, bound: float) -> None:
    """Bounds: a few roundings of 8 (bfloat16) or 11 bits a layer; a cast also rounds norms and sums."""
    exact, found = tokens(tiny), tokens(tiny, compute_dtype=typed)
    assert all(value.dtype == torch.float32 for value in found.values())
    assert 0 < worst(found, exact) < bound


def test_a_cast_is_of_all_weights_and_autocast_of_none(tiny: Path) -> None:
    def dtypes(typed: str) -> set[torch.dtype]:
        backbone = load_backbone(describe_backbone(str(tiny), compute_dtype=typed))
        return {p.dtype for p in backbone.model.parameters()}  # type: ignore[attr-defined]

    assert dtypes("bf16") == {torch.float32}
    assert dtypes("bf16-cast") == {torch.bfloat16}


@pytest.mark.parametrize("typed", ["fp16", "fp16-cast"])
def test_overflow_in_a_block_names_the_layer(tiny: Path, typed: str) -> None:
    """float16 ends at 65,504: an MLP with large weights passes that, where float32 does not mind."""
    backbone: Any = load_backbone(describe_backbone(str(tiny), compute_dtype=typed))
    plain: Any = load_backbone(describe_backbone(str(tiny)))
    for model in (backbone.model, plain.model):
        for name, weight in model.named_parameters():
            if "layer" in name and ".1." in name and "fc" in name and name.endswith("weight"):
                weight.data.mul_(3e3)
    places = torch.arange(3)
    assert dict(stored_tokens(plain.tokens(batch(), ARRAYS), places, ARRAYS, "tiny")).keys() == {a.path for a in ARRAYS}
    with pytest.raises(TokenOverflowError, match=r"layer_2/cls_token of tiny .*--compute-dtype"):
        dict(stored_tokens(backbone.tokens(batch(), ARRAYS), places, ARRAYS, "tiny"))


# --- compiled blocks ----------------------------------------------------------------------------------


def test_compiled_blocks_keep_their_hooks(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the backend that only traces: what a compiler makes of it needs one, and the slow test has it."""
    counted: list[int] = []

    def traced(function: Any, **options: Any) -> Any:
        def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
            counted.append(len(list(graph.graph.nodes)))
            return graph.forward

        return COMPILE(function, backend=backend, **options)

    monkeypatch.setattr(torch, "compile", traced)
    found = tokens(tiny, compiled=True)
    assert len(counted) >= 2
    assert worst(found, tokens(tiny)) <= 1e-5  # DESIGN's bound for equal recipes on other kernels


COMPILE = torch.compile


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own compiler uses what Python will drop
def test_what_a_compiler_makes_of_it_is_close(tiny: Path) -> None:
    assert 0 <= worst(tokens(tiny, compiled=True), tokens(tiny)) <= 1e-5


def test_without_a_compiler_it_is_refused_in_one_line(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(function: Any, **options: Any) -> Any:
        def call(*_: Any) -> Any:
            raise RuntimeError("No working C++ compiler found")

        return call

    monkeypatch.setattr(torch, "compile", absent)
    with pytest.raises(InputError, match=r"torch.compile does not work here .* leave --compile out"):
        load_backbone(describe_backbone(str(tiny), compiled=True))


def test_a_family_without_a_module_is_refused(tiny: Path) -> None:
    floor: BackboneInfo = describe_backbone("pixels:8")
    pretending = replace(floor, model=replace(floor.model, compute_dtype="bfloat16-cast"))
    with pytest.raises(InputError, match="family pixels shows no module"):
        load_backbone(pretending)


def test_tf32_is_on_only_where_it_was_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        for asked in (True, False):
            prepare_device("cpu", before, asked)
            assert torch.backends.cuda.matmul.allow_tf32 is asked
            assert torch.backends.cudnn.allow_tf32 is asked
    finally:
        prepare_device("cpu", before)

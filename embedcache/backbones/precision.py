"""The precision of a forward pass, and whether its blocks are compiled, as the recipe says. Imports torch."""

import contextlib
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from embedcache.errors import InputError
from embedcache.types import BackboneInfo

if TYPE_CHECKING:
    from embedcache.backbones import Backbone


def precision(info: BackboneInfo, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Within it products run in the recipe's compute dtype: autocast over float32 weights, or nothing where the weights
    have it themselves.
    """
    name, _, cast = info.model.compute_dtype.partition("-")
    dtype = getattr(torch, name)
    if dtype == torch.float32 or cast:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def adapt(backbone: "Backbone") -> None:
    """Give a loaded backbone the weights, and the compiled blocks, that its recipe asks for.

    It has its module as `model`, and the modules whose outputs are its layers as `layers`. Raises InputError where it has not,
    and where nothing can compile here.
    """
    model, layers = getattr(backbone, "model", None), tuple(getattr(backbone, "layers", ()))
    recipe = backbone.info.model
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"family {recipe.family} shows no module to cast or compile; leave --compile and -cast out.")
    if recipe.compute_dtype.endswith("-cast"):
        cast(model, getattr(torch, recipe.compute_dtype.removesuffix("-cast")))
    if recipe.compiled:
        if not layers:
            raise InputError(f"family {recipe.family} shows no blocks to compile; leave --compile out.")
        compile_blocks(alike(model, layers), next(model.parameters()).device)


def cast(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """The weights in `dtype`, and so the batch that comes in. What is no part of a checkpoint (rotary angles) keeps its bits."""
    stored = model.state_dict().keys()
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if name in stored and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)

    def with_cast_batch(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return tuple(map(cast_one, args)), {name: cast_one(value) for name, value in kwargs.items()}

    def cast_one(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    model.register_forward_pre_hook(with_cast_batch, with_kwargs=True)


def alike(model: torch.nn.Module, layers: Sequence[torch.nn.Module]) -> list[torch.nn.Module]:
    """The layers, and every block of their kinds: of a hierarchical model a layer is the last of a stage's blocks."""
    kinds = {type(layer) for layer in layers} - {torch.nn.Sequential}
    own = {id(layer) for layer in layers}
    return [module for module in model.modules() if id(module) in own or type(module) in kinds]


def compile_blocks(blocks: Iterable[torch.nn.Module], device: torch.device) -> None:
    """Compile each block's own forward: hooks around it, which take its output, run as before.

    Raises InputError where there is no compiler for the device.
    """
    try:
        torch.compile(lambda x: torch.sin(x) + 1)(torch.zeros(16, device=device))
    except Exception as error:
        needs = "a C++ compiler (g++ or clang)" if device.type == "cpu" else "triton and a C compiler"
        raise InputError(
            f"torch.compile does not work here ({type(error).__name__}): it needs {needs}; install that, or leave --compile out."
        ) from error
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=False)

"""Several backbones in less memory than they need at once: turns, and the same bits as without them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import embedcache
from embedcache import ExtractConfig
from embedcache.backbones import Backbone, describe_backbone, load_backbone
from embedcache.errors import InputError
from embedcache.extraction import job, turns
from embedcache.extraction.config import asked_arrays
from embedcache.extraction.progress import Listener
from embedcache.store.fingerprint import pass_document
from embedcache.store.passes import make_pass
from embedcache.testing.stores import differences
from embedcache.types import BackboneInfo

from .conftest import elsewhere


@pytest.fixture
def three(config: ExtractConfig, tiny: Path, tiny_registers: Path) -> ExtractConfig:
    return replace(config, backbones=(str(tiny), str(tiny_registers), "pixels:28"), size=28)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is loaded, in order."""
    seen: list[str] = []

    def load(info: BackboneInfo, device: str) -> Backbone:
        seen.append(Path(info.name).name)
        return load_backbone(info, device)

    monkeypatch.setattr(job, "load_backbone", load)
    return seen


def stores(config: ExtractConfig) -> dict[str, Path]:
    return {path.parent.name: path for path in Path(config.cache).glob("*/*/*.zarr")}


def equal(a: ExtractConfig, b: ExtractConfig) -> bool:
    one, other = stores(a), stores(b)
    return one.keys() == other.keys() and all(differences(one[name], other[name]) == [] for name in one)


def test_what_fits_runs_at_once(three: ExtractConfig, loads: list[str]) -> None:
    heard: list[str] = []
    assert embedcache.extract(three, Listener(tell=heard.append)).decoded == 24
    assert loads == ["tiny", "tiny-reg", "pixels:28"]
    assert not any("turns" in line for line in heard)


def test_turns_give_the_same_bits(three: ExtractConfig, loads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    embedcache.extract(three)
    del loads[:]
    small = elsewhere(three, "small")
    weights = turns.weights_bytes(describe_backbone(three.backbones[0]))
    monkeypatch.setattr(turns, "room", lambda _: weights)
    heard: list[str] = []
    report = embedcache.extract(small, Listener(tell=heard.append))
    assert report.decoded == 3 * 24
    assert loads == ["tiny", "tiny-reg", "pixels:28"]
    assert sum("take turns" in line for line in heard) == 2
    assert equal(three, small)


def test_as_many_as_fit_share_a_turn(three: ExtractConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second does not fit beside the first, the third does: it goes before the second."""
    sizes = {"tiny": 60, "tiny-reg": 50, "pixels:28": 30}
    monkeypatch.setattr(turns, "weights_bytes", lambda info: sizes[Path(info.name).name])
    monkeypatch.setattr(turns, "forward_bytes", lambda *_: 0)
    monkeypatch.setattr(turns, "room", lambda _: 100)
    heard: list[str] = []
    assert embedcache.extract(three, Listener(tell=heard.append)).decoded == 2 * 24
    [line] = [line for line in heard if "take turns" in line]
    assert line.endswith("pixels:28, then " + three.backbones[1])


def test_views_of_one_backbone_share_its_weights(
    three: ExtractConfig, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "room", lambda _: 1)
    assert embedcache.extract(replace(three, views=1, backbones=three.backbones[:2])).decoded == 2 * 24
    assert loads == ["tiny", "tiny-reg"]


def test_what_does_not_load_after_all_has_the_next_turn(
    three: ExtractConfig, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedcache.extract(three)
    del loads[:]
    loading = job.load_backbone

    def too_much(info: BackboneInfo, device: str) -> Backbone:
        found = loading(info, device)
        if loads == ["tiny", "tiny-reg"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    monkeypatch.setattr(job, "load_backbone", too_much)
    small = elsewhere(three, "small")
    assert embedcache.extract(small).decoded == 2 * 24
    assert loads == ["tiny", "tiny-reg", "tiny-reg", "pixels:28"]
    assert equal(three, small)


def test_a_backbone_that_never_fits_is_one_line(three: ExtractConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(info: BackboneInfo, device: str) -> Backbone:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(job, "load_backbone", never)
    with pytest.raises(InputError, match=r"the weights of .*tiny do not fit into memory"):
        embedcache.extract(three)


def test_an_error_of_another_kind_is_not_taken_for_it(three: ExtractConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(info: BackboneInfo, device: str) -> Backbone:
        raise RuntimeError("something else")

    monkeypatch.setattr(job, "load_backbone", broken)
    with pytest.raises(RuntimeError, match="something else"):
        embedcache.extract(three)


# --- the estimate -----------------------------------------------------------------------------------


def test_weights_are_counted_as_they_are_loaded(tiny: Path) -> None:
    info = describe_backbone(str(tiny))
    model = load_backbone(info).model  # type: ignore[attr-defined]
    loaded = sum(p.numel() * p.element_size() for p in model.parameters())
    assert turns.weights_bytes(info) == loaded
    cast = describe_backbone(str(tiny), compute_dtype="bf16-cast")
    half = sum(p.numel() * p.element_size() for p in load_backbone(cast).model.parameters())  # type: ignore[attr-defined]
    assert turns.weights_bytes(cast) == half == loaded // 2
    assert turns.weights_bytes(describe_backbone("pixels:8")) == 0


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_bound_of_a_forward_pass_holds(config: ExtractConfig, tiny: Path, attention: str) -> None:
    """Against what the CPU's allocator handed out, and never took back, in one forward pass."""
    config = replace(config, layers="all", tokens="cls,mean,patch", attention=attention)
    info = describe_backbone(str(tiny), attention=attention)
    size = (112, 112)
    arrays = asked_arrays(config, info, size)
    p = make_pass(pass_document(arrays, 8, 8, 1, "cpu"))
    x = torch.zeros((8, 3, *size))
    backbone = load_backbone(info)
    backbone.tokens(x, arrays)
    with torch.profiler.profile(profile_memory=True) as profile:
        backbone.tokens(x, arrays)
    changes = [e.nbytes() for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for change in changes:
        held += change
        peak = max(peak, held)
    assert 0 < peak <= turns.forward_bytes(info, size, [p])

"""The whole extraction on small real files: what is stored, what is repeated, what is refused."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import embedcache
from embedcache import ExtractConfig, FeatureCache
from embedcache.errors import InputError
from embedcache.testing.stores import differences

from .conftest import MakeTable, elsewhere, only_store

AUDIT = """
import json, sys
opened, written = [], []
def hook(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if isinstance(path, str):
            opened.append(path)
            if (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & 3:
                written.append(path)
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.link", "os.truncate"):
        written.append(f"{event} {arguments[0]}")
sys.addaudithook(hook)
import embedcache
from embedcache.datasets.base import DatasetOptions
raw = json.loads(sys.argv[1])
raw["options"] = DatasetOptions(**{k: tuple(v) if isinstance(v, list) else v for k, v in raw["options"].items()})
raw["backbones"] = tuple(raw["backbones"])
report = embedcache.extract(embedcache.ExtractConfig(**raw))
print(json.dumps({"opened": opened, "written": written, "modules": sorted(sys.modules), "decoded": report.decoded}))
"""


def audited(config: ExtractConfig) -> dict[str, list[str]]:
    """Run `extract` in a fresh process and say what it opened, wrote and imported."""
    from dataclasses import asdict

    done = subprocess.run(
        [sys.executable, "-B", "-c", AUDIT, json.dumps(asdict(config))],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_features_come_back_with_labels_and_patients(config: ExtractConfig) -> None:
    report = embedcache.extract(config)
    assert report.exit_code == 0
    assert report.decoded == 24
    cache = FeatureCache.open(only_store(config))
    X, y, groups = cache.features("cls+mean", task="bright", split="train")
    assert X.shape == (18, 64)
    assert X.dtype == np.float32
    assert set(y) == {0.0, 1.0}
    assert len(set(groups)) == 9
    assert cache.features("cls", task="bright", split="test").X.shape == (6, 32)


def test_float32_tokens_are_bit_equal_to_transformers_own_forward(config: ExtractConfig, tiny: Path) -> None:
    import torch
    from transformers import AutoModel

    from embedcache.backbones.preprocess import preprocess
    from embedcache.images import open_image, parse_window

    config = replace(config, dtype="float32", tokens="cls,mean,patch", ids="keep", layers="all")
    embedcache.extract(config)
    cache = FeatureCache.open(only_store(config))
    model = AutoModel.from_pretrained(tiny, attn_implementation="sdpa").eval()
    torch.set_num_threads(1)
    plan = cache.index.plan
    for first in range(0, 24, 4):
        x = []
        for name in plan.sample_id[first : first + 4]:
            image = open_image(str(Path(config.root).with_name(f"img{name[4:]}.png")))
            volume, limits = image.read(0, 1), image.limits(parse_window("auto"), 0, 1)
            x.append(preprocess(volume, limits, cache.recipe.image, "cpu"))
        with torch.inference_mode():
            out = model(torch.cat(x), output_hidden_states=True)
            first_layer = model.layernorm(out.hidden_states[1])
        rows = slice(first, first + 4)
        last = out.last_hidden_state.numpy()
        np.testing.assert_array_equal(cache.layer(2).cls_token.read()[rows], last[:, 0])
        np.testing.assert_array_equal(cache.layer(2).patch_tokens.read()[rows].reshape(4, 4, 32), last[:, 1:])
        np.testing.assert_array_equal(cache.layer(1).cls_token.read()[rows], first_layer.numpy()[:, 0])


def test_a_second_extract_opens_no_image_imports_no_torch_and_writes_nothing(config: ExtractConfig) -> None:
    first = audited(config)
    assert first["decoded"] == 24
    assert "torch" in first["modules"]
    second = audited(config)
    assert second["decoded"] == 0
    assert "torch" not in second["modules"]
    assert "transformers" not in second["modules"]
    assert [p for p in second["opened"] if p.endswith((".png", ".safetensors"))] == []
    assert second["written"] == []


def test_another_recipe_is_another_store_and_another_layer_is_not(config: ExtractConfig) -> None:
    embedcache.extract(config)
    store = only_store(config)
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file() and "layer_2" in p.parts}
    report = embedcache.extract(replace(config, layers="1,2"))
    assert report.decoded == 24
    assert only_store(config) == store
    assert before == {p: p.read_bytes() for p in before}
    assert FeatureCache.open(store).layers == (1, 2)
    assert FeatureCache.open(store).features("cls", layers=(1, 2)).X.shape == (24, 64)

    embedcache.extract(replace(config, size=42))
    assert len(list(Path(config.cache).glob("*/*/*.zarr"))) == 2


def test_another_dtype_of_an_array_is_refused(config: ExtractConfig) -> None:
    embedcache.extract(config)
    with pytest.raises(InputError, match="--cache"):
        embedcache.extract(replace(config, dtype="float32"))


def test_several_backbones_share_the_decoding_and_equal_their_single_runs(
    config: ExtractConfig, tiny: Path, tiny_registers: Path
) -> None:
    both = replace(config, backbones=(str(tiny), str(tiny_registers)))
    assert embedcache.extract(both).decoded == 24
    single = elsewhere(replace(config, backbones=(str(tiny_registers),)), "single")
    embedcache.extract(single)
    (together,) = Path(config.cache).glob(f"*/{tiny_registers.name}/*.zarr")
    assert differences(together, only_store(single)) == []


def test_volumes_and_radiographs_in_one_table(config: ExtractConfig, make_table: MakeTable) -> None:
    mixed = replace(config, root=str(make_table(4, volumes=3, folder="mixed")), ids="keep")
    embedcache.extract(mixed)
    cache = FeatureCache.open(only_store(mixed))
    samples = cache.samples()
    assert samples.slices.tolist() == [1, 1, 1, 1, 6, 7, 5]
    rows = cache.features("mean", pool=None)
    pooled = cache.features("mean")
    assert len(rows) == 22
    of_last = rows.X[rows.sample_id == "case006"]
    np.testing.assert_allclose(pooled.X[-1], of_last.mean(axis=0), rtol=1e-6)
    assert rows.slice_index[rows.sample_id == "case005"].tolist() == list(range(7))


def test_decoder_processes_and_shard_length_change_no_token(config: ExtractConfig) -> None:
    embedcache.extract(config)
    other = elsewhere(replace(config, workers=3), "three")
    embedcache.extract(other)
    assert differences(only_store(config), only_store(other)) == []
    longer = elsewhere(replace(config, rows_per_shard=16), "longer")
    embedcache.extract(longer)
    for kind in ("cls", "mean"):
        a, b = (FeatureCache.open(only_store(c)).features(kind).X for c in (config, longer))
        np.testing.assert_array_equal(a, b)


def test_bad_files_are_set_aside_and_the_good_ones_stored(config: ExtractConfig, make_table: MakeTable) -> None:
    bad = replace(config, root=str(make_table(12, folder="bad")), ids="keep")
    folder = Path(bad.root).parent
    whole = (folder / "img002.png").read_bytes()
    (folder / "img002.png").write_bytes(whole[: len(whole) // 2])
    (folder / "img005.png").write_text("this is a text file")
    (folder / "img007.png").unlink()
    report = embedcache.extract(bad)
    assert report.exit_code == 1
    assert sum(report.quarantined.values()) == 3
    cache = FeatureCache.open(only_store(bad))
    assert cache.features("cls").sample_id.tolist() == [f"case{i:03}" for i in range(12) if i not in (2, 5, 7)]
    details = embedcache.show_store(only_store(bad))
    assert [q.sample for q in details.quarantine] == ["case002", "case005", "case007"]
    assert all("img" not in q.reason and str(folder) not in q.reason for q in details.quarantine)
    assert embedcache.extract(bad).exit_code == 1, "a finished store still says that samples were set aside"
    assert embedcache.extract(bad).decoded == 0

    clean = elsewhere(replace(config, root=str(make_table(12, folder="good")), ids="keep"), "clean")
    embedcache.extract(clean)
    good = FeatureCache.open(only_store(clean)).features("cls")
    kept = np.isin(np.arange(12), (2, 5, 7), invert=True)
    np.testing.assert_array_equal(good.X[kept], cache.features("cls").X)


def test_no_identifier_enters_cache_or_messages(config: ExtractConfig, capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[str] = []
    embedcache.extract(config, embedcache.Listener(tell=heard.append))
    secrets = [b"SECRET", b"case00", b"img00", str(Path(config.root).parent).encode()]
    for path in Path(config.cache).rglob("*"):
        assert not any(s.decode() in path.name for s in secrets)
        if path.is_file():
            data = path.read_bytes()
            assert not [s for s in secrets if s in data], path
    labels = embedcache.FeatureCache.open(only_store(config)).labels()
    assert not any("SECRET" in p or "case" in p for p in [*labels.patient, *labels.sample])
    captured = capfd.readouterr()
    assert not any(s.decode() in text for s in secrets for text in (captured.out, captured.err, *heard))


def test_the_same_command_gives_the_same_pseudonyms_and_another_key_is_refused(
    config: ExtractConfig, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    embedcache.extract(config)
    again = elsewhere(config, "again")
    embedcache.extract(again)
    assert differences(only_store(config), only_store(again)) == []
    monkeypatch.setenv("EMBEDCACHE_HOME", str(tmp_path / "other-home"))
    with pytest.raises(InputError, match="key"):
        embedcache.extract(config)


def test_tokens_that_a_backbone_has_not_are_told_once(config: ExtractConfig) -> None:
    def heard(tokens: str) -> list[str]:
        lines: list[str] = []
        asked = replace(config, backbones=(*config.backbones, "pixels:8"), size=None, tokens=tokens)
        embedcache.extract(asked, embedcache.Listener(tell=lines.append))
        return [line for line in lines if "tokens" in line]

    assert heard("cls,mean,patch") == ["pixels:8 has no mean or patch tokens: of --tokens cls,mean,patch it stores cls"]
    assert heard("cls") == heard("cls,mean") == []

"""A store written and read again, by us and by every other reader."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedcache.errors import IncompleteStoreError, InputError, NewerFormatError, StoreError
from embedcache.store import layout
from embedcache.store.reader import FeatureCache
from embedcache.store.repair import mend
from embedcache.store.verify import verify_store
from embedcache.store.writer import StoreFiles, load, pending_shards
from embedcache.testing.stores import default_arrays, differences, make_plan, make_store, token_values
from embedcache.types import ArraySpec

WIDE = (ArraySpec(1, "cls_token", "float32", (5,)), ArraySpec(0, "pooled", "float16", (3,)))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "made" / "tiny" / "store.zarr"
    make_store(path, make_plan([1, 3, 1, 6, 2], quantum=4), rows_per_shard=4, quarantined=(5,))
    return path


def test_every_token_comes_back_and_bad_rows_are_zero(store: Path) -> None:
    cache = FeatureCache.open(store)
    status = cache.row_status
    assert status.tolist() == [1] * 5 + [2] + [1] * 7 + [3] * 3
    for spec in default_arrays():
        expected = token_values(spec, 16)
        expected[status != layout.OK] = 0
        got = cache.tokens(2, spec.kind).read()
        assert got.dtype == np.float16
        np.testing.assert_array_equal(got, expected)


def test_a_store_is_found_from_inside_its_own_folder(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store)
    assert FeatureCache.open(".").path == store
    assert verify_store(".").intact
    assert mend(".").mended == ()
    monkeypatch.chdir(store.parent)
    assert FeatureCache.open(store.name).path == store


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    rows_per_shard=st.sampled_from([1, 2, 4, 8, 16]),
    data=st.data(),
)
def test_write_then_read_is_identity(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], rows_per_shard: int, data: st.DataObject
) -> None:
    plan = make_plan(counts)
    bad = data.draw(st.sets(st.integers(0, sum(counts) - 1), max_size=3))
    path = tmp_path_factory.mktemp("s") / "x.zarr"
    make_store(path, plan, WIDE, rows_per_shard, tuple(sorted(bad)))
    cache = FeatureCache.open(path)
    ok = cache.row_status == layout.OK
    assert set(np.flatnonzero(cache.row_status == layout.QUARANTINED)) == bad
    for spec in WIDE:
        np.testing.assert_array_equal(cache.tokens(spec.layer, spec.kind).read()[ok], token_values(spec, plan.rows)[ok])
    assert verify_store(path).intact


def test_documents_and_shards_are_what_zarr_itself_writes(store: Path, tmp_path: Path) -> None:
    """zarr-python, given the same values, makes the same metadata and the same bytes."""
    from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

    ours = json.loads((store / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    with warnings.catch_warnings():
        # zarr warns that string arrays have no final Zarr 3 specification; FORMAT.md keeps them to index arrays
        warnings.simplefilter("ignore", category=Warning)
        group = zarr.create_group(tmp_path / "z.zarr", zarr_format=3)
        names = group.create_array(
            "sample_id", shape=(5,), chunks=(5,), dtype=str, compressors=None, dimension_names=["sample"]
        )
        names[:] = np.asarray([f"s{i}" for i in range(5)], dtype=object)
    numbers = group.create_array(
        "slice_index", shape=(16,), chunks=(16,), dtype="int32", compressors=None, dimension_names=["slice"]
    )
    numbers[:] = FeatureCache.open(store).index.plan.slice_index
    flags = group.create_array(
        "superseded",
        shape=(5,),
        chunks=(5,),
        dtype=bool,
        compressors=None,
        dimension_names=["sample"],
        config={"write_empty_chunks": True},
    )
    flags[:] = False
    for spec in default_arrays():
        inner = (1 if len(spec.shape) == 3 else 4, *spec.shape)
        dimensions = ["slice", "y", "x", "feature"] if len(spec.shape) == 3 else ["slice", "feature"]
        array = zarr.create_array(
            tmp_path / "z.zarr",
            name=spec.path,
            shape=(16, *spec.shape),
            dtype=spec.dtype,
            chunks=(4, *spec.shape),
            serializer=ShardingCodec(
                chunk_shape=inner,
                codecs=[BytesCodec(), Crc32cCodec()],
                index_codecs=[BytesCodec(), Crc32cCodec()],
            ),
            compressors=None,
            dimension_names=dimensions,
            config={"write_empty_chunks": True},
        )
        array[:] = FeatureCache.open(store).tokens(2, spec.kind).read()
    for path in ["sample_id", "slice_index", "superseded", *[s.path for s in default_arrays()]]:
        theirs = json.loads((tmp_path / "z.zarr" / path / "zarr.json").read_text())
        assert theirs == ours[path], path
        for chunk in (tmp_path / "z.zarr" / path / "c").rglob("*"):
            if chunk.is_file():
                mine = store / path / "c" / chunk.relative_to(tmp_path / "z.zarr" / path / "c")
                assert mine.read_bytes() == chunk.read_bytes(), mine


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")  # string index arrays, see FORMAT.md
def test_zarr_xarray_and_tensorstore_open_it(store: Path) -> None:
    import tensorstore
    import xarray

    expected = FeatureCache.open(store).tokens(2, "patch_tokens").read()
    group = zarr.open_consolidated(store)
    np.testing.assert_array_equal(group["layer_2/patch_tokens"][:], expected)
    assert group["sample_id"][:].tolist() == [f"s{i}" for i in range(5)]
    assert dict(group.attrs)["embedcache"]["format"] == "embedcache"

    layer = xarray.open_zarr(store, group="layer_2", chunks=None)
    assert layer.patch_tokens.dims == ("slice", "y", "x", "feature")
    np.testing.assert_array_equal(layer.patch_tokens.values, expected)
    whole = FeatureCache.open(store).to_xarray()
    assert whole.layer_2_cls_token.dims == ("slice", "feature_2")
    assert whole.sizes["slice"] == 12
    assert set(whole["row_status"].values.tolist()) == {1}
    assert whole["sample"].values[1:4].tolist() == ["s1"] * 3
    good = FeatureCache.open(store).row_status == layout.OK
    assert not isinstance(whole.layer_2_patch_tokens.variable._data, np.ndarray), (
        "nothing is read before it is asked for"
    )
    np.testing.assert_array_equal(whole.layer_2_patch_tokens.values, expected[good])
    every = FeatureCache.open(store).to_xarray(all_rows=True)
    assert every["row_status"].values.tolist() == FeatureCache.open(store).row_status.tolist()
    np.testing.assert_array_equal(every.layer_2_patch_tokens.values, expected)

    for path in ("layer_2/patch_tokens", "layer_2/cls_token", "row_status", "slice_start", "slice_index"):
        opened = tensorstore.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store / path}/"}}
        ).result()
        np.testing.assert_array_equal(opened.read().result(), group[path][:])


def test_a_later_pass_adds_arrays_and_touches_nothing(store: Path) -> None:
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file() and "layer_2" in str(p)}
    make_store(store, make_plan([1, 3, 1, 6, 2], quantum=4), (ArraySpec(1, "cls_token", "float16", (8,)),), 2)
    assert before == {p: p.read_bytes() for p in before}
    cache = FeatureCache.open(store)
    assert cache.layers == (1, 2)
    assert len(cache.passes) == 2
    assert cache.row_status[5] == layout.QUARANTINED, "quarantined in the first pass stays so"
    assert verify_store(store).intact


def test_two_equal_stores_differ_in_nothing_and_unequal_ones_do(tmp_path: Path) -> None:
    plan = make_plan([2, 2])
    make_store(tmp_path / "a.zarr", plan)
    make_store(tmp_path / "b.zarr", plan)
    make_store(tmp_path / "c.zarr", plan, quarantined=(1,))
    assert differences(tmp_path / "a.zarr", tmp_path / "b.zarr") == []
    assert "layer_2/cls_token/c/0/0" in differences(tmp_path / "a.zarr", tmp_path / "c.zarr")


def test_an_unfinished_store_is_refused_and_read_in_part_on_request(tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    make_store(path, make_plan([1] * 8, quantum=8), rows_per_shard=2, skip_shards=(1, 3), finish=False)
    with pytest.raises(IncompleteStoreError, match=r"not finished; run the same.*From Python, FeatureCache\.open"):
        FeatureCache.open(path)
    cache = FeatureCache.open(path, allow_partial=True)
    assert cache.row_status.tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    assert cache.features(pool=None).sample_id.tolist() == ["s0", "s1", "s4", "s5"]
    with pytest.raises(StoreError, match="row 3 of layer_2/patch_tokens is pending"):
        cache.layer(2).patch_tokens.rows([1, 3])
    root, index = load(StoreFiles(path))
    pending = pending_shards(StoreFiles(path).objects, index.plan, next(iter(root.passes.values())))
    assert [s.index for s in pending] == [1, 3]


def test_pending_shards_are_found_without_opening_a_commit(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = StoreFiles(store)
    root, index = load(files)
    monkeypatch.setattr(type(files.objects), "get", lambda *_: pytest.fail("a commit was opened"))
    assert pending_shards(files.objects, index.plan, next(iter(root.passes.values()))) == []


def test_a_newer_format_and_foreign_zarr_are_refused(store: Path, tmp_path: Path) -> None:
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"]["embedcache"]["version"] = 2
    (store / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(NewerFormatError, match="newer embedcache"):
        FeatureCache.open(store)
    zarr.create_group(tmp_path / "foreign.zarr")
    with pytest.raises(StoreError, match="no embedcache store"):
        FeatureCache.open(tmp_path / "foreign.zarr")
    with pytest.raises(InputError, match="there is no store"):
        FeatureCache.open(tmp_path / "nothing.zarr")


def test_a_layer_that_is_not_there_is_named(store: Path) -> None:
    with pytest.raises(InputError, match=r"holds layers \[2\], not 7"):
        FeatureCache.open(store).layer(7)
    assert FeatureCache.open(store).layer(-1).cls_token.shape == (16, 8)


def test_a_lost_root_document_is_not_silently_replanned(store: Path) -> None:
    (store / "zarr.json").unlink()
    with pytest.raises(StoreError, match="commits but no root document"):
        make_store_again(store)


def make_store_again(store: Path) -> None:
    from embedcache.store.writer import create_store, new_root
    from embedcache.testing.stores import make_recipe
    from embedcache.types import DatasetInfo

    plan = make_plan([1, 3, 1, 6, 2], quantum=4)
    root = new_root(make_recipe(), DatasetInfo("made"), {}, "public", "", plan, "")
    create_store(StoreFiles(store), root, plan)


def test_single_rows_are_read_alone_and_checked(store: Path) -> None:
    cache = FeatureCache.open(store)
    for kind in ("cls_token", "patch_tokens"):
        tokens = cache.tokens(2, kind)
        np.testing.assert_array_equal(tokens.rows([11, 0, 5, 0]), tokens.read()[[11, 0, 5, 0]])
    with pytest.raises(IndexError, match=r"\[0, 16\)"):
        cache.tokens(2, "patch_tokens").rows([16])
    shard = store / "layer_2" / "patch_tokens" / "c" / "0" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[3] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError, match="fails its checksum"):
        cache.tokens(2, "patch_tokens").rows([0])
    np.testing.assert_array_equal(cache.tokens(2, "patch_tokens").rows([1]).shape, (1, 2, 2, 8))

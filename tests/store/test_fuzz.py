"""A store that one received is not believed: what it says of itself is refused in one line, or true."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcache.errors import EmbedcacheError, InputError, NewerFormatError, StoreError
from embedcache.store import layout
from embedcache.store.catalog import list_stores, show_store
from embedcache.store.chunks import output
from embedcache.store.commits import commit_document, decode_commit, parse_commit, seal
from embedcache.store.encoding import decode_strings, encode_strings
from embedcache.store.fingerprint import canonical, sha256
from embedcache.store.index import decode_manifest, encode_manifest, read_manifest
from embedcache.store.reader import FeatureCache
from embedcache.store.root import Root
from embedcache.store.typed import typed
from embedcache.store.verify import verify_store
from embedcache.store.writer import StoreFiles, load
from embedcache.testing.stores import make_plan, make_store
from embedcache.types import Commit, Quarantined, Window

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**19), 10**19) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("f") / "made" / "tiny" / "x.zarr"
    make_store(path, make_plan([1, 3, 1, 6, 2], quantum=8), rows_per_shard=4, quarantined=(5,))
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "made" / "tiny" / "x.zarr"))


@pytest.fixture(scope="module")
def attributes(whole: Path) -> str:
    return canonical(load(StoreFiles(whole))[0].attributes())


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The keys that lead to every place in a JSON value."""
    keys = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, inner in keys:
        found += [(*above, key), *places(inner, (*above, key))]
    return found


@given(data=st.data())
def test_attributes_with_another_value_anywhere_are_refused_or_read_as_they_are(
    attributes: str, data: st.DataObject
) -> None:
    document = json.loads(attributes)
    where = data.draw(st.sampled_from(places(document)))
    parent = document
    for key in where[:-1]:
        parent = parent[key]
    parent[where[-1]] = data.draw(JSON)
    try:
        root = Root.parse(document, "it")
    except StoreError:
        return
    assert canonical(root.attributes()) == canonical(document)


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        (("plan", "rows"), 16.0, "'rows' is 16.0"),
        (("plan", "samples"), 0, "impossible plan"),
        (("plan", "quantum"), 3, "impossible plan"),
        (("version",), 2, "this embedcache reads version 1"),
        (("version",), True, "this embedcache reads version 1"),
        (("unit",), "plane", "'unit' is 'plane'"),
        (("unit",), "volume", "unit 'volume' with a recipe of a slice"),
        (("dataset", "name"), "../../x", "no name of a dataset"),
        (("identifiers", "scheme"), "mine", "'scheme' is 'mine'"),
        (("weights", "licence"), float("nan"), "damaged"),
        (("weights", "licence"), "\ud800", "damaged"),
        (("recipe", "image", "size"), [28], "'size' is list"),
        (("recipe", "model", "source"), "other", "the fingerprint is not the recipe's"),
    ],
)
def test_what_is_said_of_impossible_attributes(attributes: str, where: tuple[str, ...], value: Any, told: str) -> None:
    document = json.loads(attributes)
    parent = document
    for key in where[:-1]:
        parent = parent[key]
    parent[where[-1]] = value
    with pytest.raises(NewerFormatError if where == ("version",) else StoreError, match=told):
        Root.parse(document, "it")


def rewrite_root(store: Path, change: dict[str, Any]) -> None:
    """Change the plan's numbers in the root, and in the manifest that vouches for it."""
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"]["embedcache"]["plan"].update(change)
    (store / "zarr.json").write_text(canonical(document))
    manifest = read_manifest(StoreFiles(store).objects)
    manifest["root_attributes"] = document["attributes"]["embedcache"]
    for copy in range(2):
        (store / "manifest" / "c" / str(copy)).write_bytes(encode_manifest(manifest))


@pytest.mark.parametrize("rows", [24, 10**6, 10**18])
def test_rows_that_nobody_wrote_ask_for_no_memory(store: Path, rows: int) -> None:
    rewrite_root(store, {"rows": rows // 8 * 8})
    with pytest.raises(StoreError, match=r"slice_index/c/0|slice_index/c/1"):
        FeatureCache.open(store)
    (line,) = list_stores(store)
    assert "slice_index/c/" in line.state
    assert not verify_store(store).intact


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 50_000 + "1" + "}" * 50_000,
        "NaN",
        "1e999",
        '"\\ud800"',
        "9" * 5_000,
        "",
        "\0",
    ],
)
def test_json_without_end_or_sense(store: Path, text: str) -> None:
    for name in ("manifest/c/0", "manifest/c/1"):
        (store / name).write_bytes(encode_strings([text]))
    with pytest.raises(StoreError, match="manifest"):
        FeatureCache.open(store).samples()
    assert not verify_store(store).intact
    (store / "zarr.json").write_text(text)
    with pytest.raises(StoreError, match=r"is damaged|is no embedcache store"):
        FeatureCache.open(store)


@given(
    change=st.dictionaries(
        st.sampled_from(["documents", "objects", "replacing", "root_attributes", "x"]), JSON, min_size=1
    )
)
def test_manifests_of_any_content(whole: Path, change: dict[str, Any]) -> None:
    manifest = {**read_manifest(StoreFiles(whole).objects), **change}
    try:
        data = encode_manifest(manifest)
    except ValueError:  # no seal can be made of it
        return
    try:
        found = decode_manifest(data, "manifest/c/0")
    except StoreError:
        return
    names = [*found["documents"], *found["objects"], *found.get("replacing", {})]
    assert all(".." not in name and not name.startswith("/") for name in names)


COMMIT = Commit(
    1,
    (4, 8),
    (Quarantined(5, "decode", "so"),),
    4,
    "cpu",
    {"torch": "2"},
    {"layer_1/cls_token": "0" * 64},
    "h",
    "a",
    "b",
)


@given(data=st.data())
def test_commits_of_any_content(data: st.DataObject) -> None:
    document = json.loads(canonical(commit_document(COMMIT)))
    del document["sha256"]
    where = data.draw(st.sampled_from(places(document)))
    parent = document
    for key in where[:-1]:
        parent = parent[key]
    parent[where[-1]] = data.draw(JSON)
    try:
        forged = seal(document)
    except ValueError:
        return
    try:
        commit = parse_commit(forged, "it")
    except StoreError:
        return
    assert commit.rows[0] == commit.shard * (commit.rows[1] - commit.rows[0])
    assert all(commit.rows[0] <= bad.row < commit.rows[1] for bad in commit.quarantined)


@given(st.binary(max_size=200))
def test_any_bytes_as_strings(data: bytes) -> None:
    try:
        found = decode_strings(data, "it")
    except StoreError:
        return
    assert encode_strings(found) == data


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: encode_strings([text])))
def test_any_bytes_as_a_commit(data: bytes) -> None:
    with pytest.raises(StoreError):
        decode_commit(data, "it")


def test_a_log_that_leaves_a_shard_out_is_refused_and_not_read_as_zeros(store: Path) -> None:
    (log,) = store.glob("commit_log_*/c/0")
    commits = json.loads(decode_strings(log.read_bytes(), "log")[0])
    data = encode_strings([canonical(commits[:1] + commits[2:])])
    log.write_bytes(data)
    manifest = read_manifest(StoreFiles(store).objects)
    manifest["objects"][log.relative_to(store).as_posix()] = sha256(data)
    for copy in range(2):
        (store / "manifest" / "c" / str(copy)).write_bytes(encode_manifest(manifest))
    with pytest.raises(StoreError, match="is complete, and shard 1 has no commit"):
        FeatureCache.open(store).features("cls")
    assert not verify_store(store).intact


# --- what lies in an object's place ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["zarr.json", "manifest/c/0", "sample_id/c/0", "layer_2/cls_token/c/1/0", "layer_2/zarr.json"]
)
@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_an_object_is_a_plain_file(store: Path, tmp_path: Path, name: str, what: str) -> None:
    path = store / name
    outside = tmp_path / "outside"
    shutil.move(path, outside)  # the very bytes, so that only the link is wrong with them
    if what == "link":
        path.symlink_to(outside)
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert name in {d.object for d in verify_store(store).damage}
    if name.startswith("manifest") or name == "layer_2/zarr.json":
        return  # the other copy holds; and nobody reads the documents but zarr
    with pytest.raises(StoreError, match=f"{name} of store x.zarr is"):
        FeatureCache.open(store).features("cls")


@pytest.mark.parametrize("folder", ["layer_2", "layer_2/cls_token/c", "layer_2/cls_token/c/1", "slice_index"])
def test_a_folder_is_no_link(store: Path, tmp_path: Path, folder: str) -> None:
    shutil.move(store / folder, tmp_path / "outside")
    (store / folder).symlink_to(tmp_path / "outside", target_is_directory=True)
    with pytest.raises(StoreError, match=f"{folder} of store x.zarr is a symbolic link"):
        FeatureCache.open(store).features("cls")
    report = verify_store(store)
    assert any("symbolic link" in d.reason for d in report.damage)
    assert folder in report.junk
    files = StoreFiles(store)
    with pytest.raises(StoreError, match="symbolic link"):
        files.objects.put(f"{folder}/new", b"")
    assert not (tmp_path / "outside" / "new").exists()


def test_a_whole_store_and_a_whole_cache_may_be_links(store: Path, tmp_path: Path) -> None:
    whole = FeatureCache.open(store).features("cls").X
    (tmp_path / "linked.zarr").symlink_to(store, target_is_directory=True)
    (tmp_path / "cache").symlink_to(store.parents[1], target_is_directory=True)
    for path in (tmp_path / "linked.zarr", tmp_path / "cache" / "tiny" / "x.zarr"):
        assert (whole == FeatureCache.open(path).features("cls").X).all()
        assert verify_store(path).intact
        assert show_store(path).slices == 13


def test_odd_names_among_the_commits_are_no_commits(store: Path) -> None:
    path = store.with_name("partial.zarr")
    p = make_store(path, make_plan([1] * 8, quantum=8), rows_per_shard=4, finish=False)
    folder = path / f"commits_{p.id}" / "c"
    for name in ("²", "٣", "007", "-1", "1.5", "9" * 40, "x"):
        (folder / name).write_bytes(b"")
    assert [c.shard for c in FeatureCache.open(path, allow_partial=True).commits(p.id)] == [0, 1]
    shutil.copy(folder / "0", folder / "7")
    with pytest.raises(StoreError, match="speaks of shard 0"):
        FeatureCache.open(path, allow_partial=True).commits(p.id)


def test_an_array_that_fits_no_memory_is_refused(store: Path) -> None:
    cache = FeatureCache.open(store)
    with pytest.raises(EmbedcacheError, match="out must"):
        cache.layer(2).cls_token.read(out=cache.index.plan.slice_start)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="does not fit into memory"):
        output(None, (10**9, 10**9), cache.layer(2).cls_token.dtype)


# --- typed values ---------------------------------------------------------------------------------


def test_typed_values() -> None:
    window = typed(Window, {"name": "ct-lung", "scope": "slice", "numbers": [[-600, 1500.5]]})
    assert window == Window("ct-lung", "slice", ((-600, 1500.5),))
    assert typed(Window, {"name": "x"}) == Window("x")
    for document, told in [
        ([], "Window is list, not an object"),
        ({}, "Window lacks 'name'"),
        ({"name": 1}, "'name' is 1"),
        ({"name": "x", "scope": "patient"}, "'scope' is 'patient'"),
        ({"name": "x", "numbers": [[1]]}, "'numbers' is list"),
        ({"name": "x", "numbers": [[1, True]]}, "'numbers' is True"),
        ({"name": "x", "numbers": [[1, float("inf")]]}, "'numbers' is inf"),
        ({"name": "x", "size": 1}, "Window has no field 'size'"),
    ]:
        with pytest.raises(ValueError, match=told.replace("[", r"\[")):
            typed(Window, document)


def test_names_lead_nowhere_else(store: Path) -> None:
    objects = StoreFiles(store).objects
    for name in ("/etc/passwd", "../x", "a/../../x", "a\0b"):
        for act in (objects.get, objects.exists, objects.size, objects.delete, lambda n: objects.put(n, b"")):
            with pytest.raises(StoreError, match="points outside"):
                act(name)
    assert layout.ROOT_DOCUMENT in set(objects.walk())


def objects_of(store: Path) -> list[str]:
    return sorted(str(path.relative_to(store)) for path in store.rglob("*") if path.is_file())


@pytest.mark.parametrize("how", ["lost", "empty", "a folder"])
def test_each_object_in_turn_is_not_there(store: Path, how: str) -> None:
    def read() -> None:
        cache = FeatureCache.open(store)
        cache.samples()
        cache.features("cls")

    names = objects_of(store)
    assert {"zarr.json", "manifest/c/0", "row_status/c/0"} <= set(names)
    for name in names:
        path = store / name
        data = path.read_bytes()
        path.unlink()
        if how == "empty":
            path.write_bytes(b"")
        elif how == "a folder":
            path.mkdir()
        assert not verify_store(store).intact
        assert len(list_stores(store)) == 1  # whatever is wrong, the others of a cache are listed beside it
        for job in (read, lambda: show_store(store)):
            with contextlib.suppress(EmbedcacheError):
                job()
        if how == "a folder":
            path.rmdir()
        path.write_bytes(data)
    assert verify_store(store).intact


@pytest.mark.parametrize("copy", [0, 1])
def test_one_copy_of_the_manifest_is_enough_to_read(store: Path, copy: int) -> None:
    whole = FeatureCache.open(store).features("cls").X
    (store / "manifest" / "c" / str(copy)).unlink()
    assert (whole == FeatureCache.open(store).features("cls").X).all()
    (line,) = list_stores(store)
    assert line.state == "complete"
    (damage,) = verify_store(store).damage
    assert (damage.object, damage.reason) == (f"manifest/c/{copy}", "is missing")
    (store / "manifest" / "c" / str(1 - copy)).unlink()
    with pytest.raises(StoreError, match=r"object manifest of x\.zarr is missing; run `embedcache verify`"):
        FeatureCache.open(store).features("cls")
    (line,) = list_stores(store)
    assert "manifest of x.zarr is missing" in line.state

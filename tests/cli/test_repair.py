"""`repair` as a user runs it: what is said, and the exit code."""

import json

import pytest

from .conftest import Cli, World


def damage(world: World, *names: str) -> None:
    for name in names:
        path = world.store / name
        data = bytearray(path.read_bytes())
        data[-7] ^= 4
        path.write_bytes(data)


def test_what_needs_no_source_is_mended(cli: Cli, copied: World) -> None:
    assert cli("repair", copied.store).code == 0
    damage(copied, "zarr.json", "row_status/c/0")
    done = cli("verify", copied.store)
    assert "`embedcache repair STORE` mends" in done.err
    told = cli("repair", copied.store, "--dry-run")
    assert told.code == 0
    assert "zarr.json: would be mended from the attributes in the manifest" in told.out
    assert cli("verify", copied.store).code == 1
    done = cli("repair", copied.store)
    assert done.code == 0
    assert (
        "row_status/c/0: mended from the rest of the index and the commits; its SHA-256 is the manifest's" in done.out
    )
    assert "2 objects mended, 0 shards computed again, 0 left" in done.out
    assert cli("verify", copied.store).code == 0


def test_lost_tokens_and_labels_need_the_sources(
    cli: Cli, world: World, copied: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(copied, "layer_2/cls_token/c/1/0", "../../labels.parquet")
    done = cli("verify", copied.cache)
    assert "labels.parquet is not what labels.sha256 names" in done.out
    assert "copy labels.parquet and labels.sha256 again from whoever gave you the cache" in done.err
    done = cli("repair", copied.store)
    assert (
        "labels.parquet: stays damaged: is not what labels.sha256 names, or that is damaged; it needs the files as they"
        in done.out
    )
    assert "copy both again from whoever gave you the cache; or, on the machine that extracted" in done.out
    assert done.code == 1
    assert "rows 8 to 15: layer_2/cls_token is not what the commit names; it needs the sources" in done.out
    document = cli("repair", copied.store, "--json").document
    assert document["exit_code"] == 1
    assert {left["object"] for left in document["left"]} > {"labels.parquet"}

    sources = ("--root", world.table, "--backbone", world.tiny, "--workers", 1, *world.reading)
    done = cli("repair", copied.store, *sources)
    assert done.code == 0, done.err
    assert "rows 8 to 15: computed again, bit for bit (layer_2/cls_token is not what the commit names)" in done.out
    assert cli("verify", copied.cache).code == 0
    for secret in ("SECRET", "img0", "case0"):
        assert secret not in done.out + done.err


def test_bad_input(cli: Cli, copied: World) -> None:
    done = cli("repair", copied.cache / "nothing.zarr")
    assert (done.code, "there is no store at" in done.err) == (2, True)
    done = cli("repair", copied.store, "--backbone", copied.tiny, "--json")
    assert done.code == 2
    assert "--backbone needs --root" in json.loads(done.err)["error"]
    done = cli("repair", copied.cache)
    assert (done.code, "is no store" in done.err) == (2, True)

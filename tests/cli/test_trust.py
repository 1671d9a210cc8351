"""The commands that keep a cache trustworthy: verify --recompute, repair, gc, relocate, extract --like and --devices."""

import shutil
from pathlib import Path

import pytest

from embedcache.store.verify import verify_store

from .conftest import Cli, World, write_table


@pytest.fixture
def own(cli: Cli, tmp_path: Path, tiny: Path, home: Path) -> World:
    """Images and a finished cache that a test may change, on the machine that made it."""
    world = World(write_table(tmp_path / "images"), tmp_path / "own", home, tiny)
    assert cli("extract", *world.extract()).code == 0
    return world


def damage(world: World) -> Path:
    """Flip a bit in a shard of the CLS tokens."""
    shard = next((world.store / "layer_2" / "cls_token" / "c").rglob("0/0"))
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    return shard


def sources(world: World) -> list[str]:
    """Where images and weights are."""
    return ["--root", str(world.table), "--backbone", str(world.tiny), "--id-column", "case", "--device", "cpu"]


def test_a_share_is_recomputed_and_a_forged_row_is_found(cli: Cli, own: World) -> None:
    done = cli("verify", own.store, "--recompute", "50%", *sources(own))
    assert done.code == 0, done.err
    assert "as its images and weights give it" in done.out
    assert "identical as stored" in done.out
    assert "rounding alone makes it more than 0" in done.out
    document = cli("verify", own.store, "--recompute", "50%", *sources(own), "--json").document
    assert document["trusted"] is True
    assert document["rows"] >= 20
    images = sorted(own.table.parent.glob("*.png"))
    shutil.copy(images[0], images[1])  # another image than the one that was extracted
    done = cli("verify", own.store, "--recompute", "100%", *sources(own))
    assert done.code == 1
    assert "NOT what its images" in done.out


def test_a_store_of_a_folder_of_weights_asks_for_the_folder(cli: Cli, own: World) -> None:
    where = ["--root", str(own.table), "--id-column", "case", "--device", "cpu"]
    for words in (["verify", own.store, "--recompute", "50%"], ["extract", "--like", own.store, "--dataset", "table"]):
        done = cli(*words, *where)
        assert done.code == 2
        assert "was made with the weights of a folder called tiny" in done.err
        assert "give its path with --backbone" in done.err
        assert str(own.tiny) not in done.err


@pytest.mark.parametrize(
    ("name", "tokens", "path"), [("pixels:8", "cls", "cls_token"), ("patches:14", "patch", "patch_tokens")]
)
def test_a_store_of_the_pixels_themselves_needs_no_backbone_named(
    cli: Cli, tmp_path: Path, home: Path, name: str, tokens: str, path: str
) -> None:
    world = World(write_table(tmp_path / "images"), tmp_path / "own", home, tmp_path)
    reading = ["--root", world.table, "--id-column", "case", "--device", "cpu"]
    size = ["--size", 28] if tokens == "patch" else []
    made = cli(
        "extract", "--dataset", "table", *reading, "--backbone", name, "--tokens", tokens, "--cache", world.cache, *size
    )
    assert made.code == 0, made.err
    done = cli("verify", world.store, "--recompute", "5", *reading)
    assert done.code == 0, done.err
    assert "as its images and weights give it" in done.out
    again = cli("extract", "--dataset", "table", *reading, "--like", world.store, "--cache", tmp_path / "again")
    assert again.code == 0, again.err
    assert "unlike" not in again.err
    (same,) = (tmp_path / "again").glob(f"*/*/{world.store.name}")
    assert verify_store(same).intact
    shard = next(f for f in sorted(world.store.glob(f"layer_*/{path}/c/**/*")) if f.is_file())
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    mended = cli("repair", world.store, *reading, "--json")
    assert mended.code == 0, mended.err
    assert mended.document["remade"][0]["identical"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recompute", "1%"], "say where they are with --dataset and --root"),
        (["--root", "cases.csv"], "are for --recompute"),
        (["--backbone", "x"], "--backbone needs --root"),
    ],
)
def test_half_a_request_is_refused(cli: Cli, world: World, words: list[str], said: str) -> None:
    done = cli("verify", world.store, *words)
    assert done.code == 2
    assert said in done.err


def test_recompute_takes_one_store_and_says_which_there_are(cli: Cli, world: World) -> None:
    for folder in (world.cache, world.store.parent):
        done = cli("verify", folder, "--recompute", "1%", "--dataset", "table", "--root", world.table)
        assert done.code == 2
        assert done.err == (
            f"error: --recompute makes rows of one store again, and {folder} is a folder above 1 store: "
            f"name one, such as {world.store}.\n"
        )


def test_repair_with_and_without_the_sources(cli: Cli, own: World) -> None:
    shard = damage(own)
    dry = cli("repair", own.store, "--dry-run", *sources(own))
    assert "would be computed again" in dry.out
    assert not verify_store(own.store).intact
    alone = cli("repair", own.store)
    assert alone.code == 1
    assert "stays damaged" in alone.out
    done = cli("repair", own.store, *sources(own), "--json")
    assert done.code == 0, done.err
    assert done.document["remade"][0]["identical"] is True
    assert verify_store(own.store).intact
    assert shard.exists()


def test_gc_lists_and_removes(cli: Cli, own: World) -> None:
    (own.store / "notes.txt").write_text("rubbish")
    listed = cli("gc", own.cache, "--dry-run")
    assert listed.code == 0
    assert "notes.txt" in listed.out
    assert "would be removed" in listed.out
    assert cli("gc", own.cache, "--json").document["removed"] is True
    assert not (own.store / "notes.txt").exists()
    assert "0 things" in cli("gc", own.cache).out


def test_relocate(cli: Cli, own: World, tmp_path: Path) -> None:
    old = own.table.parent
    done = cli("relocate", own.cache / "cases", "--root", old, tmp_path / "nowhere")
    assert done.code == 2
    moved = tmp_path / "moved"
    shutil.copytree(old, moved)
    next(moved.glob("*.png")).unlink()
    done = cli("relocate", own.cache / "cases", "--root", old, moved)
    assert done.code == 1
    assert "39 sources moved" in done.out
    assert "not at the new place: 1 sample, the first " in done.err


def test_like_repeats_and_tells_what_differs(cli: Cli, own: World, tmp_path: Path) -> None:
    like = ["extract", "--dataset", "table", *sources(own), "--like", own.store, "--cache", tmp_path / "again"]
    done = cli(*like, "--window", "auto", "--size", "42")
    assert done.code == 0, done.err
    assert "image.size was [28, 28], is [42, 42]" in done.err
    done = cli(*like)
    assert done.code == 0
    assert "unlike" not in done.err
    (same,) = (tmp_path / "again").glob(f"*/*/{own.store.name}")
    assert verify_store(same).intact


def test_wrong_words_for_devices_and_allowances(cli: Cli, world: World) -> None:
    for switch, value, said in (
        ("--devices", "cuda", "devices must be like"),
        ("--allow-bad", "many", "allow_bad must be a number"),
    ):
        done = cli("extract", *world.extract(world.cache), switch, value)
        assert done.code == 2
        assert said in done.err

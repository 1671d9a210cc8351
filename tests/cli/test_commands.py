"""Each command on a finished cache: what people read, and the one JSON document that programs read."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from embedcache_cli import output

import embedcache
from embedcache.extraction.doctor import DoctorReport

from .conftest import SECRETS, Cli, Done, World

SAMPLE_COUNT = 40


def checked(done: Done, world: World) -> str:
    """What a command said to people; in it no source path, no id and no patient of the user's."""
    assert done.code == 0, done
    told = done.out + done.err
    assert not [s for s in (*SECRETS, str(world.table.parent)) if s in told]
    return done.out


def test_plan(cli: Cli, world: World, tmp_path: Path) -> None:
    command = ("plan", *world.extract(tmp_path / "new", "--tokens", "cls,patch"))
    told = checked(cli(*command), world)
    assert "cases: 40 samples, 40 slices" in told
    # 40 rows of 2 x 2 tokens of 32 float16 numbers, in 5 shards of 8
    assert any(line.split()[1:] == ["layer_2/patch_tokens", "8", "5", "10.0", "KiB"] for line in told.splitlines())
    document = cli(*command, "--json").document
    assert document["bytes"] == 40 * (32 * 2 + 4 * 32 * 2)
    assert not (tmp_path / "new").exists()

    assert "everything is there already" in checked(cli("plan", *world.extract()), world)


def test_extract_of_what_is_there(cli: Cli, world: World) -> None:
    told = checked(cli("extract", *world.extract()), world)
    assert told.splitlines()[0] == str(world.store)
    assert "everything was there already" in told
    document = cli("extract", *world.extract(), "--json").document
    assert document["decoded"] == 0
    assert document["exit_code"] == 0
    assert document["stores"][0]["arrays"] == ["layer_2/cls_token", "layer_2/patch_mean"]


def test_ls_and_show(cli: Cli, world: World) -> None:
    told = checked(cli("ls", world.cache), world)
    assert str(world.store) in told
    assert "40 samples, 40 slices" in told
    assert "complete" in told
    assert told.splitlines()[-1].startswith("1 store, ")
    (summary,) = cli("ls", world.cache, "--json").document
    assert summary["state"] == "complete"
    assert summary["bytes"] > 0

    told = checked(cli("show", world.store), world)
    assert "40 samples of 20 patients, 40 slices" in told
    assert "torch-bicubic-antialias-clamp" in told
    assert "5 of 5" in told
    document = cli("show", world.store, "--json").document
    assert document["fingerprint"] == summary["fingerprint"]
    assert document["recipe"]["image"]["size"] == [28, 28]
    assert document["quarantine"] == []
    assert "0 slices set aside" in checked(cli("show", world.store, "--quarantine"), world)


def test_verify_names_what_is_damaged(cli: Cli, world: World, copied: World) -> None:
    assert ": intact; " in checked(cli("verify", world.cache), world)
    shard = next((copied.store / "layer_2" / "cls_token" / "c").rglob("0/0"))
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    done = cli("verify", copied.store)
    assert done.code == 1
    assert "1 object damaged" in done.out
    assert "rows 0 to 7" in done.out
    done = cli("verify", copied.store, "--json")
    assert done.code == 1
    assert done.document["intact"] is False
    assert done.document["stores"][0]["damage"][0]["shard"] == 0

    # one folder that is no store does not hide what is said of the others
    (copied.cache / "foreign.zarr").mkdir()
    done = cli("verify", copied.cache)
    assert done.code == 1
    assert "1 object damaged" in done.out
    assert "foreign.zarr is no" in done.out


def test_verify_of_a_damaged_root_document(cli: Cli, copied: World) -> None:
    (copied.store / "zarr.json").write_text("{")
    done = cli("verify", copied.store)
    assert done.code == 1
    assert "zarr.json: the root document of" in done.out
    shutil.rmtree(copied.store / "manifest")
    (copied.store / "zarr.json").write_text('{"attributes": {"embedcache": {"format": "embedcache", "version": 1}}}')
    assert "zarr.json: " in cli("verify", copied.store).out
    assert cli("rm", copied.store, "--yes").code == 0


def test_labels_show(cli: Cli, world: World) -> None:
    told = checked(cli("labels", "show", world.table, "--id-column", "case"), world)
    assert "binary task 'bright', a label per sample" in told
    assert "--positive bright=VALUE" in told
    assert "Mass 20, Nodule 14" in told
    assert "numeric task 'age'" in told
    lines = cli("labels", "show", world.table, "--json").document
    assert [line["task"] for line in lines] == [None] * 6 + ["bright", "finding", "age"]
    assert lines[5]["column"] == "case"
    *_, declared = cli("labels", "show", world.table, "--task", "old=numeric:age", "--json").document
    assert declared["kind"] == "numeric"


def test_labels_sync_rereads_the_table_and_a_changed_label_is_another_result(
    cli: Cli, world: World, copied: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCACHE_HOME", str(world.home))
    labels = copied.cache / "cases" / "labels.parquet"
    before = labels.read_bytes()
    sync = ("labels", "sync", "--dataset", "table", "--cache", copied.cache, *world.reading)
    document = cli(*sync, "--root", world.table, "--json").document
    assert document["samples"] == SAMPLE_COUNT
    assert document["tasks"] == ["bright", "finding"]
    assert labels.read_bytes() == before

    probe = ("probe", "knn", copied.store, "--task", "bright", "--json")
    first = cli(*probe).document
    copied.table.parent.mkdir()
    lines = world.table.read_text().splitlines()
    cells = [line.split(",") for line in lines]
    assert cells[1][4] == "0"
    cells[1][4] = "1"
    for row in cells[1:]:
        row[0] = str(world.table.parent / row[0])
    copied.table.write_text("\n".join(",".join(row) for row in cells) + "\n")
    told = checked(cli(*sync, "--root", copied.table), world)
    assert "40 samples, tasks bright, finding" in told
    assert labels.read_bytes() != before

    second = cli(*probe).document
    assert second["path"] != first["path"]
    assert second["inputs"]["labels"] != first["inputs"]["labels"]
    assert {**second["inputs"], "labels": ""} == {**first["inputs"], "labels": ""}
    # another task's labels and another place change no input
    other = cli("probe", "knn", copied.store, "--task", "finding", "--json").document
    assert other["inputs"]["labels"] not in (first["inputs"]["labels"], second["inputs"]["labels"])
    moved = copied.cache.rename(copied.cache.with_name("moved"))
    (store,) = moved.glob("*/*/*.zarr")
    assert Path(cli("probe", "knn", store, "--task", "bright", "--json").document["path"]).name == (
        Path(second["path"]).name
    )


def test_probes(cli: Cli, world: World, tmp_path: Path) -> None:
    picture = tmp_path / "figure.png"
    results = ("--results", tmp_path / "results", "--resamples", 50)
    told = checked(
        cli("probe", "logistic", world.store, "--task", "finding", "--C", "0.01,1", *results, "--figure", picture),
        world,
    )
    assert "logistic probe on task finding: " in told
    assert "test        12 samples of 6 patients" in told
    rows = {line.split()[0]: line for line in told.splitlines() if line.strip()}
    assert "Mass" in rows
    assert "Nodule" in rows
    assert picture.read_bytes().startswith(b"\x89PNG")
    path = Path(told.splitlines()[-1])
    assert path.parent == tmp_path / "results"
    assert json.loads(path.read_text())["format"] == "embedcache-result"

    document = cli("probe", "knn", world.store, "--task", "bright", *results, "--json").document
    assert document["probe"] == "knn"
    assert {"auroc", "average_precision", "accuracy", "f1", "brier"} <= {m["name"] for m in document["metrics"]}
    assert document["counts"]["test_patients"] == 6
    again = cli("probe", "knn", world.store, "--task", "bright", *results, "--json").document
    assert again == document
    forced = cli("probe", "knn", world.store, "--task", "bright", *results, "--json", "--force").document
    assert Path(forced["path"]).stem == Path(document["path"]).stem + "-2"


def test_splits(cli: Cli, copied: World, tmp_path: Path) -> None:
    made = tmp_path / "made.csv"
    told = checked(cli("splits", "make", copied.store, "--out", made, "--seed", 3), copied)
    assert "train 22 (patients: 11), validation 6 (patients: 3), test 12 (patients: 6)" in told
    document = cli("splits", "import", made, copied.store, "--name", "mine", "--json").document
    assert document["samples"] == {"train": 22, "validation": 6, "test": 12}

    told = checked(cli("splits", "show", made, copied.store), copied)
    assert re.search(r"part +samples +patients +slices\ntrain +22 +11 +22\n", told)
    assert re.search(r"bright +sample +\S+ +\d+ of 22 \(\d+%\)", told)
    assert re.search(r"bright +patient +\S+ +\d+ of 11 \(\d+%\)", told)
    assert f"made: digest {document['digest']}, drawn with seed 3 (draw 0)" in told
    shown = cli("splits", "show", "mine", copied.store, "--json").document
    assert [p["slices"] for p in shown["parts"]] == [22, 6, 12]
    assert [b["known_patients"] for b in shown["balance"] if b["task"] == "bright"][:3] == [11, 3, 6]
    assert shown["digest"] == document["digest"]

    by_file = cli("probe", "knn", copied.store, "--task", "bright", "--split", made, "--json").document
    by_name = cli("probe", "knn", copied.store, "--task", "bright", "--split", "mine", "--json").document
    assert by_name == by_file
    assert by_file["inputs"]["split"] == document["digest"]
    drawn = cli("probe", "knn", copied.store, "--task", "bright", "--json").document
    assert drawn["inputs"]["split"] != document["digest"]

    own = cli("splits", "export", copied.store, "--out", tmp_path / "own.csv", "--json").document
    assert own["samples"] == {"train": 28, "test": 12}
    completed = cli(
        "probe", "knn", copied.store, "--task", "bright", "--split", tmp_path / "own.csv", "--force", "--json"
    ).document
    assert completed["inputs"]["split"] == drawn["inputs"]["split"]
    assert (completed["chosen"]["split"], completed["chosen"]["split_seed"]) == ("own", 0)
    for part in ("train", "test"):
        lines = [line for line in (tmp_path / "own.csv").read_text().splitlines() if f",{part}," not in line]
        (tmp_path / "less.csv").write_text("\n".join(lines) + "\n")
        done = cli("probe", "knn", copied.store, "--task", "bright", "--split", tmp_path / "less.csv")
        assert done.code == 2
        assert f"less.csv names no {part} samples" in done.err

    lines = made.read_text().splitlines()
    patient = lines[1].split(",")[1]
    first, second = [i for i, line in enumerate(lines) if line.split(",")[1] == patient]
    lines[first] = lines[first].replace(",train,", ",test,").replace(",validation,", ",test,")
    lines[second] = lines[second].replace(",test,", ",train,").replace(",validation,", ",train,")
    made.write_text("\n".join(lines) + "\n")
    for command in (
        ("splits", "import", made, copied.store, "--name", "torn"),
        ("probe", "knn", copied.store, "--task", "bright", "--split", made),
    ):
        done = cli(*command)
        assert done.code == 2
        assert "one patient in two parts" in done.err
        assert patient not in done.err
    done = cli("splits", "show", made)
    assert done.code == 1
    assert "fault: by the file, 1 patient is in several parts" in done.out
    assert patient not in done.out


def test_keys_and_pseudonyms(cli: Cli, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = tmp_path / "ids.key"
    document = cli("ids", "key", "export", exported, "--json").document
    assert exported.stat().st_mode & 0o077 == 0
    shown = cli("show", world.store, "--json").document
    assert document["key_id"] == shown["identifiers"]["key_id"]

    split = tmp_path / "split.csv"
    cli("splits", "make", world.store, "--out", split)
    sample = split.read_text().splitlines()[1].split(",")[0]
    found = cli("ids", "show", world.cache / "cases", sample, "--json").document
    assert Path(found[sample]).parent == world.table.parent
    assert sample in cli("ids", "show", world.cache / "cases", sample).out

    monkeypatch.setenv("EMBEDCACHE_HOME", str(tmp_path / "another-machine"))
    assert cli("ids", "key", "import", exported, "--json").document == {"key_id": document["key_id"]}
    assert "is in use" in cli("ids", "key", "import", exported).out


@pytest.mark.slow  # it imports torch and transformers, each in a process of its own
def test_doctor_of_this_machine(cli: Cli) -> None:
    document = cli("doctor", "--json").document
    assert document["versions"]["embedcache"] == embedcache.__version__
    assert document["devices"]
    assert document["healthy"] == (document["problems"] == [])


def test_doctor(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    report = DoctorReport({"torch": "absent"}, ("cpu, 2 cores",), {"private data": "/somewhere"}, ())
    monkeypatch.setattr(embedcache, "doctor", lambda _, **__: report)
    done = cli("doctor")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "no problem found"
    assert cli("doctor", "--json").document["healthy"] is True

    monkeypatch.setattr(
        embedcache, "doctor", lambda _, **__: replace(report, problems=("torch is absent: install it",))
    )
    done = cli("doctor")
    assert done.code == 1
    assert done.out.splitlines()[-1] == "problem: torch is absent: install it"
    done = cli("doctor", "--json")
    assert done.code == 1
    assert done.document["problems"] == ["torch is absent: install it"]


def test_rm_asks_and_removes_only_stores_that_nobody_holds(
    cli: Cli, copied: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedcache.store.locks import exclusive

    class Terminal:
        def __init__(self, answer: str) -> None:
            self.answer = answer

        def isatty(self) -> bool:
            return True

        def readline(self, *_: object) -> str:
            return self.answer + "\n"

    store = copied.store
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin", Terminal("n"))
        patch.setattr("builtins.input", lambda *_: "n")
        declined = cli("rm", store)
    assert declined.code == 130
    assert "(40 slices of cases, " in declined.err
    assert declined.err.endswith("error: stopped\n")
    assert store.is_dir()

    with exclusive(store.with_suffix(".leases"), "it"):
        held = cli("rm", store, "--yes")
    assert held.code == 2
    assert "is being changed by process" in held.err
    assert store.is_dir()

    removed = cli("rm", store, "--yes", "--json").document
    assert removed["removed"] == str(store)
    assert removed["bytes"] > 0
    assert not store.exists()
    assert (copied.cache / "cases" / "labels.parquet").exists(), "labels stay"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (7320, "2 h 02 min")]
)
def test_durations(seconds: float, said: str) -> None:
    assert output.duration(seconds) == said


@pytest.mark.parametrize(("count", "said"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**45, "32.0 TiB")])
def test_sizes(count: int, said: str) -> None:
    assert output.size(count) == said

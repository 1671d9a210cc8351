"""Stores that someone else made up: 500 mutated documents, names and offsets, sealed with checksums that hold.

`python benchmarks/fuzz_store.py --n 500`. Each mutation changes JSON of a root, manifest, document, commit or log (types,
huge and negative numbers, NaN, deep nesting, keys missing and too many, names that lead elsewhere), an index of a shard,
lengths of strings, or puts a link or a pipe in an object's place; then every SHA-256 above it is computed anew, as an
attacker would. Opened, listed, shown, verified and read in a child process, each store must be refused in one clear line
(an EmbedcacheError) or give the right data: within 20 s and 2 GiB, without a read outside the store's folder.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, sandbox

from embedcache.store import layout
from embedcache.store.commits import seal
from embedcache.store.encoding import CRC_BYTES, crc32c, decode_strings, encode_strings
from embedcache.store.fingerprint import sha256
from embedcache.testing.stores import make_pass_of, make_plan, make_store
from embedcache.types import ArraySpec

SECONDS = 20
MEMORY_BYTES = 2 * 2**30
"""Of address space beyond what the child has when it begins."""
HELD = ("refused", "right", "named by verify")
"""Refused in one line; the data that was there before; other rows set aside than before, which `verify` tells."""
SECRET = "this file is not part of the store"
NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**18, -(10**18), 10**400, 0.5, 1e308, float("nan"), float("inf"), "", "x", "..",
    "../../secret", "/etc/passwd", "a/../../secret", "\0", "\ud800", "é\u202e", "C:\\secret", "x" * 100_000, [], {}, [[]],
    [10**18], {"a": {"b": []}}, [None], "NaN", "1", [1, 2, 3], {"..": ".."},
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=500, help="mutated stores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="100 stores")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        return serve(Path(asked.child))
    n = 100 if asked.quick else asked.n

    with sandbox() as folder:
        calm = folder / "calm" / "made" / "tiny" / "0.zarr"
        make_calm(calm)
        (folder / "secret").write_text(SECRET)
        (folder / "truth.json").write_text(json.dumps(look(calm)))
        rng = random.Random(asked.seed)
        outcomes: Counter[str] = Counter()
        by_kind: Counter[str] = Counter()
        faults: list[str] = []
        started = time.perf_counter()
        child = Child(folder)
        for i in range(n):
            kind = list(MUTATIONS)[i % len(MUTATIONS)]
            place = folder / "received" / "made" / "tiny" / "0.zarr"
            shutil.rmtree(folder / "received", ignore_errors=True)
            shutil.copytree(calm, place)
            told = MUTATIONS[kind](place, rng)
            outcome, why = child.ask(place)
            outcomes[outcome] += 1
            by_kind[kind] += outcome in HELD
            if outcome not in HELD:
                faults.append(f"{kind}: {told[:200]} → {outcome}: {why[:300]}")
        child.end()
        took = time.perf_counter() - started

    held = sum(outcomes[outcome] for outcome in HELD)
    print(f"{n} stores: {', '.join(f'{count} {outcome}' for outcome, count in outcomes.most_common())}; {took:.0f} s")
    for line in faults[:20]:
        print(f"  {line}")
    finish(
        "fuzz_store",
        tried=n,
        held=held,
        ratio=held / n,
        outcomes=dict(outcomes),
        by_kind=dict(by_kind),
        faults=faults,
        seconds=round(took, 1),
        seed=asked.seed,
        checks={
            "no_hang": not outcomes["hang"],
            "no_escape": not outcomes["escape"],
            "all_refused_clearly": not (outcomes["crash"] or outcomes["other error"] or outcomes["wrong data"]),
        },
    )


def make_calm(path: Path) -> None:
    """Two passes, one of them of int8 patch tokens; a quarantined row and padding."""
    plan = make_plan([1, 3, 1, 6, 2], quantum=8)
    make_store(path, plan, rows_per_shard=4, quarantined=(5,))
    codes = (ArraySpec(1, "patch_tokens_int8", "int8", (2, 2, 8)), ArraySpec(1, "patch_scale", "float16", (2, 2)))
    make_store(path, plan, arrays=(ArraySpec(1, "cls_token", "float16", (8,)), *codes), rows_per_shard=2)
    assert make_pass_of(codes, 8).arrays


# --- the child that opens what one received -------------------------------------------------------


class Child:
    """A process that looks at one store after another; begun anew when it dies or hangs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def ask(self, store: Path) -> tuple[str, str]:
        """What became of looking at a store: outcome and reason."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--child", str(self.folder)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            assert self.process.stdout is not None
            self.process.stdout.readline()  # it is ready
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{store}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if line:
            found: list[str] = json.loads(line)
            return found[0], found[1]
        status = self.process.wait()
        return ("hang", f"longer than {SECONDS} s") if status == -14 else ("crash", f"exit status {status}")

    def end(self) -> None:
        """Let it go."""
        if self.process is not None and self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait()


def serve(folder: Path) -> None:
    """The child: a path a line in, an outcome a line out. SIGALRM ends it if one takes too long."""
    import signal

    truth = json.loads((folder / "truth.json").read_text())
    look(folder / "calm" / "made" / "tiny" / "0.zarr")  # everything is imported before reads are watched
    base = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (base + MEMORY_BYTES, base + MEMORY_BYTES))
    allowed = os.path.realpath(folder / "received")
    escapes: list[str] = []
    watching = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if (
            watching
            and event in ("open", "os.listdir", "os.scandir")
            and isinstance(arguments[0], str | os.PathLike | bytes)
        ):
            given = os.fsdecode(arguments[0])
            unfollowed = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_NOFOLLOW
            # such an open fails at a link, but follows those above it
            path = os.path.join(os.path.realpath(os.path.dirname(given)), "") if unfollowed else os.path.realpath(given)
            if not path.startswith((allowed, "/proc/", "/sys/", sys.prefix, sys.base_prefix)):
                escapes.append(path)

    sys.addaudithook(watch)
    print("ready", flush=True)
    for line in sys.stdin:
        store = Path(line.rstrip("\n"))
        escapes.clear()
        signal.alarm(SECONDS)
        watching = True
        outcome, why = judge(store, truth)
        watching = False
        signal.alarm(0)
        if escapes:
            outcome, why = "escape", escapes[0]
        print(json.dumps([outcome, why]), flush=True)


def judge(store: Path, truth: dict[str, Any]) -> tuple[str, str]:
    """Look at a store: refused in one line, right, or a fault."""
    import embedcache

    refused = ""
    try:
        seen = look(store)
    except embedcache.EmbedcacheError as error:
        refused, seen = str(error), None
    except BaseException as error:  # noqa: BLE001 any other error is what is looked for
        return "other error", f"{type(error).__name__}: {error}"
    if refused:
        clear = refused.isprintable() and len(refused) < 2_000 and SECRET not in refused
        return ("refused", refused) if clear else ("other error", f"unclear: {refused[:100]!r}")
    assert seen is not None
    wrong = [
        f"{what} of {n}" for what, values in seen.items() for n, value in values.items() if truth[what].get(n) != value
    ]
    if not wrong:
        return "right", ""
    damage = embedcache.verify(store).damage
    return ("named by verify", str(damage[0])) if damage else ("wrong data", wrong[0])


def look(store: Path) -> dict[str, Any]:
    """All that a user does with a store that came from somewhere; what it holds, by sample and slice.

    Raises EmbedcacheError at the first refusal, after all other steps were tried too: each must refuse, not fail.
    """
    import embedcache
    from embedcache.store.features import vectors

    steps: list[Callable[[], Any]] = [
        lambda: embedcache.verify(store),
        lambda: embedcache.list_stores(store.parent),
        lambda: json.dumps(embedcache.show_store(store).passes),
        lambda: embedcache.FeatureCache.open(store, allow_partial=True).samples(),
        lambda: embedcache.FeatureCache.open(store, allow_partial=True).features("cls", pool=None),
        lambda: repr(embedcache.FeatureCache.open(store, allow_partial=True)),
        lambda: embedcache.FeatureCache.open(store).layer(2).patch_tokens.read(),
        lambda: embedcache.repair(store, dry_run=True),
    ]
    first: embedcache.EmbedcacheError | None = None
    for step in steps:
        try:
            step()
        except embedcache.EmbedcacheError as error:
            first = first or error
    found: dict[str, dict[str, Any]] = {}
    for layer in (1, 2):
        cache = embedcache.FeatureCache.open(store)
        features = cache.features("cls", layer, pool=None)
        of_sample: dict[str, Any] = {}
        # by the order of its slices: how they are numbered is said by an index array alone, and a forged one is true
        for sample, x in zip(features.sample_id.tolist(), features.X.tolist(), strict=True):
            of_sample.setdefault(sample, []).append(x)
        found[f"cls of layer {layer}"] = of_sample
        tokens = cache.layer(layer).patch_tokens
        rows = np.flatnonzero(cache.row_status == layout.OK)
        found[f"patches of layer {layer}"] = {
            str(row): float(np.asarray(values, dtype=np.float64).sum())
            for row, values in zip(rows.tolist(), tokens.rows(rows), strict=True)
        }
        assert vectors(cache, "cls", layer)
    if first is not None:
        raise first
    return found


# --- mutations ------------------------------------------------------------------------------------


def mutate(value: Any, rng: random.Random) -> tuple[Any, str]:
    """One change somewhere in a JSON value, and what it was."""
    places = list(walk(value))
    where = rng.choice(places)
    parent, key = where[-1] if where else (None, None)
    name = "/".join(str(k) for _, k in where)
    if parent is None:
        return rng.choice(NASTY), "everything"
    how = rng.choice(["replace", "replace", "replace", "delete", "add", "rename", "nest", "number"])
    if how == "delete":
        del parent[key]
    elif how == "add" and isinstance(parent, dict):
        parent[rng.choice(["", "..", "extra", "sha256", "format", "c/0", "\ud800"])] = rng.choice(NASTY)
    elif how == "rename" and isinstance(parent, dict):
        parent[rng.choice(["../../../secret", "/etc/passwd", "x", key + "/../..", key + "\0", key.upper()])] = (
            parent.pop(key)
        )
    elif how == "nest":
        parent[key] = Deep()
    elif how == "number" and isinstance(parent[key], int | float):
        parent[key] = rng.choice(
            [-parent[key], parent[key] + 1, parent[key] * 2, parent[key] * 10**9, 10**18, 0, parent[key] + 0.5]
        )
    else:
        parent[key] = rng.choice(NASTY)
    return value, f"{how} {name}"


class Deep:
    """Stands for a list in a list in a list …"""


def walk(value: Any, above: tuple[tuple[Any, Any], ...] = ()) -> Any:
    """Every place in a JSON value, as the path of (parent, key) that leads there."""
    keys = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in keys:
        here = (*above, (value, key))
        yield here
        yield from walk(inner, here)


def dump(value: Any) -> str:
    """JSON as an attacker writes it: NaN, halves of surrogate pairs and nesting without end go in."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=lambda _: "@deep@")
    return text.replace('"@deep@"', "[" * 100_000 + "]" * 100_000)


def sealed(document: Any) -> Any:
    """With a seal that holds, where one can be made."""
    if not isinstance(document, dict):
        return document
    rest = {k: v for k, v in document.items() if k != "sha256"}
    try:
        return seal(rest)
    except (ValueError, TypeError):
        return {**rest, "sha256": sha256(dump(rest).encode("utf-8", "surrogatepass"))}


def chunk(value: Any) -> bytes:
    return encode_strings([dump(value)])


def value_of(path: Path) -> Any:
    """The JSON in a chunk of one string."""
    return json.loads(decode_strings(path.read_bytes(), path.name)[0])


def reseal(store: Path, changed: dict[str, str], attributes: Any = None, keep: bool = False) -> None:
    """Name new SHA-256s (object → hex) in the manifest, and put what it says of the root there too."""
    for copy in range(2):
        path = store / "manifest" / "c" / str(copy)
        manifest = value_of(path)
        manifest["objects"] = {**manifest["objects"], **changed}
        if attributes is not None:
            manifest["root_attributes"] = attributes
        path.write_bytes(chunk(sealed(manifest)))


def change_root(store: Path, rng: random.Random) -> str:
    """The root's attributes, repeated in the manifest; the fingerprint follows where the recipe was hit."""
    document = json.loads((store / "zarr.json").read_text())
    attributes, told = mutate(document["attributes"]["embedcache"], rng)
    if isinstance(attributes, dict) and rng.random() < 0.7:
        try:
            attributes["fingerprint"] = sha256(dump(attributes["recipe"]))
            attributes["passes"] = {renamed(name, p): p for name, p in attributes["passes"].items()}
        except (KeyError, ValueError, TypeError, AttributeError):
            pass
    document["attributes"]["embedcache"] = attributes
    (store / "zarr.json").write_text(dump(document))
    reseal(store, {}, attributes)
    return told


def renamed(name: str, p: dict[str, Any]) -> str:
    """The id that a pass of this content has."""
    return "p" + sha256(dump({k: v for k, v in p.items() if k not in ("complete", "reopened")}))[:8]


def change_whole_root(store: Path, rng: random.Random) -> str:
    """Anywhere in the root document, consolidated metadata too."""
    document, told = mutate(json.loads((store / "zarr.json").read_text()), rng)
    (store / "zarr.json").write_text(dump(document))
    return told


def change_document(store: Path, rng: random.Random) -> str:
    """A document of an array, vouched for by the manifest."""
    path = rng.choice(sorted(p for p in store.rglob("zarr.json") if p.parent != store))
    document, told = mutate(json.loads(path.read_text()), rng)
    text = dump(document)
    path.write_text(text)
    for copy in range(2):
        manifest = value_of(store / "manifest" / "c" / str(copy))
        manifest["documents"][path.relative_to(store).as_posix()] = text
        (store / "manifest" / "c" / str(copy)).write_bytes(chunk(sealed(manifest)))
    return f"{path.relative_to(store)}: {told}"


def change_manifest(store: Path, rng: random.Random) -> str:
    """The manifest, sealed again."""
    manifest, told = mutate(value_of(store / "manifest" / "c" / "0"), rng)
    for copy in range(2):
        (store / "manifest" / "c" / str(copy)).write_bytes(chunk(sealed(manifest)))
    return told


def change_log(store: Path, rng: random.Random) -> str:
    """A log, each commit sealed again and the log vouched for; the commits beside it follow."""
    path = rng.choice(sorted(store.glob("commit_log_*/c/0")))
    log, told = mutate(value_of(path), rng)
    if isinstance(log, list):
        log = [sealed(commit) for commit in log]
    data = chunk(log)
    path.write_bytes(data)
    name = path.relative_to(store).as_posix()
    reseal(store, {name: sha256(data)})
    folder = store / path.parts[-3].replace("commit_log_", "commits_") / "c"
    for k, commit in enumerate(log if isinstance(log, list) else []):
        (folder / str(k)).write_bytes(chunk(commit))
    return f"{name}: {told}"


def change_commit(store: Path, rng: random.Random) -> str:
    """A commit of a pass that says that it is not complete, so that commits are read."""
    document = json.loads((store / "zarr.json").read_text())
    attributes = document["attributes"]["embedcache"]
    for p in attributes["passes"].values():
        p["complete"] = False
    (store / "zarr.json").write_text(dump(document))
    reseal(store, {}, attributes)
    path = rng.choice(sorted(p for p in store.glob("commits_*/c/*")))
    commit, told = mutate(value_of(path), rng)
    path.write_bytes(chunk(sealed(commit)))
    return f"{path.relative_to(store)}: {told}"


def change_strings(store: Path, rng: random.Random) -> str:
    """Lengths and counts in a chunk of strings that lie, vouched for."""
    path = rng.choice([store / name / "c" / "0" for name in ("sample_id", "patient_id")])
    data = bytearray(path.read_bytes())
    at = rng.choice([0, 4, rng.randrange(len(data) - 4)])
    data[at : at + 4] = rng.choice([0, 1, 2**31, 2**32 - 1, len(data), rng.randrange(2**32)]).to_bytes(4, "little")
    if rng.random() < 0.2:
        data = data[: rng.randrange(len(data))]
    path.write_bytes(data)
    reseal(store, {path.relative_to(store).as_posix(): sha256(bytes(data))})
    return f"{path.relative_to(store)}: lengths at {at}"


def change_numbers(store: Path, rng: random.Random) -> str:
    """Rows of samples that lead anywhere, vouched for, under a plan digest that fits."""
    name = rng.choice(["slice_start", "slice_count", "slice_index", "row_status", "superseded"])
    path = store / name / "c" / "0"
    dtype = np.dtype({**layout.SAMPLE_ARRAYS, **layout.SLICE_ARRAYS}[name])
    if dtype == np.bool_:
        dtype = np.dtype(np.uint8)
    values = np.frombuffer(path.read_bytes(), dtype=dtype).copy()
    i = rng.randrange(len(values))
    limits = np.iinfo(dtype)
    values[i] = min(
        max(rng.choice([-1, 0, 1, 3, 7, 10**4, 10**18, -(10**18), int(values[i]) + 1]), limits.min), limits.max
    )
    data = values.tobytes()[: rng.choice([None, None, None, 0, 1, 9])]
    path.write_bytes(data)
    document = json.loads((store / "zarr.json").read_text())
    attributes = document["attributes"]["embedcache"]
    attributes["plan"]["digest"] = digest_of_plan(store, attributes["plan"])
    (store / "zarr.json").write_text(dump(document))
    reseal(store, {f"{name}/c/0": sha256(data)}, attributes)
    return f"{name}[{i}] is {values[i]}, {len(data)} bytes"


def digest_of_plan(store: Path, plan: dict[str, Any]) -> str:
    """The plan digest over whatever the index objects hold."""
    digests: dict[str, Any] = {"quantum": plan["quantum"], "rows": plan["rows"]}
    for name in ("slice_start", "slice_count", "slice_index"):
        digests[name] = sha256((store / name / "c" / "0").read_bytes())
    for name in ("sample_id", "patient_id"):
        texts = decode_strings((store / name / "c" / "0").read_bytes(), name)
        digests[name] = sha256("\n".join(texts) + "\n")
    return sha256(dump(digests))


def change_shard(store: Path, rng: random.Random) -> str:
    """Offsets and lengths in the index of a shard, with a crc32c that fits; the shard's commit and the log follow."""
    path = rng.choice(sorted(p for p in store.glob("layer_*/*/c/**/*") if p.is_file()))
    data = bytearray(path.read_bytes())
    name = path.relative_to(store).as_posix()
    chunks = (
        {4: 4, 2: 2}.get(4 if name.startswith("layer_2") else 2, 1) if "patch" in name and "mean" not in name else 1
    )
    index = np.frombuffer(bytes(data[-16 * chunks - CRC_BYTES : -CRC_BYTES]), dtype="<u8").copy()
    index[rng.randrange(len(index))] = rng.choice([0, 1, 2**63, 2**64 - 1, len(data), 10**12, rng.randrange(2**40)])
    tail = index.tobytes()
    data[-16 * chunks - CRC_BYTES :] = tail + crc32c(tail).to_bytes(CRC_BYTES, "little")
    if rng.random() < 0.2:
        data = data[: rng.randrange(len(data))] if rng.random() < 0.5 else data + bytes(rng.randrange(1, 100))
    path.write_bytes(data)
    follow(store, path, sha256(bytes(data)))
    return f"{name}: its index"


def follow(store: Path, path: Path, digest: str) -> None:
    """Let commit, log and manifest name the new digest of a shard object."""
    parts = path.relative_to(store).parts
    array, shard = "/".join(parts[:2]), int(parts[3])
    for log_path in store.glob("commit_log_*/c/0"):
        log = value_of(log_path)
        if array not in log[0]["objects"]:
            continue
        log = [sealed({**c, "objects": {**c["objects"], array: digest}}) if c["shard"] == shard else c for c in log]
        data = chunk(log)
        log_path.write_bytes(data)
        folder = store / log_path.parts[-3].replace("commit_log_", "commits_") / "c"
        for commit in log:
            (folder / str(commit["shard"])).write_bytes(chunk(commit))
        reseal(store, {log_path.relative_to(store).as_posix(): sha256(data)})


def change_names(store: Path, rng: random.Random) -> str:
    """Files, folders, links and pipes where they do not belong."""
    path = rng.choice(sorted(p for p in store.rglob("*") if p.is_file()))
    name = path.relative_to(store).as_posix()
    outside = store.parents[3] / "secret"
    how = rng.choice(["link", "link to itself", "pipe", "folder", "linked folder", "key", "junk", "empty"])
    if how == "junk":
        for odd in ("²", "٣", "007", "-1", "9" * 200, "x y", "\u202e", "1.5"):
            (path.parent / odd).write_bytes(b"")
    elif how == "key":
        folder = rng.choice(sorted(store.glob("commits_*/c")))
        shutil.copy(folder / "0", folder / rng.choice(["99", "1" * 18, "²", "٣"]))
    elif how == "linked folder" and path.parent != store:  # a store as a whole may be a link
        moved = store.parents[3] / "moved"
        shutil.rmtree(moved, ignore_errors=True)
        shutil.move(path.parent, moved)
        path.parent.symlink_to(moved, target_is_directory=True)
    else:
        path.unlink()
        if how == "link":
            path.symlink_to(outside)
        elif how == "link to itself":
            path.symlink_to(path)
        elif how == "pipe":
            os.mkfifo(path)
        elif how == "folder":
            path.mkdir()
        else:
            path.write_bytes(b"")
    return f"{name}: {how}"


MUTATIONS: dict[str, Callable[[Path, random.Random], str]] = {
    "root": change_root,
    "whole root": change_whole_root,
    "manifest": change_manifest,
    "document": change_document,
    "log": change_log,
    "commit": change_commit,
    "strings": change_strings,
    "numbers": change_numbers,
    "shard": change_shard,
    "names": change_names,
}


if __name__ == "__main__":
    main()

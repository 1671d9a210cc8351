"""Small stores with known content, and the comparison of two stores object by object."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.store import commits as commit_codec
from embedcache.store import layout
from embedcache.store.encoding import decode_strings
from embedcache.store.fingerprint import canonical, pass_document
from embedcache.store.layout import choose_quantum, choose_rows_per_shard
from embedcache.store.passes import make_pass
from embedcache.store.writer import (
    StoreFiles,
    add_pass,
    commit_shard,
    create_store,
    finalise,
    load,
    new_root,
    write_shard,
)
from embedcache.types import (
    ArraySpec,
    Commit,
    DatasetInfo,
    ImageRecipe,
    ModelRecipe,
    Pass,
    Plan,
    Quarantined,
    Recipe,
    Window,
    strings,
)


def make_recipe(name: str = "tiny") -> Recipe:
    """A recipe of no real backbone; another `name` is another recipe."""
    image = ImageRecipe(Window("range"), size=(28, 28), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return Recipe(image, ModelRecipe(family="dinov2", source=name, revision="", weights_digest="0" * 64))


def make_plan(counts: list[int], patients: list[str] | None = None, quantum: int | None = None) -> Plan:
    """Samples `s0`, `s1`, … with these slice counts, each its own patient unless told."""
    n = len(counts)
    count = np.asarray(counts, dtype=np.int64)
    start = np.cumsum(count) - count
    total = int(count.sum())
    q = quantum or choose_quantum(total)
    slice_index = np.full(-(-total // q) * q, -1, dtype=np.int32)
    slice_index[:total] = np.arange(total) - np.repeat(start, count)
    ids = strings([f"s{i}" for i in range(n)])
    return Plan(ids, strings(patients or [f"p{i}" for i in range(n)]), start, count, slice_index, q)


def default_arrays(width: int = 8) -> tuple[ArraySpec, ...]:
    """CLS, mean and patch tokens of a layer 2."""
    return (
        ArraySpec(2, "cls_token", "float16", (width,)),
        ArraySpec(2, "patch_mean", "float16", (width,)),
        ArraySpec(2, "patch_tokens", "float16", (2, 2, width)),
    )


def make_pass_of(arrays: tuple[ArraySpec, ...], quantum: int, rows_per_shard: int | None = None) -> Pass:
    """A CPU pass of these arrays."""
    rows = min(rows_per_shard or quantum, choose_rows_per_shard(arrays, quantum))
    return make_pass(pass_document(arrays, rows, 4, 1, "cpu"))


def token_values(spec: ArraySpec, rows: int) -> np.ndarray:
    """Values that name their row, array and place, exact in float16 up to 2,048: shape (rows, …)."""
    flat = np.arange(rows)[:, None] % 512 + np.arange(int(np.prod(spec.shape)))[None, :] / 64 + len(spec.kind)
    return flat.reshape(rows, *spec.shape).astype(spec.dtype)


def make_store(
    path: Path,
    plan: Plan,
    arrays: tuple[ArraySpec, ...] | None = None,
    rows_per_shard: int | None = None,
    quarantined: tuple[int, ...] = (),
    finish: bool = True,
    skip_shards: tuple[int, ...] = (),
    dataset: DatasetInfo | None = None,
    recipe: Recipe | None = None,
    values: Callable[[ArraySpec, int], npt.NDArray[Any]] | None = None,
) -> Pass:
    """Write a store at `path` with `values(spec, rows)` or `token_values`; quarantined and padding rows are zeros."""
    files = StoreFiles(path)
    info = dataset or DatasetInfo("made", "1", "CC0", "none", "", public_ids=True)
    if not path.exists():
        root = new_root(recipe or make_recipe(), info, {"licence": "", "citation": ""}, "public", "", plan, "0" * 64)
        create_store(files, root, plan)
    root, _ = load(files)
    p = make_pass_of(arrays or default_arrays(), plan.quantum, rows_per_shard)
    root = add_pass(files, root, p)
    keep = (plan.slice_index >= 0) & ~np.isin(np.arange(plan.rows), quarantined)
    for shard in plan.shards(p.rows_per_shard):
        if shard.index in skip_shards:
            continue
        rows = {}
        for spec in p.arrays:
            block = (values or token_values)(spec, plan.rows)[shard.start : shard.stop].astype(spec.dtype)
            block[~keep[shard.start : shard.stop]] = 0
            rows[spec.path] = block
        digests = write_shard(files.objects, p, shard, rows)
        bad = tuple(Quarantined(r, "decode", "made so") for r in quarantined if shard.start <= r < shard.stop)
        commit_shard(
            files.objects,
            p,
            Commit(shard.index, (shard.start, shard.stop), bad, 4, "cpu", {}, digests, "here", "then", "now"),
        )
    if finish:
        finalise(files, p.id)
    return p


def differences(a: Path, b: Path) -> list[str]:
    """Names of objects in which two stores differ, other than in the times and hosts of their commits."""
    left, right = StoreFiles(a).objects, StoreFiles(b).objects
    names = sorted({*left.walk(), *right.walk()})
    differ = []
    for name in names:
        if not (left.exists(name) and right.exists(name)) or _comparable(left.get(name), name) != _comparable(
            right.get(name), name
        ):
            differ.append(name)
    return differ


def _comparable(data: bytes, name: str) -> object:
    """An object without what two equal stores may differ in: circumstances of commits, and digests over them."""
    top = name.split("/")[0]
    if "/c/" in name and top.startswith("commits_"):
        return _without(commit_codec.commit_document(commit_codec.decode_commit(data, name)))
    if "/c/" in name and top.startswith("commit_log_"):
        return [_without(commit_codec.commit_document(c)) for c in commit_codec.decode_log(data, name)]
    if name.startswith("manifest/c/"):
        manifest = commit_codec.unseal(commit_codec.load_json(decode_strings(data, name)[0], name), name)
        logs = {layout.chunk_name(layout.log_path(p), 0) for p in manifest["root_attributes"]["passes"]}
        manifest["objects"] = {k: v for k, v in manifest["objects"].items() if k not in logs}
        return canonical(manifest)
    return data


def _without(document: dict[str, object]) -> dict[str, object]:
    return {k: v for k, v in document.items() if k not in commit_codec.CIRCUMSTANCES}

"""The options that `extract`, `plan` and `labels sync` share, built once into an ExtractConfig."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

import embedcache

if TYPE_CHECKING:
    from embedcache import ExtractConfig

Opt = typer.Option


def asked(
    dataset: Annotated[str, Opt(help="nih-cxr14, table, folder, or another registered dataset.")],
    root: Annotated[str, Opt(help="The dataset's folder, or the table (CSV or Parquet).")],
    backbone: Annotated[
        list[str], Opt(help="Hub name or local folder; repeat it: all share one reading of the images.")
    ],
    cache: Annotated[str, Opt(help="Folder of the stores.")] = "cache",
    tokens: Annotated[str, Opt(help="Of cls, mean, patch, with commas.")] = "cls,mean",
    layers: Annotated[str, Opt(help="last, last:4, all, or numbers with commas; negative from the end.")] = "last",
    dtype: Annotated[str, Opt(help="Stored dtype: float16 or float32.")] = "float16",
    window: Annotated[
        str,
        Opt(help="auto, voi, min-max, percentile, range, ct-lung, ct-soft-tissue, ct-bone, ct-three, or CENTRE/WIDTH."),
    ] = "auto",
    fit: Annotated[
        str, Opt(help="squash (the whole image), pad (keeps the aspect), processor (the model's own crop).")
    ] = "squash",
    size: Annotated[int | None, Opt(help="Input size in pixels; the model's own unless given.")] = None,
    revision: Annotated[str | None, Opt(help="Branch, tag or commit of a hub name.")] = None,
    compute_dtype: Annotated[str, Opt(help="float32, bfloat16 or float16 (autocast).")] = "float32",
    attention: Annotated[str, Opt(help="sdpa or eager.")] = "sdpa",
    limit: Annotated[int | None, Opt(help="Only the first N samples.")] = None,
    where: Annotated[
        str | None, Opt(help="Only samples for which this holds, for example \"view == 'PA' and age > 50\".")
    ] = None,
    sample_list: Annotated[str | None, Opt(help="Only the samples named in this file, one id a line.")] = None,
    name: Annotated[str | None, Opt(help="What the dataset is called in the cache.")] = None,
    root_dir: Annotated[str | None, Opt(help="What a table's relative paths start from.")] = None,
    path_column: Annotated[str | None, Opt()] = None,
    id_column: Annotated[str | None, Opt()] = None,
    patient_column: Annotated[str | None, Opt()] = None,
    split_column: Annotated[str | None, Opt()] = None,
    mask_column: Annotated[str | None, Opt()] = None,
    task: Annotated[
        list[str] | None, Opt(help="NAME=KIND[:COLUMN,…]; only declared tasks are then taken. Repeat it.")
    ] = None,
    positive: Annotated[list[str] | None, Opt(help="TASK=VALUE: which value counts as 1.")] = None,
    sep: Annotated[str | None, Opt(help="What separates labels in a cell.")] = None,
    level: Annotated[str | None, Opt(help="What labels attach to: patient, study, sample or slice.")] = None,
    labels: Annotated[str | None, Opt(help="A second table that holds the labels.")] = None,
    join_on: Annotated[str | None, Opt(help="Its column of sample ids or patients.")] = None,
    slice_column: Annotated[str | None, Opt(help="Its column of slice numbers.")] = None,
    ids: Annotated[
        str, Opt(help="pseudonym, or keep: whoever receives the cache can then read your ids.")
    ] = "pseudonym",
    device: Annotated[str, Opt(help="auto, cpu, cuda, cuda:1.")] = "auto",
    batch_size: Annotated[int | None, Opt(help="8 on a CPU, 64 on a GPU; fixed once a pass is planned.")] = None,
    threads: Annotated[int | None, Opt(help="CPU threads of the forward pass; fixed once a pass is planned.")] = None,
    rows_per_shard: Annotated[int | None, Opt(help="A power of two; smaller shards lose less work to a kill.")] = None,
    workers: Annotated[int | None, Opt(help="Decode processes.")] = None,
    decode_timeout: Annotated[float, Opt(help="Seconds until a decoder without an answer is replaced.")] = 120.0,
    mixed: Annotated[
        bool, Opt("--mixed", help="Allow one pass to hold shards of several devices or versions.")
    ] = False,
    wait: Annotated[bool, Opt("--wait", help="Wait for another process that writes the store.")] = False,
) -> "ExtractConfig":
    """The configuration that the options describe."""
    options = embedcache.DatasetOptions(
        name=name,
        root_dir=root_dir,
        path_column=path_column,
        id_column=id_column,
        patient_column=patient_column,
        split_column=split_column,
        mask_column=mask_column,
        tasks=tuple(task or ()),
        positive=tuple(positive or ()),
        sep=sep,
        level=level,
        label_table=labels,
        join_on=join_on,
        slice_column=slice_column,
    )
    return embedcache.ExtractConfig(
        dataset=dataset,
        root=root,
        backbones=tuple(backbone),
        cache=cache,
        tokens=tokens,
        layers=layers,
        dtype=dtype,  # type: ignore[arg-type]  # ExtractConfig checks the words
        window=window,
        fit=fit,  # type: ignore[arg-type]
        size=size,
        revision=revision,
        compute_dtype=compute_dtype,
        attention=attention,
        limit=limit,
        where=where,
        sample_list=sample_list,
        options=options,
        ids=ids,  # type: ignore[arg-type]
        device=device,
        batch_size=batch_size,
        threads=threads,
        rows_per_shard=rows_per_shard,
        workers=workers,
        decode_timeout=decode_timeout,
        mixed=mixed,
        wait=wait,
    )


def takes_config(*without: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """A command `(config, own options…)` that takes the options of `asked` but those in `without`, besides its own."""
    return takes(lambda **given: asked(**{**dict.fromkeys(without, ()), **given}), asked, without)


def takes(
    build: Callable[..., Any], described_by: Callable[..., Any], without: tuple[str, ...] = ()
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """A command whose first argument is `build(options…)`, the options being the parameters of `described_by`."""

    def wrap(command: Callable[..., int]) -> Callable[..., int]:
        shared = {n: p for n, p in inspect.signature(described_by).parameters.items() if n not in without}
        _, *own = inspect.signature(command).parameters.values()

        def run(**given: Any) -> int:
            return command(build(**{n: given[n] for n in shared}), **{p.name: given[p.name] for p in own})

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*shared.values(), *own]]
        run.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__doc__ = command.__doc__
        return run

    return wrap

"""The options that several commands share, each written down once and built into a configuration of embedcache."""

import inspect
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Annotated, Any

import typer

import embedcache

if TYPE_CHECKING:
    from embedcache import DatasetOptions, ExtractConfig

SAMPLES, TABLE, LABELS, TOKENS, RUN = "Which samples", "How to read a table", "Labels", "What is stored", "The run"
"""The panels of `--help`, so that forty switches are not one list."""


def opt(help: str, panel: str, *names: str) -> Any:
    """An option in a panel of the help."""
    return typer.Option(*names, help=help, rich_help_panel=panel)


def takes(
    build: Callable[..., Any], only: Collection[str] | None = None, **fixed: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: the function takes the options of `build`, besides its own, in place of its first argument.

    That argument is then what `build` makes of them. Of its options only those in `only` are taken, if that is given, and
    those in `fixed` have that value; the rest keep their defaults.
    """

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        offered = inspect.signature(build).parameters
        shared = {n: p for n, p in offered.items() if n not in fixed and (only is None or n in only)}
        _, *own = inspect.signature(function).parameters.values()

        def run(**given: Any) -> Any:
            own_names = {p.name for p in own}
            built = build(**fixed, **{n: v for n, v in given.items() if n not in own_names})
            return function(built, **{n: v for n, v in given.items() if n in own_names})

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*shared.values(), *own]]
        run.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__doc__ = function.__doc__
        return run

    return wrap


def label_options(
    id_column: Annotated[str | None, opt("The column of ids that are yours; the paths unless given.", TABLE)] = None,
    path_column: Annotated[str | None, opt("The column of files, or of folders with one series each.", TABLE)] = None,
    patient_column: Annotated[str | None, opt("The column of patients: they are never split.", TABLE)] = None,
    split_column: Annotated[str | None, opt("The column that says train, validation or test.", TABLE)] = None,
    mask_column: Annotated[str | None, opt("The column of mask files.", TABLE)] = None,
    task: Annotated[
        list[str] | None,
        opt(
            "NAME=KIND[:COLUMN,…], KIND one of binary, multilabel, multiclass, numeric. Repeat it; only these count.",
            LABELS,
        ),
    ] = None,
    positive: Annotated[list[str] | None, opt("TASK=VALUE: which value counts as 1.", LABELS)] = None,
    sep: Annotated[str | None, opt("What separates the labels in a cell.", LABELS)] = None,
    level: Annotated[str | None, opt("What labels attach to: patient, study, sample or slice.", LABELS)] = None,
    labels: Annotated[str | None, opt("A second table, which holds the labels.", LABELS)] = None,
    join_on: Annotated[str | None, opt("Its column of sample ids or patients.", LABELS)] = None,
    slice_column: Annotated[str | None, opt("Its column of slice numbers.", LABELS)] = None,
    name: Annotated[str | None, opt("What the dataset is called in the cache.", TABLE)] = None,
    root_dir: Annotated[
        str | None, opt("What its relative paths start from; the table's folder unless given.", TABLE)
    ] = None,
) -> "DatasetOptions":
    """How the user wants a dataset to be read."""
    return embedcache.DatasetOptions(
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


@takes(label_options)
def extract_config(
    options: "DatasetOptions",
    dataset: Annotated[str, typer.Option(help="nih-cxr14, table, folder, or another registered dataset.")],
    root: Annotated[str, typer.Option(help="The dataset's folder, or the table (CSV or Parquet).")],
    backbone: Annotated[
        list[str], typer.Option(help="Hub name or local folder. Repeat it: all share one reading of the images.")
    ],
    cache: Annotated[str, typer.Option(help="Folder of the stores.")] = "cache",
    limit: Annotated[int | None, opt("Only the first N samples.", SAMPLES)] = None,
    where: Annotated[
        str | None, opt("Only samples for which this holds, for example \"view == 'PA' and age > 50\".", SAMPLES)
    ] = None,
    sample_list: Annotated[str | None, opt("Only the samples named in this file, one id a line.", SAMPLES)] = None,
    tokens: Annotated[str, opt("Of cls, mean, patch, with commas.", TOKENS)] = "cls,mean",
    layers: Annotated[str, opt("last, last:4, all, or numbers with commas; negative from the end.", TOKENS)] = "last",
    dtype: Annotated[str, opt("float16 or float32.", TOKENS)] = "float16",
    window: Annotated[
        str,
        opt(
            "auto, voi, min-max, percentile, range, ct-lung, ct-soft-tissue, ct-bone, ct-three, or CENTRE/WIDTH.",
            TOKENS,
        ),
    ] = "auto",
    fit: Annotated[
        str, opt("squash (the whole image), pad (keeps the aspect), processor (the model's own crop).", TOKENS)
    ] = "squash",
    size: Annotated[int | None, opt("Input size in pixels; the model's own unless given.", TOKENS)] = None,
    revision: Annotated[str | None, opt("Branch, tag or commit of a hub name.", TOKENS)] = None,
    compute_dtype: Annotated[str, opt("float32, bfloat16 or float16 (autocast).", TOKENS)] = "float32",
    attention: Annotated[str, opt("sdpa or eager.", TOKENS)] = "sdpa",
    ids: Annotated[
        str, opt("pseudonym, or keep: whoever receives the cache can then read your ids.", TOKENS)
    ] = "pseudonym",
    device: Annotated[str, opt("auto, cpu, cuda, cuda:1.", RUN)] = "auto",
    batch_size: Annotated[int | None, opt("8 on a CPU, 64 on a GPU; fixed once a pass is planned.", RUN)] = None,
    threads: Annotated[int | None, opt("CPU threads of the forward pass; fixed once a pass is planned.", RUN)] = None,
    rows_per_shard: Annotated[int | None, opt("A power of two; smaller shards lose less work to a kill.", RUN)] = None,
    workers: Annotated[int | None, opt("Decode processes.", RUN)] = None,
    decode_timeout: Annotated[float, opt("Seconds until a decoder without an answer is replaced.", RUN)] = 120.0,
    mixed: Annotated[
        bool, opt("Allow one pass to hold shards of several devices or versions.", RUN, "--mixed")
    ] = False,
    wait: Annotated[bool, opt("Wait for another process that writes the store.", RUN, "--wait")] = False,
) -> "ExtractConfig":
    """The extraction that the options describe."""
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


READING = {*inspect.signature(label_options).parameters, "dataset", "root", "cache", "ids"}
"""What `labels sync` needs: how to read the dataset, and where its stores are."""

"""The options that several commands share, each written down once and built into a configuration of embedcache."""

import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import embedcache
from embedcache.errors import InputError

if TYPE_CHECKING:
    from embedcache import DatasetOptions, ExtractConfig

SAMPLES, TABLE, LABELS, TOKENS, RUN = "Which samples", "How to read a table", "Labels", "What is stored", "The run"
"""The panels of `--help`, so that forty switches are not one list."""
WEIGHTS_HELP = "Look for hub names in this folder first: what `weights pull` filled. Also $EMBEDCACHE_WEIGHTS."


def opt(help: str, panel: str, *names: str) -> Any:
    """An option in a panel of the help."""
    return typer.Option(*names, help=help, rich_help_panel=panel)


def takes(
    build: Callable[..., Any], only: Collection[str] | None = None, **fixed: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: the function takes the options of `build`, besides its own, in place of its first argument.

    That argument is then what `build` makes of them. Of its options only those in `only` are taken, if that is given, and
    those in `fixed` have that value; the rest keep their defaults. A parameter `explicit` of `build` is no option: it gets
    the names of those that were typed.
    """

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        offered = inspect.signature(build).parameters
        shared = {
            n: p for n, p in offered.items() if n != "explicit" and n not in fixed and (only is None or n in only)
        }
        _, *own = inspect.signature(function).parameters.values()

        def run(**given: Any) -> Any:
            own_names = {p.name for p in own}
            asked = {n: v for n, v in given.items() if n not in own_names and n != "ctx"}
            if "explicit" in offered:
                asked["explicit"] = {n for n in asked if given["ctx"].get_parameter_source(n).name == "COMMANDLINE"}
            return function(build(**fixed, **asked), **{n: v for n, v in given.items() if n in own_names})

        needed = [p for p in own if p.default is inspect.Parameter.empty]  # arguments of its own come first
        ordered = [*needed, *shared.values(), *(p for p in own if p not in needed)]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in ordered]
        if "explicit" in offered:
            parameters.append(inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
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
    slice_column: Annotated[str | None, opt("Its column of slice numbers, from feet to head.", LABELS)] = None,
    slice_order: Annotated[
        str | None, opt("How these count: anatomy (from feet to head), or file (as it is stored).", LABELS)
    ] = None,
    name: Annotated[str | None, opt("What the dataset is called in the cache.", TABLE)] = None,
    root_dir: Annotated[
        str | None, opt("What its relative paths start from; the table's folder unless given.", TABLE)
    ] = None,
    uncertain: Annotated[
        str | None,
        opt("What -1 counts as, in CheXpert or a column of yes and no: zeros, ones or ignore.", LABELS),
    ] = None,
    channel: Annotated[str | None, opt("Which channel of an nnU-Net dataset, by its name or number.", TABLE)] = None,
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
        slice_order=slice_order,
        uncertain=uncertain,
        channel=channel,
    )


@takes(label_options)
def extract_config(
    options: "DatasetOptions",
    dataset: Annotated[str, typer.Option(help="nih-cxr14, table, folder, or another registered dataset.")],
    root: Annotated[str, typer.Option(help="The dataset's folder, or the table (CSV or Parquet).")],
    explicit: Collection[str] = (),
    backbone: Annotated[
        list[str] | None, typer.Option(help="Hub name or local folder. Repeat it: all share one reading of the images.")
    ] = None,
    cache: Annotated[str, typer.Option(help="Folder of the stores.")] = "cache",
    like: Annotated[
        str | None,
        typer.Option(
            help="A store whose recorded configuration is repeated; other switches change it. What differs is told."
        ),
    ] = None,
    limit: Annotated[int | None, opt("Only the first N samples.", SAMPLES)] = None,
    where: Annotated[
        str | None, opt("Only samples for which this holds, for example \"view == 'PA' and age > 50\".", SAMPLES)
    ] = None,
    sample_list: Annotated[str | None, opt("Only the samples named in this file, one id a line.", SAMPLES)] = None,
    tokens: Annotated[
        str, opt("Of cls, mean, patch, pooled (a model's own vector), with commas.", TOKENS)
    ] = "cls,mean",
    layers: Annotated[str, opt("last, last:4, all, or numbers with commas; negative from the end.", TOKENS)] = "last",
    dtype: Annotated[
        str, opt("float16, float32, or int8: patch tokens with a scale each, while cls and mean stay float16.", TOKENS)
    ] = "float16",
    preset: Annotated[
        str, opt("default, or paper: resize, intensities and positions as in the study.", TOKENS)
    ] = "default",
    window: Annotated[
        str,
        opt(
            "auto, voi, min-max, percentile, range, ct-lung, ct-soft-tissue, ct-bone, ct-three, or CENTRE/WIDTH.",
            TOKENS,
        ),
    ] = "auto",
    plane: Annotated[str, opt("stored, or axial, coronal, sagittal by the volume's own affine.", TOKENS)] = "stored",
    time: Annotated[int, opt("Which time point of a series of volumes, from 0.", TOKENS)] = 0,
    fit: Annotated[
        str, opt("squash (the whole image), pad (keeps the aspect), processor (the model's own crop).", TOKENS)
    ] = "squash",
    size: Annotated[int | None, opt("Input size in pixels; the model's own unless given.", TOKENS)] = None,
    spacing: Annotated[
        str,
        opt("Encoders of volumes: own, none (stretched), or mm as 1.5 or 3,1,1 (z, y, x).", TOKENS),
    ] = "own",
    volume_size: Annotated[
        str | None, opt("Encoders of volumes: voxels of the input as 96 or 64,96,96 (z, y, x).", TOKENS)
    ] = None,
    sliding: Annotated[
        float | None, opt("Encoders of volumes: slide over the input, sharing so much of a window (0.5).", TOKENS)
    ] = None,
    revision: Annotated[str | None, opt("Branch, tag or commit of a hub name.", TOKENS)] = None,
    weights: Annotated[str | None, opt(WEIGHTS_HELP, RUN)] = None,
    compute_dtype: Annotated[
        str,
        opt(
            "What the backbone computes in: fp32, bf16, fp16 (autocast), or bf16-cast, fp16-cast (weights of 16 bits too). "
            "What is stored is --dtype.",
            TOKENS,
        ),
    ] = "float32",
    attention: Annotated[str, opt("sdpa or eager.", TOKENS)] = "sdpa",
    tf32: Annotated[bool, opt("On a GPU, float32 products with 10 bits of mantissa.", TOKENS, "--tf32")] = False,
    compiled: Annotated[
        bool, opt("torch.compile each block: needs a compiler, and the last bits become its own.", TOKENS, "--compile")
    ] = False,
    views: Annotated[
        int, opt("N augmented views of each slice besides the slice itself, each a store of its own.", TOKENS)
    ] = 0,
    view_preset: Annotated[
        str,
        opt(
            "medical (crops of half the area or more, never mirrored), dinov2 (crops from 8%, mirrored half the time), or "
            "SCALE,SCALE,RATIO,RATIO,FLIP.",
            TOKENS,
        ),
    ] = "medical",
    view_seed: Annotated[int, opt("Another seed draws other views.", TOKENS)] = 0,
    ids: Annotated[
        str, opt("pseudonym, or keep: whoever receives the cache can then read your ids.", TOKENS)
    ] = "pseudonym",
    device: Annotated[str, opt("auto, cpu, cuda, cuda:1.", RUN)] = "auto",
    batch_size: Annotated[
        int | None, opt("8 on a CPU, 64 on a GPU, of whole volumes 1 and 4; fixed once planned.", RUN)
    ] = None,
    threads: Annotated[int | None, opt("CPU threads of the forward pass; fixed once a pass is planned.", RUN)] = None,
    rows_per_shard: Annotated[int | None, opt("A power of two; smaller shards lose less work to a kill.", RUN)] = None,
    workers: Annotated[
        int | None, opt("Decode processes; half the cores unless given, or with a GPU all but one, 32 at most.", RUN)
    ] = None,
    decode_timeout: Annotated[float, opt("Seconds until a decoder without an answer is replaced.", RUN)] = 120.0,
    strict: Annotated[
        bool,
        opt(
            "Set a sample aside for a warning that its image may not be what it seems: gaps, tilt, a cut scan…",
            RUN,
            "--strict",
        ),
    ] = False,
    mixed: Annotated[
        bool, opt("Allow one pass to hold shards of several devices or versions.", RUN, "--mixed")
    ] = False,
    devices: Annotated[
        str | None, opt("A process for each: cuda:0,cuda:1, or all, or cpu:2. They share the work.", RUN)
    ] = None,
    allow_bad: Annotated[str, opt("Exit with 0 while no more samples are set aside: a number, or 2%.", RUN)] = "0",
    retry_quarantined: Annotated[
        bool, opt("Try samples again that were set aside, after you mended their files.", RUN, "--retry-quarantined")
    ] = False,
) -> "ExtractConfig":
    """The extraction that the options describe."""
    asked: dict[str, Any] = {
        "dataset": dataset,
        "root": root,
        "backbones": tuple(backbone or ()),
        "cache": cache,
        "tokens": tokens,
        "layers": layers,
        "dtype": dtype,
        "preset": preset,
        "window": window,
        "plane": plane,
        "time": time,
        "strict": strict,
        "fit": fit,
        "size": size,
        "spacing": spacing,
        "volume_size": volume_size,
        "sliding": sliding,
        "revision": revision,
        "weights": weights,
        "compute_dtype": compute_dtype,
        "attention": attention,
        "tf32": tf32,
        "compiled": compiled,
        "views": views,
        "view_preset": view_preset,
        "view_seed": view_seed,
        "limit": limit,
        "where": where,
        "sample_list": sample_list,
        "options": options,
        "ids": ids,
        "device": device,
        "batch_size": batch_size,
        "threads": threads,
        "rows_per_shard": rows_per_shard,
        "workers": workers,
        "decode_timeout": decode_timeout,
        "mixed": mixed,
        "devices": devices,
        "allow_bad": allow_bad,
        "retry_quarantined": retry_quarantined,
    }
    if like is None:
        return embedcache.ExtractConfig(**asked)
    typed = {"backbones" if name == "backbone" else name for name in explicit}
    return embedcache.config_like(
        like, **{n: v for n, v in asked.items() if n in typed or n in ("dataset", "root", "options")}
    )


@takes(label_options)
def sources(
    options: "DatasetOptions",
    dataset: Annotated[
        str, typer.Option(help="How the store's dataset is read: table, folder, nih-cxr14, …")
    ] = "table",
    root: Annotated[str | None, typer.Option(help="The dataset's folder, or the table.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="The hub name or local folder that made the tokens; as recorded unless given.")
    ] = None,
    weights: Annotated[str | None, opt(WEIGHTS_HELP, RUN)] = None,
    device: Annotated[str, opt("auto, cpu, cuda, cuda:1.", RUN)] = "auto",
    mixed: Annotated[bool, opt("Also on another device, or with other versions.", RUN, "--mixed")] = False,
    workers: Annotated[
        int | None, opt("Decode processes; half the cores unless given, or with a GPU all but one, 32 at most.", RUN)
    ] = None,
    decode_timeout: Annotated[float, opt("Seconds until a decoder without an answer is replaced.", RUN)] = 120.0,
) -> "ExtractConfig | None":
    """Where the images and the weights of a store lie on this machine; None where no root was given."""
    if root is None:
        if backbone is not None:
            raise InputError("tokens are computed from the images, so --backbone needs --root too.")
        return None
    return embedcache.ExtractConfig(
        dataset=dataset,
        root=root,
        backbones=(backbone,) if backbone else (),
        weights=weights,
        options=options,
        device=device,
        mixed=mixed,
        workers=workers,
        decode_timeout=decode_timeout,
    )


READING = {*inspect.signature(label_options).parameters, "dataset", "root", "cache", "ids"}
"""What `labels sync` needs: how to read the dataset, and where its stores are."""


def numbers(text: str, kind: type, switch: str) -> tuple[Any, ...]:
    """Numbers with commas between them."""
    try:
        return tuple(kind(word) for word in text.split(","))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise InputError(f"{switch} takes {what} with commas between. Got {text!r}.") from None


def place(text: str | None, switch: str) -> Path | None:
    """Where something lies; None where nothing was said. The empty text of a shell's unset variable is refused."""
    if text == "":
        raise InputError(f"{switch} is given without a name; name a file or folder, or leave it out.")
    return None if text is None else Path(text)

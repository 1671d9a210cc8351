"""`embedcache doctor`."""

from typing import TYPE_CHECKING, Annotated

import typer

import embedcache
from embedcache_cli.asking import WEIGHTS_HELP
from embedcache_cli.output import Json, print_json, print_records, print_table, size

if TYPE_CHECKING:
    from embedcache.extraction.bundle import Bundle
    from embedcache.extraction.device_check import BackboneOnDevice, DeviceReport
    from embedcache.extraction.doctor import DoctorReport


def command(
    cache: Annotated[
        str | None,
        typer.Option(help="Try what a store needs of this folder's file system: rename, sync, links, locks."),
    ] = None,
    backbone: Annotated[
        list[str] | None, typer.Option(help="Load it, and say what to do if it can not load here. Repeat it.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help=WEIGHTS_HELP)] = None,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="List the wheels and weights to carry to a machine without a network.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            help="Extract a few images on auto, cpu, cuda:0, …, compare with the CPU, and measure. A minute or more."
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Say what is installed, which devices there are, and what to do about what is missing. Exit 1 if something is wrong."""
    report = embedcache.doctor(cache, backbones=backbone or (), weights=weights, bundle=bundle, device=device)
    if json:
        print_json({**vars(report), "healthy": report.healthy})
    else:
        show(report)
    return 0 if report.healthy else 1


def show(report: "DoctorReport") -> None:
    """The report for people."""
    for name, version in report.versions.items():
        print(f"{name:16} {version}")
    for device in report.devices:
        print(f"{'device':16} {device}")
    for name, value in report.places.items():
        print(f"{name:16} {value}")
    for trial in report.file_system:
        print(f"{trial.name:21} {'ok' if trial.ok else 'FAILED'}: {trial.meaning}")
    if report.free is not None:
        print(f"{'free at the cache':21} {size(report.free)}")
    for one in report.backbones:
        print(f"{one.name}: {'loads here' if one.loads else 'can not load here'}")
    if report.device is not None:
        show_device(report.device)
    if report.bundle is not None:
        show_bundle(report.bundle)
    for warning in report.warnings:
        print(f"warning: {warning}")
    for problem in report.problems:
        print(f"problem: {problem}")
    if report.healthy:
        print("no problem found")


def show_device(report: "DeviceReport") -> None:
    """What was found on one device."""
    products = ", ".join(f"{flops(rate)} in {dtype}" for dtype, rate in report.matmul.items())
    print(f"{report.device}, {report.hardware}: matrix products at {products}")
    print_records([(b.name, on_device(b, report)) for b in report.backbones])


def on_device(b: "BackboneOnDevice", report: "DeviceReport") -> dict[str, object]:
    """One backbone line by line."""
    if b.problem:
        return {"problem": b.problem}
    lines: dict[str, object] = {
        f"{a.array}": f"{'ok' if a.ok else 'DIFFERS'}: at most {a.worst:.1e} from {report.compared_with} (bound {a.limit:.0e})"
        for a in b.agreement
    }
    for s in b.speeds:
        ended = ", where memory ends" if s.memory_bound else ""
        choice = f"--batch-size {s.batch} is a good choice (tried to {max(map(int, s.tried))}{ended})"
        if len(s.tried) == 1:
            choice = f"no batch but {s.batch} was tried{ended or ', it takes too long'}"
        lines[s.compute_dtype] = (
            f"{s.forward:,.1f} images a second, {s.share:.0%} of the matrix products' rate; {choice}"
        )
    stages = ", ".join(f"{stage} {rate:,.0f}" for stage, rate in (b.stages or {}).items())
    lines["an image"] = f"{b.flops / 1e9:,.1f} GFLOP"
    lines["end to end"] = (
        f"{b.end_to_end:,.1f} images a second ({b.images}, float32); {b.binds} binds (alone, images a second: {stages})"
    )
    return lines


def flops(rate: float) -> str:
    """A rate for people."""
    return f"{rate / 1e12:,.1f} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:,.0f} GFLOP/s"


def show_bundle(bundle: "Bundle") -> None:
    """What to carry, as commands and tables."""
    print(f"to carry to a machine with Python {bundle.python.rpartition('.')[0]} on {bundle.platform}:")
    # registries know no local part: torch 2.13.0+cpu is a build of 2.13.0
    here = [f"{wheel.name}=={wheel.version.partition('+')[0]}" for wheel in bundle.wheels if wheel.version]
    print(f"pip download --no-deps --dest wheels {' '.join(here)}")
    print(
        f"and embedcache itself; there: pip install --no-index --find-links wheels 'embedcache[{','.join(bundle.extras)}]'"
    )
    print("for a GPU box take torch (and torchvision) in the build for its CUDA, and faiss-gpu in place of faiss-cpu")
    if bundle.absent:
        print(f"asked for by one of them and not installed here: {', '.join(bundle.absent)}")
    rows = [
        (m.name, m.commit or "local folder", f.name, size(f.size), f.sha256[:12])
        for m in bundle.models
        for f in m.files
    ]
    if rows:
        print_table(("weights", "commit", "file", "size", "SHA-256"), rows)
    for m in bundle.models:
        if not m.files and m.todo:
            print(f"{m.name}: {m.todo}")

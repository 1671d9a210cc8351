"""What the benchmarks share: the last line, the machine, a sandbox, a clock."""

import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
COMMAND = Path(sys.executable).with_name("embedcache")
SHARED_DATA = Path(os.environ.get("EMBEDCACHE_SHARED_DATA", ROOT.parent / "shared" / "data"))
"""Real medical images that are not part of the repository."""


def finish(name: str, checks: dict[str, bool], **figures: Any) -> NoReturn:
    """Print the one JSON line, last on stdout, and exit: 0 where every check holds, else 1."""
    line = {"name": name, **figures, "checks": checks, "machine": machine()}
    print(json.dumps(line, default=float), flush=True)
    sys.exit(0 if all(checks.values()) else 1)


def machine() -> dict[str, Any]:
    """The processor, the cores this process may use, and how busy they were in the last minute."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


@contextmanager
def sandbox() -> Iterator[Path]:
    """A temporary folder that also holds the key and the private index; nothing is downloaded meanwhile."""
    with tempfile.TemporaryDirectory(prefix="embedcache-benchmark-") as folder:
        os.environ["EMBEDCACHE_HOME"] = str(Path(folder) / "home")
        os.environ["HF_HUB_OFFLINE"] = "1"
        yield Path(folder)


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def of_children() -> float:
    """Processor time of all children that have ended, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def median(values: list[float]) -> float:
    """The median: a shared machine's slow moments weigh nothing."""
    return statistics.median(values)

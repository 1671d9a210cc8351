"""Spoilt image files through the real decode process: bytes changed, cut, numbers inflated, bombs, endless nesting.

`python benchmarks/fuzz_images.py --n 2000 --seed 0`. Every file (DICOM in eight transfer syntaxes, NIfTI, PNG, JPEG, TIFF,
NumPy, MATLAB, NRRD, MetaImage: those whose readers are installed) is counted, as a plan does it, and then decoded by a
`DecodePool`, both in processes that may take 2 GiB beyond what they have when they begin. It is held if within 20 s it gives
slices, as many as were counted, or a reason that names no path, file or patient, and if the process lives on.
"""

import argparse
import json
import os
import random
import resource
import select
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from common import finish, sandbox

from embedcache.errors import ImageError
from embedcache.extraction.decode import DecodePool
from embedcache.extraction.pieces import Request
from embedcache.images import count_slices
from embedcache.images.options import ImageOptions
from embedcache.images.windows import WINDOWS
from embedcache.testing.fuzz import SECRET, SPOILERS, bombs, whole_files

SECONDS = 20.0
MEMORY_BYTES = 2 * 2**30
HELD = ("slices", "reason")
MOST_SLICES = 64
"""That are decoded of one file."""
FOREIGN = "its decoder failed with"
"""How the decode process begins a reason for what no reader of ours foresaw."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="spoilt files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="100 files")
    parser.add_argument("--keep", help="a folder for the files that were not held")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        return count_for_ever()
    n = 100 if asked.quick else asked.n

    outcomes: Counter[str] = Counter()
    by_kind: Counter[str] = Counter()
    foreign: Counter[str] = Counter()
    faults: list[str] = []
    slowest, started = 0.0, time.perf_counter()
    with sandbox() as folder:
        (folder / "whole").mkdir()
        seeds = whole_files(folder / "whole")
        bad = list(bombs().items())
        place = folder / SECRET
        place.mkdir()
        rng = random.Random(asked.seed)
        with Judge() as judge:
            for i in range(n):
                if i < len(bad):
                    kind, (name, data) = "bomb", bad[i]
                else:
                    kind = list(SPOILERS)[i % len(SPOILERS)]
                    name = rng.choice(list(seeds))
                    data = SPOILERS[kind](seeds[name], rng)
                path = place / f"{SECRET}-{name}"
                path.write_bytes(data)
                began = time.perf_counter()
                outcome, why = judge.judge(path)
                slowest = max(slowest, time.perf_counter() - began)
                outcomes[outcome] += 1
                by_kind[kind] += outcome in HELD
                if FOREIGN in why:
                    foreign[f"{name}: {why}"] += 1
                if outcome not in HELD:
                    faults.append(f"{kind} {name}: {outcome}: {why[:300]}")
                    if asked.keep:
                        Path(asked.keep).mkdir(exist_ok=True)
                        (Path(asked.keep) / f"{i:05}-{name}").write_bytes(data)
                path.unlink()
            peak = judge.peak
    held = sum(outcomes[outcome] for outcome in HELD)
    said = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    print(f"{n} files: {said}; slowest {slowest:.1f} s, peak {peak / 2**20:.0f} MiB")
    for line in faults[:20]:
        print(f"  {line}")
    finish(
        "fuzz_images",
        {
            "no_crash": not outcomes["crash"],
            "no_hang": not outcomes["hang"],
            "within_2_GiB": peak <= MEMORY_BYTES,
            "counts_agree": not outcomes["counts differ"],
            "no_identifier": not outcomes["identifier"],
        },
        tried=n,
        held=held,
        ratio=held / n,
        outcomes=dict(outcomes),
        by_kind=dict(by_kind),
        foreign=dict(foreign),
        faults=faults,
        formats=sorted({name.partition(".")[2] for name in seeds}),
        slowest_seconds=round(slowest, 1),
        peak_MiB=round(peak / 2**20),
        seconds=round(time.perf_counter() - started, 1),
        seed=asked.seed,
    )


class Judge:
    """Two limited processes: one that counts, and the decode process of a pool."""

    def __enter__(self) -> "Judge":
        self.peak = 0
        """Bytes resident in either process, at most."""
        self.limited: set[int] = set()
        self.pool = DecodePool(1, WINDOWS["auto"], ImageOptions(), timeout=SECONDS, prefetch=1, stopping=lambda: False)
        self.counter = self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.__exit__()
        self.counter.kill()
        self.counter.communicate()

    def judge(self, path: Path) -> tuple[str, str]:
        """(outcome, reason)."""
        counted = self._count(path)
        if counted.get("outcome"):
            return counted["outcome"], counted.get("reason", "")
        if "reason" in counted:
            return said(counted["reason"])
        n = counted["slices"]
        self._limit(self.pool.decoders[0].process.pid)
        found, outcomes = 0, []
        for piece in self.pool.pieces([Request(0, str(path), n, 0, min(n, MOST_SLICES))]):  # to its end: it holds slots
            self._look(self.pool.decoders[0].process.pid)
            found += piece.stop - piece.start
            if piece.volume is None:
                outcomes.append(said(piece.reason))
            else:
                outcomes += [("identifier", w) for w in piece.volume.warnings if SECRET in w]
        if found != min(n, MOST_SLICES):
            return "counts differ", f"{found} of {n} came"
        return next((o for o in outcomes if o[0] != "reason"), outcomes[0] if outcomes else ("slices", ""))

    def _count(self, path: Path) -> dict[str, Any]:
        assert self.counter.stdin is not None
        assert self.counter.stdout is not None
        self.counter.stdin.write(f"{path}\n".encode())
        self.counter.stdin.flush()
        deadline = time.monotonic() + SECONDS
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.counter.stdout], [], [], max(deadline - time.monotonic(), 0))
            arrived = os.read(self.counter.stdout.fileno(), 2**16) if ready else b""
            if not arrived:
                self.counter.kill()
                code = self.counter.wait()
                self.counter = self._start()
                return {"outcome": "crash" if ready else "hang", "reason": f"counting ended with {code}"}
            line += arrived
        self._look(self.counter.pid)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, __file__, "--child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _limit(self, pid: int) -> None:
        """2 GiB more of address space than the decode process has once it has begun."""
        if pid in self.limited:
            return
        deadline = time.monotonic() + 60
        # it ignores SIGINT once its imports are done: until then its size says nothing
        while not ignores_interrupts(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        most = status(pid, "VmSize") + MEMORY_BYTES
        resource.prlimit(pid, resource.RLIMIT_AS, (most, most))
        self.limited.add(pid)

    def _look(self, pid: int) -> None:
        try:
            self.peak = max(self.peak, status(pid, "VmHWM"))
        except (OSError, StopIteration):  # it just died, which is told otherwise
            return


def said(reason: str) -> tuple[str, str]:
    """The outcome of a file that was set aside with a reason."""
    if SECRET in reason or "/" in reason.replace("NumPy/", ""):
        return "identifier", reason
    if "decoder process died" in reason:
        return "crash", reason
    if "no answer within" in reason:
        return "hang", reason
    if "where the plan has" in reason:
        return "counts differ", reason
    return "reason", reason


def status(pid: int, name: str) -> int:
    """A size in bytes of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024


def ignores_interrupts(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    ignored = int(next(line for line in lines if line.startswith("SigIgn:")).split()[1], 16)
    return bool(ignored & 2)  # SIGINT is number 2, the second bit


def count_for_ever() -> None:
    """The child: count the slices of each path on stdin, within the limit."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    most = status(os.getpid(), "VmSize") + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"slices": count_slices(line.rstrip("\n"))}
        except ImageError as error:
            answer = {"reason": error.reason}
        except MemoryError:
            answer = {"reason": "the image needs more memory than there is"}
        except Exception as error:  # noqa: BLE001 what planning would die of is what is looked for
            answer = {"outcome": "crash", "reason": f"counting raised {type(error).__name__}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()

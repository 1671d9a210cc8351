"""`--devices`: one process for each device, which share the work by leases as any extractions do."""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from embedcache.datasets.base import DatasetOptions
from embedcache.errors import InputError, WorkerFailedError
from embedcache.extraction.config import ExtractConfig
from embedcache.extraction.device import ready_device
from embedcache.extraction.opening import open_stores
from embedcache.extraction.prepare import Prepared
from embedcache.extraction.progress import Listener, Progress
from embedcache.extraction.signals import StopFlag, watch_signals
from embedcache.extraction.sources import Tell
from embedcache.store.processes import child_environment


def parse_devices(text: str) -> tuple[str, ...]:
    """`cuda:0,cuda:1`, `all` (every GPU), `cpu:2` (two processes on the CPU) as a device for each process.

    Raises InputError for other words, for a GPU named twice, and for a mixture of GPUs and the CPU.
    """
    if text == "all":
        count = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
        if not count:
            raise InputError("--devices all means every NVIDIA GPU, and there is none here; use cpu:N.")
        return tuple(f"cuda:{i}" for i in range(count))
    if cpu := re.fullmatch(r"cpu:([1-9]\d?)", text):
        return ("cpu",) * int(cpu[1])
    found = tuple(word.strip() for word in text.split(","))
    if not all(re.fullmatch(r"cuda:\d+", word) for word in found) or len(set(found)) < len(found):
        raise InputError(f"devices must be like cuda:0,cuda:1 (each once), all, or cpu:2. Got {text!r}.")
    return found


def threads_each(config: ExtractConfig) -> int | None:
    """CPU threads of each process: as asked, else on the CPU an equal share of the cores."""
    devices = parse_devices(config.devices or "")
    if config.threads is not None or devices[0] != "cpu":
        return config.threads
    return max(1, len(os.sched_getaffinity(0)) // len(devices))


@dataclass
class Child:
    """One process, and what it last said of itself."""

    device: str
    process: "subprocess.Popen[str]"
    progress: Progress | None = None
    decoded: int = 0
    failure: str = ""
    exit_code: int | None = None
    told_to_stop: bool = False

    def end(self) -> None:
        """Let go of a process that has closed its stdout."""
        self.exit_code = self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    @property
    def died(self) -> str:
        """What became of a process that did not end well, "" of one that did."""
        if self.exit_code in (0, 1) and not self.failure:
            return ""
        if self.exit_code is not None and self.exit_code < 0:
            return f"was killed ({signal.Signals(-self.exit_code).name})"
        return self.failure or f"ended with code {self.exit_code}"


def run_on_devices(prepared: Prepared, listener: Listener) -> tuple[int, str]:
    """Fill what the stores lack with a process for each device. Returns slices decoded and the stage that bound.

    What a process that died had leased is done by the others. Raises WorkerFailedError if all died, and Interrupted.
    """
    config = prepared.config
    devices = parse_devices(config.devices or "")
    ready_device(replace(config, device=devices[0]), prepared.threads)  # before a pass is bound to its kind
    with ExitStack() as workers:
        open_stores(prepared, listener.tell, workers)  # once, so that a retry is not begun by each
        return run_children(prepared, devices, listener)


def run_children(prepared: Prepared, devices: Sequence[str], listener: Listener) -> tuple[int, str]:
    """A process for each device, on stores that are ready, until all have ended."""
    alone = replace(prepared.config, devices=None, retry_quarantined=False, threads=prepared.threads)
    said: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
    children = [start(replace(alone, device=device)) for device in devices]
    for i, child in enumerate(children):
        threading.Thread(target=listen, args=(i, child.process, said), daemon=True).start()
    told: set[str] = set()

    def tell(line: str) -> None:
        if line not in told:  # each process has the same notices
            told.add(line)
            listener.tell(line)

    with watch_signals() as stop:
        running = len(children)
        while running:
            forward(stop, children)
            try:
                i, message = said.get(timeout=0.25)
            except queue.Empty:
                continue
            if message is None:
                running -= 1
                children[i].end()
            else:
                take(children[i], message, tell)
                listener.progress(together(children))
    if stop():
        raise stop.interrupted()
    judge(children, tell)
    total = together(children)
    return sum(child.decoded for child in children), total.binds if total.done else ""


def start(config: ExtractConfig) -> Child:
    """A process that extracts on one device. It ends when its stdin closes, so never outlives this one for long."""
    process = subprocess.Popen(
        [sys.executable, "-m", "embedcache.extraction.device_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died at once; `listen` sees its end
        process.stdin.write(json.dumps(asdict(config)) + "\n")
        process.stdin.flush()
    return Child(config.device, process)


def listen(i: int, process: "subprocess.Popen[str]", said: "queue.Queue[tuple[int, dict[str, Any] | None]]") -> None:
    """Pass on what a process says, line by line, and None at its end."""
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            said.put((i, json.loads(line)))
    said.put((i, None))


def forward(stop: StopFlag, children: list[Child]) -> None:
    """Ask the processes to end cleanly, once this one was asked to."""
    if stop():
        for child in children:
            if child.exit_code is None and not child.told_to_stop:
                child.told_to_stop = True
                child.process.send_signal(signal.SIGTERM)


def take(child: Child, message: dict[str, Any], tell: Tell) -> None:
    """What one line of a process means."""
    match message:
        case {"progress": progress}:
            child.progress = Progress(**progress)
        case {"tell": line}:
            tell(line)
        case {"decoded": decoded}:
            child.decoded = decoded
        case {"error": error}:
            child.failure = error


def together(children: list[Child]) -> Progress:
    """The progress of all. What a process has done is not left for another, so what is left is the least that any expects."""
    known = [child.progress for child in children if child.progress is not None]
    done = sum(p.done for p in known)
    left = max((p.total - p.done for p in known), default=0)
    return Progress(
        done,
        done + left,
        sum(p.waited_decode for p in known),
        sum(p.waited_write for p in known),
        sum(p.computed for p in known),
    )


def judge(children: list[Child], tell: Tell) -> None:
    """Say which processes did not end well; raise WorkerFailedError if none did."""
    dead = [child for child in children if child.died]
    if len(dead) == len(children):
        raise WorkerFailedError(f"on {dead[0].device}: {dead[0].died}", max(1, dead[0].exit_code or 0))
    for child in dead:
        tell(f"the process on {child.device} {child.died}; the others did its work")


def config_of(text: str) -> ExtractConfig:
    """A configuration from the JSON line that `start` writes."""
    raw = json.loads(
        text, object_hook=lambda found: {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
    )
    return ExtractConfig(**{**raw, "options": DatasetOptions(**raw["options"])})


def wait_for_end(stdin: IO[str]) -> None:
    """Ask this process to end cleanly when its parent is gone."""
    stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)

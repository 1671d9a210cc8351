"""SIGINT and SIGTERM end a run cleanly: what is whole is committed first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from embedcache.errors import Interrupted


class StopFlag:
    """Set by the first SIGINT or SIGTERM; asked between pieces."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> bool:
        """Whether the run should end."""
        return self.number != 0

    def interrupted(self) -> Interrupted:
        """What is raised once the run has ended for it."""
        return Interrupted(
            f"stopped by {signal.Signals(self.number).name}; every whole shard is committed, "
            "and the same command resumes the run",
            self.number,
        )

    def signalled(self, number: int, frame: FrameType | None) -> None:
        """The first signal asks for a clean end, a second SIGINT ends at once."""
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def watch_signals() -> Iterator[StopFlag]:
    """While the block runs, SIGINT and SIGTERM set a flag (in the main thread; elsewhere they keep their meaning)."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {n: signal.signal(n, flag.signalled) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

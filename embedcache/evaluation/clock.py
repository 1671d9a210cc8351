"""Seconds per stage of a job, and who is told what begins."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

Progress = Callable[[str], None]
"""Told what begins, in a few words."""

Outcome = TypeVar("Outcome")


@dataclass
class Clock:
    """Seconds per stage."""

    progress: Progress | None
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, stage: str, job: Callable[[], Outcome]) -> Outcome:
        """Do `job` as (a part of) `stage`."""
        if self.progress is not None:
            self.progress(stage)
        start = time.perf_counter()
        outcome = job()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
        return outcome

    def rounded(self) -> dict[str, float]:
        """Milliseconds are enough for a result."""
        return {stage: round(seconds, 3) for stage, seconds in self.seconds.items()}

"""What a run says of itself while it goes on."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a run is, for a progress bar or a log line."""

    done: int
    """Slices computed in this run, counted once for all backbones."""
    total: int
    waited_decode: float
    """Seconds the computing thread waited for pixels, for the writer, and computed."""
    waited_write: float
    computed: float

    @property
    def binds(self) -> str:
        """The stage that everything else waits for: `decode`, `forward` or `write`."""
        times = {"decode": self.waited_decode, "forward": self.computed, "write": self.waited_write}
        return max(times, key=lambda stage: times[stage])


@dataclass(frozen=True)
class Listener:
    """Who hears of a run; nobody by default."""

    tell: Callable[[str], None] = lambda _: None
    """Receives one line for the user: a notice, never an identifier."""
    progress: Callable[[Progress], None] = lambda _: None

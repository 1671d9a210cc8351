"""What windows came to over whole volumes: computed once, kept beside the private index, and used by every later run.

A line for each content and way of reading it, under the content's digest: what changes on disk is another content, and its old
line is never found again. A lost or torn line costs one reading of a volume, never a wrong answer.
"""

import json
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from embedcache.datasets.index import PrivateIndex
from embedcache.images import ImageOptions
from embedcache.images.windows import window_text
from embedcache.types import Window

Limits = npt.NDArray[np.float64]
"""(n or 1, channels, 2): physical low and high of each slice, one row where all slices have the same."""


_SUFFIX = ".limits.jsonl"


@dataclass
class VolumeLimits:
    """The limits of one window, read in one way, by the digests of contents."""

    index: PrivateIndex
    reading: str
    """The window, the plane and the time point."""
    of: dict[str, Limits] = field(default_factory=dict)

    @classmethod
    def open(cls, index: PrivateIndex, window: Window, options: ImageOptions) -> "VolumeLimits":
        """What is kept beside an index for a window in a plane and at a time point. Writes nothing."""
        reading = f"{window_text(window)} {options.plane} {options.time}"
        path = index.beside(_SUFFIX)
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        return cls(index, reading, dict(_lines(text, reading)))

    def get(self, digest: str) -> Limits | None:
        """Of a content, exactly as they were computed."""
        return self.of.get(digest)

    def note(self, digest: str, limits: Limits) -> None:
        """Keep what was computed, at once: the next process may be another one."""
        if digest in self.of:
            return
        self.of[digest] = limits
        # repr of a float is exact, and so is what json reads of it
        line = {"digest": digest, "reading": self.reading, "limits": limits.tolist()}
        self.index.append(_SUFFIX, json.dumps(line))


def _lines(text: str, reading: str) -> list[tuple[str, Limits]]:
    found = []
    for line in text.splitlines():
        try:
            noted = json.loads(line)
            limits = np.asarray(noted["limits"], dtype=np.float64)
            if noted["reading"] == reading and limits.ndim == 3 and limits.shape[2] == 2:
                found.append((str(noted["digest"]), limits))
        except (ValueError, KeyError, TypeError):  # half a line of a killed process
            continue
    return found

"""What a pool of decode processes is told of whole volumes, so that none is read for its statistics a second time."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.datasets.index import PrivateIndex
from embedcache.datasets.volume_limits import VolumeLimits
from embedcache.images import ImageOptions
from embedcache.types import StringArray, Window


@dataclass
class KnownLimits:
    """The limits of a window over whole volumes, by the position of a sample in a plan."""

    digests: StringArray
    """(samples,) content of each as it was last seen, "" where it was not read yet."""
    kept: VolumeLimits

    def known(self, sample: int) -> dict[str, Any] | None:
        """What a request carries: the decoder uses it if the content is still that one."""
        digest = str(self.digests[sample])
        limits = self.kept.get(digest) if digest else None
        return None if limits is None else {"digest": digest, "limits": limits.tolist()}

    def learn(self, sample: int, digest: str, limits: list[Any]) -> None:
        """Keep what a decode process computed."""
        self.digests[sample] = digest
        self.kept.note(digest, np.asarray(limits, dtype=np.float64))


def known_limits(ids: StringArray, sources: PrivateIndex, window: Window, options: ImageOptions) -> KnownLimits | None:
    """What is known of these samples; None for a window that never looks at a whole volume."""
    if window.name != "auto" and window.scope != "volume":
        return None
    return KnownLimits(sources.lookup(ids, ("digest",))["digest"], VolumeLimits.open(sources, window, options))

"""What readers say of images that are read all the same (slices are missing): a line for each text, and its count."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from embedcache.store.texts import locate
from embedcache.types import Samples, strings

MOST_LINES = 20
"""A text with millimetres in it may differ from volume to volume."""


@dataclass
class Remarks:
    """Of one run, over all its turns: what two backbones read counts once."""

    samples: dict[str, set[str]] = field(default_factory=dict)
    """Text → the ids of the samples that it is said of; no text names one."""

    def note(self, sample: str, texts: Iterable[str]) -> None:
        """What is said of a sample's image."""
        for text in texts:
            self.samples.setdefault(text, set()).add(sample)

    def lines(self, samples: Samples) -> list[str]:
        """The commonest first, each with the rows of the user's list that it is said of."""
        ordered = sorted(self.samples.items(), key=lambda item: (-len(item[1]), item[0]))
        lines = [
            f"{len(of)} sample{'' if len(of) == 1 else 's'}: {text}{_where(of, samples)}"
            for text, of in ordered[:MOST_LINES]
        ]
        if len(ordered) > MOST_LINES:
            lines.append(f"{len(ordered) - MOST_LINES} more remarks of that kind")
        return lines


def _where(ids: Iterable[str], samples: Samples) -> str:
    """In which rows of their list the samples stand that were asked for; "" if none was."""
    at = locate(strings(list(ids)), samples.id)
    found = at[at >= 0]
    return f" ({samples.where_all(found)})" if len(found) else ""


@contextmanager
def remarks_told(tell: Callable[[str], None], samples: Samples) -> Iterator[Remarks]:
    """What is noted inside is told at the end, an interrupted run's too."""
    remarks = Remarks()
    try:
        yield remarks
    finally:
        for line in remarks.lines(samples):
            tell(line)

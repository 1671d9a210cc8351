"""What a probe begins while its question is being settled: features are read, and memory is touched where they will be scaled."""

from collections.abc import Mapping

import numpy as np

from embedcache.evaluation.feature_choices import FeatureChoice, widest
from embedcache.probes.scratch import Scratch
from embedcache.store.ahead import ReadAhead
from embedcache.store.reader import FeatureCache
from embedcache.types import Split


class Ahead:
    """A context, as `ReadAhead` is. Of slices that will be pooled nothing is begun: their means are not what is stored."""

    def __init__(self) -> None:
        self.reading = ReadAhead()
        self.scratch = Scratch()

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *_: object) -> None:
        self.scratch.release()
        self.reading.__exit__()

    def begin(self, cache: FeatureCache, choices: Mapping[str, FeatureChoice]) -> None:
        """Read the vectors of all choices, where a sample has one row."""
        if cache.unit == "volume" or bool((cache.index.plan.slice_count == 1).all()):
            kind, layers = widest(choices.values())
            self.reading.start(cache, kind, layers or None)

    def drop(self) -> None:
        """Other rows will be needed than those that were begun."""
        self.reading.drop()

    def make_room(self, split: Split, choices: Mapping[str, FeatureChoice]) -> None:
        """Touch the memory of the rows that are fitted, once the features are read, if they will be scaled."""
        if any(choice.standardize for choice in choices.values()):
            self.reading.then(lambda width: self.scratch.touch(int(np.sum(split.part != "test")) * width))

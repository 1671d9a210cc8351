"""Which part of a split each row that was read belongs to, how many there are, and who is left out: the same for every job."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError
from embedcache.evaluation.reading import count_samples
from embedcache.evaluation.splits import part_rows
from embedcache.evaluation.statistics import Patients
from embedcache.probes.base import Matrix
from embedcache.store.features import Features
from embedcache.store.texts import locate
from embedcache.types import PARTS, strings

if TYPE_CHECKING:
    from embedcache.evaluation.question import Question


def asked_labels(question: "Question", features: Features) -> Matrix:
    """(n,) or, for a multilabel task, (n, classes): the labels of the classes that are asked for."""
    return features.y[:, question.columns] if question.kind == "multilabel" else features.y


def divide(
    question: "Question", features: Features, needed: Sequence[str] = PARTS
) -> tuple[npt.NDArray[np.str_], dict[str, int]]:
    """The part of each row, "" for those without any label; and the counts, who was left out included.

    Raises InputError where a part of those that are `needed` has no row.
    """
    parts = part_rows(question.split, features.sample_id)
    y = asked_labels(question, features)
    unlabelled = np.asarray(np.isnan(y).reshape(len(y), -1).all(axis=1), dtype=np.bool_)
    parts[unlabelled] = ""
    samples = question.cache.samples()
    current = ~samples.superseded
    counts = {
        "left_out_superseded": int((~current).sum()),
        "left_out_quarantined": int((current & _without_slices(question)).sum()),
        "left_out_not_in_split": int((locate(samples.id[current], strings(question.split.sample)) < 0).sum()),
        "left_out_no_label": count_samples(features, unlabelled),
    }
    for part in PARTS:
        inside = parts == part
        if part in needed and not inside.any():
            raise InputError(
                f"the {part} part has no sample with features and a label of task {question.task.name!r}; "
                "give another split with --split FILE."
            )
        counts[f"{part}_samples"] = count_samples(features, inside)
        counts[f"{part}_patients"] = Patients.of(features.groups[inside]).count if inside.any() else 0
        counts[f"{part}_rows"] = int(inside.sum())
    return parts, counts


def _without_slices(question: "Question") -> npt.NDArray[np.bool_]:
    """(samples,): of which no slice can be read, of one plane at least."""
    samples = question.cache.samples()
    bad: npt.NDArray[np.bool_] = samples.ok_slices == 0
    for plane in question.planes:
        of_plane = plane.samples()
        bad |= locate(samples.id, of_plane.id[of_plane.ok_slices == 0]) >= 0
    return bad

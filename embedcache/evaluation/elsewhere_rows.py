"""The test rows of a second store, read once the choice is made; and what a result says of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError
from embedcache.evaluation.elsewhere import Elsewhere
from embedcache.evaluation.equal_tokens import with_tokens_of
from embedcache.evaluation.question import ProbeConfig, Question
from embedcache.evaluation.reading import count_samples, incomplete_notes, read_elsewhere_rows
from embedcache.evaluation.results import source_of
from embedcache.evaluation.selection import Rows
from embedcache.evaluation.splits import part_rows
from embedcache.evaluation.statistics import Patients
from embedcache.evaluation.store_inputs import NOT_UNSEEN, patient_notes
from embedcache.store.features import join


@dataclass(frozen=True)
class RowsElsewhere:
    """Rows of the second store, in the first one's classes."""

    rows: Rows
    counts: Mapping[str, int]
    notes: tuple[str, ...]

    def counted(self, counts: Mapping[str, int]) -> dict[str, int]:
        """The first store's counts with these test rows in place of its own, which are told as unused."""
        return {**counts, "unused_test_samples": counts["test_samples"], **self.counts}


def read_elsewhere(question: Question, there: Elsewhere, config: ProbeConfig) -> RowsElsewhere:
    """The rows of the second store that may test and have a label. Raises InputError where there is none."""
    features = read_elsewhere_rows(question, config, there)
    y = there.y(features.y, question.task)
    unlabelled = np.asarray(np.isnan(y).reshape(len(y), -1).all(axis=1), dtype=np.bool_)
    if unlabelled.all():
        raise InputError(
            f"no sample of {there.cache.path.name} ({there.name}) has features and a label of task {question.task.name!r}; "
            "give its labels with --test-labels FILE."
        )
    at = np.arange(len(features.X))
    every = Rows(features.X, at, y, features.groups, features.sample_id, features.slice_index, features.sizes)
    rows = every.take(~unlabelled)
    samples = there.cache.samples()
    current = ~samples.superseded
    counts = {
        "test_left_out_superseded": int((~current).sum()),
        "test_left_out_quarantined": int((current & (samples.ok_slices == 0)).sum()),
        "test_left_out_trained_patients": there.trained_samples,
        "test_left_out_no_label": count_samples(features, unlabelled),
        "test_samples": count_samples(features, ~unlabelled),
        "test_patients": Patients.of(rows.groups).count,
        "test_rows": len(rows),
    }
    own = question.cache.root.dataset.name
    if there.cache.path.resolve() == question.cache.path.resolve():
        notes = [
            f"--test names the store that is fitted: tested on those of {own} whose patients neither train nor validate."
        ]
    else:
        notes = [f"tested on {there.name}; the own test part of {own} is not used."]
    if there.trained_samples:
        notes.append(
            f"{there.trained_samples} samples of {there.trained_patients} patients were left out of {there.name}: "
            "these patients train or validate."
        )
    notes += _seen_notes(question, there, rows)
    notes += patient_notes(there.cache, f" of {there.name}")
    notes += incomplete_notes(features, question, config.strict_volumes, f" of {there.name}")
    return RowsElsewhere(rows, counts, (*notes, *there.notes))


def _seen_notes(question: Question, there: Elsewhere, rows: Rows) -> list[str]:
    """What is to be said of test samples that are images which the probe was fitted or chosen on, under whatever ids."""
    choice = next(iter(question.choices.values()))
    fitted = _fitted_samples(question)
    same = with_tokens_of(question.cache, there.cache, fitted, choice.kind, choice.layers)
    # a row that was pooled over several samples has the name of one of them
    tested = there.samples if question.pool_by is not None else np.unique(rows.sample_id)
    count = int(np.isin(tested, same).sum())
    if not count:
        return []
    own = question.cache.root.dataset.name
    return [
        f"{count:,} of {len(tested):,} test samples of {there.name} have the very tokens of a sample of {own} that trains or "
        f"validates, {NOT_UNSEEN}; `embedcache leaks STORE --against OTHER` names them."
    ]


def _fitted_samples(question: Question) -> npt.NDArray[np.bool_]:
    """(samples,): which samples of the fitted store train or validate. With labels by slice, those without any are among them."""
    samples, task = question.cache.samples(), question.task
    fitted: npt.NDArray[np.bool_] = np.isin(part_rows(question.split, samples.id), ("train", "validation"))
    fitted &= ~samples.superseded
    if task.level != "slice":
        y = join(question.labels, task, samples.id, samples.patient_id, np.full(len(samples), -1, dtype=np.int32))
        asked = y[:, question.columns] if question.kind == "multilabel" else y
        fitted &= ~np.isnan(asked).reshape(len(samples), -1).all(axis=1)
    return fitted


def source_elsewhere(there: Elsewhere) -> dict[str, str]:
    """What a table calls the tested store, beside the fitted one."""
    tested = source_of(there.cache)
    return {"test_dataset": tested["dataset"], "test_store": tested["store"]}

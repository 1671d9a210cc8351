"""AUROC and average precision of one label from how often each patient is drawn: exact integer counts, many draws at once.

Both figures are sums over the positives of what lies below them, so only the positives' places matter: the negatives are counted
once per patient and stretch between two neighbouring places, as a sparse matrix. A block of resamples is one product of
that matrix with the patients' draws, one cumulated sum over the stretches and one sum over the positives. Nothing is
sorted or gathered again, and no weight per row is ever made.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from embedcache.evaluation.bootstrap import Draws
from embedcache.evaluation.metrics import Ranking, ratio
from embedcache.evaluation.statistics import Patients
from embedcache.probes.base import Matrix

_SHORT, _WORD = 2**16, 2**32
_PLACES = 128
"""At a time: as many as a core's cache holds of a block of resamples."""
Integers = npt.NDArray[np.int64]
Counts = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Ranks:
    """One label's rows, counted per patient. A place is a distinct score that a positive has; places ascend."""

    positive: csr_matrix
    """(places, patients): positives at each place."""
    below: csr_matrix
    """(places + 1, patients): negatives at or above the place before, and below this one; the last row is all above."""
    tied: csr_matrix
    """(ties, patients): negatives that share a place with a positive."""
    tie: Integers
    """(ties,): which places those are."""
    group: Integers
    """(rows,), ascending: number of the row's score among the distinct ones, of the rows kept."""
    place: Integers
    """(rows,): the highest place that is not above the row; -1 below all."""
    is_positive: npt.NDArray[np.bool_]
    is_tied: npt.NDArray[np.bool_]
    """(rows,): a negative at a place."""
    patient: Integers
    """(rows,): number of the row's patient."""

    @classmethod
    def of(cls, y: Matrix, score: Matrix, patients: Patients) -> "Ranks":
        """y (n,) of 0, 1, NaN; score (n,); rows where either is NaN are left out."""
        return cls.of_ranking(Ranking.of(y, score), patients)

    @classmethod
    def of_ranking(cls, ranking: Ranking, patients: Patients) -> "Ranks":
        """Of rows that were sorted already."""
        patient, is_positive = patients.code[ranking.index], np.asarray(ranking.positive == 1)
        ends = np.append(ranking.starts[1:], len(ranking.index))
        group = np.repeat(np.arange(len(ranking.starts)), ends - ranking.starts)
        is_place = np.bincount(group, is_positive, len(ends)) > 0
        place = (np.cumsum(is_place) - 1)[group]
        is_tied = ~is_positive & is_place[group]
        at = place[is_tied]
        first = np.append(True, at[1:] != at[:-1])[: len(at)]
        tie, which = at[first], np.cumsum(first) - 1
        places = int(is_place.sum())
        return cls(
            _counts(place[is_positive], patient[is_positive], places, patients.count),
            _counts(place[~is_positive] + 1, patient[~is_positive], places + 1, patients.count),
            _counts(which, patient[is_tied], len(tie), patients.count),
            tie,
            group,
            place,
            is_positive,
            is_tied,
            patient,
        )

    @property
    def defined(self) -> bool:
        """Whether there are both classes."""
        return bool(self.is_positive.any()) and not bool(self.is_positive.all())

    def figures(self, draws: Draws) -> Matrix:
        """AUROC and average precision of every resample, shape (2, resamples); NaN without both classes."""
        positive, below = self._product(self.positive, draws), cumulated(self._product(self.below, draws))
        return np.stack([self._auroc(positive, below, draws), _average_precision(positive, below)])

    def auroc(self, draws: Draws) -> Matrix:
        """AUROC alone, shape (resamples,): in under half of the time of both."""
        return self._auroc(self._product(self.positive, draws), cumulated(self._product(self.below, draws)), draws)

    def places_of(self, draws: Draws) -> tuple[Matrix, Matrix, Matrix, Matrix]:
        """Positives at each place, negatives below it and at it, (places, resamples) each; all negatives (resamples,)."""
        positive, below = self._product(self.positive, draws), cumulated(self._product(self.below, draws))
        tied = np.zeros(positive.shape)
        tied[self.tie] = self._product(self.tied, draws)
        return positive.astype(np.float64), below[:-1].astype(np.float64), tied, below[-1].astype(np.float64)

    def _auroc(self, positive: Counts, below: Counts, draws: Draws) -> Matrix:
        all_positive, all_negative = positive.sum(axis=0, dtype=np.float64), below[-1].astype(np.float64)
        # Twice the number of ordered pairs is a whole number: exact in 32 bits where it fits, else below 2^53.
        fits = 2 * all_positive.max(initial=0) * all_negative.max(initial=0) < _WORD
        ordered = 2.0 * _sum_of_products(positive, below[:-1], fits)
        if len(self.tie):
            ordered += _sum_of_products(positive[self.tie], self._product(self.tied, draws), fits)
        return ratio(ordered, 2 * all_positive * all_negative)

    def _product(self, counts: csr_matrix, draws: Draws) -> Counts:
        largest = int(counts.sum(axis=1).max()) if counts.shape[0] else 0
        short = largest * draws.largest < _SHORT
        return np.asarray((counts @ (draws.count if short else draws.count.astype(np.uint32))).astype(np.uint32))

    # --- each patient left out ---

    def left_out(self) -> Matrix:
        """AUROC and average precision without each patient, shape (2, patients); NaN where that leaves no class."""
        return np.stack([self._auroc_left_out(), self._precision_left_out()])

    @property
    def _patients(self) -> int:
        return int(self.positive.shape[1])

    def _per_patient(self, values: Matrix, rows: npt.NDArray[np.bool_]) -> Matrix:
        return np.bincount(self.patient[rows], values, self._patients).astype(np.float64)

    def _auroc_left_out(self) -> Matrix:
        """All pairs, less those of the patient's positives, less those of its negatives, plus those counted twice."""
        positive = _row_sums(self.positive)
        stretch = _row_sums(self.below)
        below = np.cumsum(stretch)[:-1]
        tied = np.zeros(len(positive))
        tied[self.tie] = _row_sums(self.tied)
        wins = 2 * below + tied
        above = positive.sum() - np.append(0.0, np.cumsum(positive))
        is_negative = ~self.is_positive
        at, here = self.place[is_negative], self.place[self.is_positive]
        loses = 2 * above[at + 1] + np.where(self.is_tied[is_negative], np.append(positive, 0.0)[at], 0.0)
        p, n = (self._per_patient(np.ones(int(rows.sum())), rows) for rows in (self.is_positive, is_negative))
        ordered = (positive * wins).sum() - self._per_patient(wins[here], self.is_positive)
        ordered += self._within() - self._per_patient(loses, is_negative)
        return ratio(ordered, 2 * (p.sum() - p) * (n.sum() - n))

    def _by_patient(self, backwards: bool = False) -> Integers:
        """Rows patient by patient, each one's in order of their scores (or in the reverse of it, counted from the end)."""
        patient = self.patient[::-1] if backwards else self.patient
        short = self._patients < _SHORT  # numpy sorts 16 bits by radix
        return np.argsort(patient.astype(np.uint16) if short else patient, kind="stable")

    def _within(self) -> Matrix:
        """Twice the ordered pairs of a positive and a negative of the same patient, (patients,)."""
        order = self._by_patient()
        patient, group = self.patient[order], self.group[order]
        positive = self.is_positive[order].astype(np.float64)
        new = np.ones(len(order), dtype=bool)
        new[1:] = (patient[1:] != patient[:-1]) | (group[1:] != group[:-1])
        starts = np.flatnonzero(new)
        if not len(starts):
            return np.zeros(self._patients)
        here, owner = np.add.reduceat(positive, starts), patient[starts]
        others = np.add.reduceat(1 - positive, starts)
        before = np.cumsum(others) - others
        # What earlier patients have is taken off: the count before the patient's first group.
        first = np.ones(len(owner), dtype=bool)
        first[1:] = owner[1:] != owner[:-1]
        before -= before[np.flatnonzero(first)][np.cumsum(first) - 1]
        return np.bincount(owner, here * (2 * before + others), self._patients).astype(np.float64)

    def _precision_left_out(self) -> Matrix:
        """Between two rows of a patient the same number t of its rows lies above: prefix sums for each t give the rest.

        Precision at place g without the patient is (F_g - f) / (C_g - t), F and C counting positives and rows from the top.
        """
        positive = _row_sums(self.positive)
        below = np.cumsum(_row_sums(self.below))
        if not len(positive):
            return np.full(self._patients, np.nan)
        found = positive.sum() - np.cumsum(positive) + positive
        called = found + below[-1] - below[:-1]
        order = len(self.place) - 1 - self._by_patient(backwards=True)
        patient, place, own = self.patient[order], self.place[order], self.is_positive[order].astype(np.float64)
        rows = np.bincount(patient, minlength=self._patients)
        start = np.cumsum(rows) - rows
        t = np.arange(len(order)) - start[patient]
        """How many rows of its patient come before a row, from the top."""
        so_far = np.cumsum(own) - own
        f = so_far - so_far[start[patient]]
        # Stretches of places with t rows above: from a row's place to that of the row before, and below the last row.
        upper = np.where(t == 0, len(positive) - 1, np.append(-1, place)[:-1])
        last = rows > 0
        ends = (start + rows - 1)[last]
        owner = np.concatenate([patient, np.flatnonzero(last), np.flatnonzero(~last)])
        count = np.concatenate([t, rows[last], np.zeros(int((~last).sum()), dtype=np.int64)])
        before = np.concatenate([f, (f + own)[ends], np.zeros(int((~last).sum()))])
        high = np.concatenate([upper, place[ends], np.full(int((~last).sum()), len(positive) - 1)])
        low = np.concatenate([place, np.full(self._patients, -1)])
        # A positive row itself is taken off at its place, where all rows of the patient at that place are above or at it.
        mine = np.flatnonzero(own == 1)
        lowest = _last_of_run(patient, place)[mine]
        total = np.zeros(self._patients)
        by_count = np.argsort(count, kind="stable")
        bounds = np.searchsorted(count[by_count], np.arange(int(rows.max(initial=0)) + 2))
        for number in range(int(rows.max(initial=0)) + 1):
            item = by_count[bounds[number] : bounds[number + 1]]
            left = called - number
            share = np.divide(positive, left, out=np.zeros(len(left)), where=left > 0)
            whole, part = np.append(0.0, np.cumsum(share * found)), np.append(0.0, np.cumsum(share))
            a, b = high[item] + 1, low[item] + 1
            total += np.bincount(owner[item], whole[a] - whole[b] - before[item] * (part[a] - part[b]), self._patients)
        at = place[mine]
        left = called[at] - (t[lowest] + 1)
        precision = np.divide(found[at] - (f + own)[lowest], left, out=np.zeros(len(at)), where=left > 0)
        total -= np.bincount(patient[mine], precision, self._patients)
        remaining = positive.sum() - np.bincount(patient, own, self._patients)
        return ratio(total, remaining)


def cumulated(counts: Counts) -> Counts:
    """Sums down the rows, in place: sqrt(rows) long steps, several times as fast as `np.cumsum` along the first axis."""
    rows = len(counts)
    step = max(1, int(rows**0.5))
    whole = rows // step * step
    blocks = counts[:whole].reshape(-1, step, counts.shape[1])
    for j in range(1, step):
        blocks[:, j] += blocks[:, j - 1]
    for i in range(1, len(blocks)):
        blocks[i] += blocks[i - 1, -1]
    for i in range(max(1, whole), rows):
        counts[i] += counts[i - 1]
    return counts


def _sum_of_products(a: Counts, b: Counts, fits: bool) -> Matrix:
    """Down the rows, in 32 bits where the sums fit."""
    if fits:
        return np.asarray(np.einsum("gr,gr->r", a, b), dtype=np.float64)
    return np.asarray(np.einsum("gr,gr->r", a.astype(np.float64), b.astype(np.float64)))


def _average_precision(positive: Counts, below: Counts) -> Matrix:
    """Positives at a place x precision there, summed: some places at a time, whole numbers up to the one division."""
    reached = cumulated(positive.copy())
    everything = reached[-1].copy() if len(reached) else np.zeros(positive.shape[1], np.uint32)
    fits = int(positive.max(initial=0)) * int(everything.max(initial=0)) < _WORD
    total = np.zeros(positive.shape[1])
    for i in range(0, len(positive), _PLACES):
        here = positive[i : i + _PLACES]
        found = np.subtract(everything, reached[i : i + _PLACES])
        found += here
        called = np.subtract(below[-1], below[i : i + len(here)])
        called += found
        np.maximum(called, 1, out=called)
        product = np.multiply(found, here, out=found) if fits else found.astype(np.float64) * here
        total += np.divide(product, called).sum(axis=0)
    return ratio(total, everything)


def _counts(row: Integers, patient: Integers, rows: int, patients: int) -> csr_matrix:
    """Sparse counts of (row, patient) from ascending rows; a cell named twice counts two."""
    start = np.append(0, np.cumsum(np.bincount(row, minlength=rows)))
    few = rows < len(row) / 16  # distinct scores: most cells are named often
    summed = csr_matrix((np.ones(len(row), np.uint32 if few else np.uint16), patient, start), shape=(rows, patients))
    if few:
        summed.sum_duplicates()
        summed = summed.astype(np.uint16) if int(summed.data.max()) < _SHORT else summed
    return summed


def _row_sums(counts: csr_matrix) -> Matrix:
    return np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()


def _last_of_run(patient: Integers, place: Integers) -> Integers:
    """For each row, the last row of the same patient and place, where equals stand together."""
    ends = np.ones(len(patient), dtype=bool)
    ends[:-1] = (patient[1:] != patient[:-1]) | (place[1:] != place[:-1])
    where = np.flatnonzero(ends)
    return where[np.searchsorted(where, np.arange(len(patient)))]

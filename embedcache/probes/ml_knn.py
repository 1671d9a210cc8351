"""ML-kNN (Zhang & Zhou, Pattern Recognition 2007): the posterior of a label, given how many neighbours have it.

From the training rows' own neighbours (never themselves) two tables are counted per label and k: how often a row that has
the label, and one that has not, counts c neighbours that have it. With smoothing s = 1 they give the likelihoods, the label's
share gives the prior, and Bayes' rule the probability. A neighbour whose label is missing says nothing: the others' count is
scaled to k and rounded, and a row without one known neighbour gets the prior.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.probes.base import Matrix
from embedcache.probes.neighbours import Numbers

SMOOTHING = 1.0
_BLOCK = 1024


@dataclass(frozen=True)
class LabelCounts:
    """The tables of all labels for one k."""

    odds: Matrix
    """(k + 1, n_classes): log of P(label | c neighbours have it) / P(no label | c)."""
    prior: Matrix
    """(n_classes,): log odds of a row of which no neighbour is known."""
    k: int


def count_labels(labels: Matrix, neighbour: Numbers, values: Sequence[int]) -> tuple[LabelCounts, ...]:
    """The tables for each k of `values`: labels (n, n_classes) of 0, 1, NaN; neighbour (n, most), nearest first, -1 for none."""
    known = ~np.isnan(labels)
    has, has_not = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    prior = np.log(SMOOTHING + has) - np.log(SMOOTHING + has_not)
    n_classes = labels.shape[1]
    columns = np.arange(n_classes)
    tables = [np.zeros((2, k + 1, n_classes)) for k in values]
    for start in range(0, len(labels), _BLOCK):
        rows = slice(start, start + _BLOCK)
        for table, (count, voted) in zip(tables, counts_of(labels, neighbour[rows], values), strict=True):
            usable = known[rows] & voted
            which = np.broadcast_to(columns, usable.shape)[usable]
            np.add.at(table, (labels[rows][usable].astype(int), count[usable], which), 1)
    found = []
    for k, (without, having) in zip(values, tables, strict=True):
        like = (SMOOTHING + having) / (SMOOTHING * (k + 1) + having.sum(axis=0))
        unlike = (SMOOTHING + without) / (SMOOTHING * (k + 1) + without.sum(axis=0))
        found.append(LabelCounts(prior + np.log(like) - np.log(unlike), prior, k))
    return tuple(found)


def counts_of(labels: Matrix, neighbour: Numbers, values: Sequence[int]) -> list[tuple[Numbers, npt.NDArray[np.bool_]]]:
    """For each k how many of the k nearest have each label, (m, n_classes) from 0 to k, and whether any of them is known."""
    label = labels[neighbour]
    label[neighbour < 0] = np.nan
    known = np.cumsum(~np.isnan(label), axis=1)
    yes = np.cumsum(label == 1, axis=1)
    found = []
    for k in values:
        last = min(k, neighbour.shape[1]) - 1
        votes, count = known[:, last], yes[:, last]
        scaled = np.rint(count * (k / np.maximum(votes, 1))).astype(np.int64)
        found.append((scaled, votes > 0))
    return found


def posterior(tables: Sequence[LabelCounts], labels: Matrix, neighbour: Numbers) -> Matrix:
    """(n_values, m, n_classes): log odds of each label for rows with these neighbours among the rows of `labels`."""
    n_classes = labels.shape[1]
    result = np.empty((len(tables), len(neighbour), n_classes))
    for start in range(0, len(neighbour), _BLOCK):
        rows = slice(start, start + _BLOCK)
        counted = counts_of(labels, neighbour[rows], [table.k for table in tables])
        for i, (table, (count, voted)) in enumerate(zip(tables, counted, strict=True)):
            result[i, rows] = np.where(voted, table.odds[count, np.arange(n_classes)], table.prior)
    return result

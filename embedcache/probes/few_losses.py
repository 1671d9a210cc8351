"""The logistic and the softmax loss of many fits at once over the same rows: values, slopes and curvatures, weighted."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logsumexp

from embedcache.probes.base import Features, Matrix


@dataclass(frozen=True)
class Loss:
    """Of m fits of some heads (the classes of a softmax, else one) over n rows."""

    value: Matrix
    """(m,): weighted sum over the rows."""
    slope: Features
    """(m, heads, n): by each score."""
    curvature: Features
    """(m, heads, n): the second derivative by each score, the others held."""


def loss_of(scores: Features, target: Features, weight: Features) -> Loss:
    """Scores and target (m, heads, n), target of 0 and 1; weight (m, n); one precision. Confident rows keep their digits."""
    return (_binary if scores.shape[1] == 1 else _softmax)(scores, target, weight[:, None])


def _binary(scores: Features, target: Features, weight: Features) -> Loss:
    sign = 2 * target - 1
    margin = sign * scores
    wrong = expit(-margin)
    # log(1 + exp(-margin)) from the probability of the other answer: one exponential for both
    value = np.maximum(-margin, 0) - np.log1p(-np.minimum(wrong, 1 - wrong))
    weighted = weight * wrong
    return Loss((weight * value).sum(axis=(1, 2), dtype=np.float64), -weighted * sign, weighted * (1 - wrong))


def _softmax(scores: Features, target: Features, weight: Features) -> Loss:
    own = (scores * target).sum(axis=1, keepdims=True)
    others = np.where(target > 0, -np.inf, scores - own)
    odds = logsumexp(others, axis=1, keepdims=True)  # of all other classes together against the row's own
    each = np.logaddexp(0, odds)
    wrong, share = expit(odds), np.exp(np.where(target > 0, 0.0, others) - each)
    slope = weight * np.where(target > 0, -wrong, share)
    curvature = weight * share * np.where(target > 0, wrong, 1 - share)
    return Loss((weight * each).sum(axis=(1, 2), dtype=np.float64), slope, curvature)

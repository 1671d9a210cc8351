"""The basis in which a logistic loss is nearly round at w = 0: eigenvectors of the covariance of the rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.probes.base import Features, Matrix
from embedcache.probes.batched_lbfgs import Columns

_CONSTANT = 1e-6
"""Deviation over mean below which a feature is constant: what rounding leaves in float32."""

_LEAST_BEND = 1e-7


@dataclass(frozen=True)
class Eigenbasis:
    """Directions (d, r), orthonormal, and the variance along each, (r,)."""

    directions: Features
    variance: Matrix

    @classmethod
    def of(cls, gram: Matrix, centre: Matrix, dtype: np.dtype[Any]) -> "Eigenbasis":
        """From the covariance (d, d) of rows around `centre` (d,), summed in `dtype`; constant features stay out.

        A variance below what rounding leaves is raised to it: too large a variance costs iterations, too small a one makes
        steps of noise.
        """
        d = len(gram)
        varies = varying(gram, centre)
        variance, vectors = np.linalg.eigh(gram if len(varies) == d else gram[np.ix_(varies, varies)])
        # A direction along features of small scale is known as well as they are, whatever the others' scale.
        floor = float(np.finfo(dtype).eps) * (np.diag(gram)[varies] @ vectors**2)
        directions = np.zeros((d, len(varies)), dtype=dtype)
        directions[varies] = vectors
        return cls(directions, np.maximum(variance, floor))


def varying(gram: Matrix, centre: Matrix) -> Columns:
    """Which features vary, by the covariance (d, d) of rows around `centre` (d,); the others are noise of rounding."""
    return np.flatnonzero(np.diag(gram) > (_CONSTANT * centre) ** 2)


@dataclass(frozen=True)
class Metric:
    """An estimate of the Hessian of one fit at any penalty: bend ⊗ variance + penalty, diagonal in both eigenbases."""

    basis: Eigenbasis
    bend: Matrix
    """(heads,): eigenvalues of the mean curvature of the loss; they sum to 1."""
    turn: Matrix
    """(heads, heads): their eigenvectors."""

    @classmethod
    def of(cls, basis: Eigenbasis, curvature: Matrix) -> "Metric":
        """`curvature` (heads, heads): mean of diag(p) - p·pᵀ over the rows; of one head p·(1 - p)."""
        bend, turn = np.linalg.eigh(curvature / np.trace(curvature))
        return cls(basis, np.maximum(bend, _LEAST_BEND), turn)

    def solve(self, gradient: Matrix, penalty: Matrix, curvature: Matrix) -> Matrix:
        """The gradient over the Hessian, both (m, heads · (d + 1)), the last number of each head being the intercept's.

        penalty (m,); curvature (m,): the mean over the rows where each column now stands, summed over heads.
        """
        heads = len(self.turn)
        g = gradient.reshape(len(gradient), heads, -1)
        if heads > 1:
            g = np.einsum("hk,mhd->mkd", self.turn, between(g))
        bend = self.bend * np.maximum(curvature, np.finfo(np.float64).tiny)[:, None]
        V = self.basis.directions
        along = np.matmul(g[..., :-1].astype(V.dtype, copy=False), V).astype(np.float64, copy=False)
        along /= bend[:, :, None] * self.basis.variance + penalty[:, None, None]
        result = np.empty_like(g)
        result[..., :-1] = np.matmul(along.astype(V.dtype, copy=False), V.T)
        result[..., -1] = g[..., -1] / bend
        if heads > 1:
            result = between(np.einsum("hk,mkd->mhd", self.turn, result))
        solved: Matrix = result.reshape(gradient.shape)
        return solved

    def misses(self, penalty: Matrix, curvature: Matrix) -> Matrix:
        """How many times more decrease than `solve` foresees there may be: once, at any penalty."""
        return np.ones(len(penalty))


def between(g: Matrix) -> Matrix:
    """Less the mean over the heads: one number added to all of a softmax changes nothing but the penalty, and stays 0."""
    centred: Matrix = g - g.mean(axis=1, keepdims=True)
    return centred

"""The basis in which a logistic loss is nearly round at w = 0: eigenvectors of the covariance of the rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.probes.base import Matrix
from embedcache.probes.batched_lbfgs import Columns
from embedcache.probes.place import HERE, Place

_CONSTANT = 1e-6
"""Deviation over mean below which a feature is constant: what rounding leaves in float32."""

_LEAST_BEND = 1e-7


@dataclass(frozen=True)
class Eigenbasis:
    """Directions (d, r), orthonormal, and the variance along each, (r,), which lie in `place`."""

    directions: Any
    variance: Any
    whole: bool
    """Whether no feature is constant."""
    place: Place

    @classmethod
    def of(cls, gram: Any, centre: Matrix, dtype: np.dtype[Any], place: Place = HERE) -> "Eigenbasis":
        """From the covariance (d, d) of rows around `centre` (d,), summed in `dtype`; constant features stay out.

        The covariance lies in `place`.

        A variance below what rounding leaves is raised to it: too large a variance costs iterations, too small a one makes
        steps of noise.
        """
        d = len(gram)
        own = gram.diagonal()
        varies = varying(place.unload(own), centre)
        kept = place.load(varies)
        variance, vectors = place.xp.linalg.eigh(gram if len(varies) == d else gram[kept[:, None], kept])
        # A direction along features of small scale is known as well as they are, whatever the others' scale.
        floor = float(np.finfo(dtype).eps) * (own[kept] @ vectors**2)
        directions = place.zeros((d, len(varies)), dtype)
        directions[kept] = place.cast(vectors, dtype)
        return cls(directions, place.xp.maximum(variance, floor), len(varies) == d, place)


def varying(variance: Matrix, centre: Matrix) -> Columns:
    """Which features vary, by their variances (d,) around `centre` (d,); the others are noise of rounding."""
    return np.flatnonzero(variance > (_CONSTANT * centre) ** 2)


@dataclass(frozen=True)
class Metric:
    """An estimate of the Hessian of one fit at any penalty: bend ⊗ variance + penalty, diagonal in both eigenbases."""

    basis: Eigenbasis
    bend: Matrix
    """(heads,): eigenvalues of the mean curvature of the loss; they sum to 1."""
    turn: Any
    """(heads, heads): their eigenvectors, which lie where the basis does."""

    @classmethod
    def of(cls, basis: Eigenbasis, curvature: Matrix) -> "Metric":
        """`curvature` (heads, heads): mean of diag(p) - p·pᵀ over the rows; of one head p·(1 - p)."""
        bend, turn = np.linalg.eigh(curvature / np.trace(curvature))
        return cls(basis, np.maximum(bend, _LEAST_BEND), basis.place.load(turn))

    def solve(self, gradient: Any, penalty: Matrix, curvature: Matrix) -> Any:
        """The gradient over the Hessian, both (m, heads · (d + 1)), the last number of each head being the intercept's.

        Both lie where the basis does.

        penalty (m,); curvature (m,): the mean over the rows where each column now stands, summed over heads.
        """
        heads, place, xp = len(self.turn), self.basis.place, self.basis.place.xp
        g = gradient.reshape(len(gradient), heads, -1)
        if heads > 1:
            g = xp.einsum("hk,mhd->mkd", self.turn, between(g))
        bend = place.load(self.bend * np.maximum(curvature, np.finfo(np.float64).tiny)[:, None])
        V, dtype = self.basis.directions, place.precision(self.basis.directions)
        along = place.cast(xp.matmul(place.cast(g[..., :-1], dtype), V), np.dtype(np.float64))
        along /= bend[:, :, None] * self.basis.variance + place.load(penalty)[:, None, None]
        result = xp.empty_like(g)
        result[..., :-1] = xp.matmul(place.cast(along, dtype), V.T)
        result[..., -1] = g[..., -1] / bend
        if heads > 1:
            result = between(xp.einsum("hk,mkd->mhd", self.turn, result))
        return result.reshape(gradient.shape)

    def misses(self, penalty: Matrix, curvature: Matrix) -> Matrix:
        """How many times more decrease than `solve` foresees there may be: once, at any penalty."""
        return np.ones(len(penalty))


def between(g: Any) -> Any:
    """Less the mean over the heads: one number added to all of a softmax changes nothing but the penalty, and stays 0."""
    return g - g.mean(axis=1, keepdims=True)

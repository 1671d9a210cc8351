"""The basis in which a logistic loss is nearly round at w = 0: eigenvectors of the covariance of the rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.probes.base import Matrix
from embedcache.probes.batched_lbfgs import Columns
from embedcache.probes.place import FLOAT64, HERE, Place
from embedcache.probes.standing import Standing

_CONSTANT = 1e-6
"""Deviation over mean below which a feature is constant: what rounding leaves in float32."""

_LEAST_BEND = 1e-7

_TOLD = 1000.0
"""Times what rounding leaves of a mean score's square: where scores vary by less, their variance tells nothing."""
_TINY = 1e-200
_DOUBT = 0.02
"""Of the scores' variance, what rows that bend the loss must have among them to stand for all: with less, rectified features (of
which half the rows have none) ended 1e-4 too early."""
_COUPLED = 4.0
"""Times what is foreseen that a softmax may have left: with 1 a rare class ended 1e-4 too early."""


@dataclass(frozen=True)
class Eigenbasis:
    """Directions (d, r), orthonormal, and the variance along each, (r,), which lie in `place`."""

    directions: Any
    variance: Any
    varies: Columns
    """The features that are not constant."""
    place: Place

    @property
    def whole(self) -> bool:
        """Whether no feature is constant."""
        return len(self.varies) == len(self.directions)

    def along(self, values: Any) -> Any:
        """float64 coordinates (…, r) of `values` (…, d)."""
        precision = self.place.precision(self.directions)
        return self.place.cast(self.place.xp.matmul(self.place.cast(values, precision), self.directions), FLOAT64)

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
        return cls(directions, place.xp.maximum(variance, floor), varies, place)


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

    def solve(self, gradient: Any, at: Standing) -> tuple[Any, Matrix]:
        """The gradient over the Hessian, both (m, heads · (d + 1)), the last number of each head being the intercept's; and how
        many times more decrease than that foresees there may be, (m,).

        Gradients lie where the basis does. at: where the m columns stand, of one head with what their scores tell.
        """
        heads, place, xp = len(self.turn), self.basis.place, self.basis.place.xp
        g = gradient.reshape(len(gradient), heads, -1)
        if heads > 1:
            g = xp.einsum("hk,mhd->mkd", self.turn, between(g))
        bend = place.load(self.bend * np.maximum(at.curvature, np.finfo(np.float64).tiny)[:, None])
        V, dtype = self.basis.directions, place.precision(self.basis.directions)
        along = self.basis.along(g[..., :-1])
        hessian = bend[:, :, None] * self.basis.variance + place.load(at.penalty)[:, None, None]
        result = xp.empty_like(g)
        if heads > 1:
            along /= hessian
            result[..., -1] = g[..., -1] / bend
            misses = np.full(len(g), _COUPLED)
        else:
            bending = Bending.seen(self.basis, at)
            along[:, 0], result[:, 0, -1] = bending.solve(along[:, 0], g[:, 0, -1], hessian[:, 0], bend[:, 0])
            misses = bending.misses
        result[..., :-1] = xp.matmul(place.cast(along, dtype), V.T)
        if heads > 1:
            result = between(xp.einsum("hk,mkd->mhd", self.turn, result))
        return result.reshape(gradient.shape), misses


@dataclass(frozen=True)
class Bending:
    """The rows that bend each of m binary losses: those near where it is undecided, which are not centred and spread as all are.

    Their scores w·x + b tell how they differ. Were all rows elliptical (normal, for one) with covariance G, then a weight that
    hangs on the score moves their mean along G·w and changes their covariance by a multiple of G·w·wᵀ·G, and nothing else: the
    mean and the variance of the scores under that weight give both. Without it a direction that only scales the scores, and
    moves the intercept so that what is undecided stays where it is, seems to bend the loss up to 250 times as much as it does,
    and paths were seen to end 3e-5 above their minimum.
    """

    slope: Any
    """(m, r): G·w in the basis."""
    shift: Any
    """(m,): times `slope` it is the mean of these rows, less the centre."""
    less: Any
    """(m,): times slope·slopeᵀ it is what G has more than these rows' covariance."""
    misses: Matrix
    """(m,): how many times more decrease than all this foresees there may be, where rows are not elliptical."""

    @classmethod
    def seen(cls, basis: Eigenbasis, at: Standing) -> "Bending":
        """From the scores of columns of one head."""
        place = basis.place
        w = basis.along(at.point[:, :-1])
        slope = w * basis.variance
        variance = place.unload((w * slope).sum(1))
        _, mean, own = at.bend.T
        # Where the scores hardly differ, every row bends the loss alike, and their differences are lost in rounding.
        told = variance > _TOLD * np.finfo(place.precision(basis.directions)).eps * mean**2
        over = np.divide(1.0, variance, out=np.zeros_like(variance), where=told & (variance > _TINY))
        share = np.where(over > 0, np.maximum(own * over, _LEAST_BEND), 1)
        shift, less = over * (mean - place.unload(at.point[:, -1])), over * (1 - share)
        return cls(slope, place.load(shift), place.load(less), np.maximum(1, _DOUBT / share))

    def solve(self, along: Any, intercept: Any, hessian: Any, bend: Any) -> tuple[Any, Any]:
        """A gradient, (m, r) in the basis and (m,) by the intercept, over the Hessian that is (m, r) were all rows to bend alike.

        `along` is written over. bend (m,): the Hessian's part by the intercept. (By Sherman and Morrison's formula, and the
        intercept first.)
        """
        along -= (intercept * self.shift)[:, None] * self.slope
        along /= hessian
        falls = self.slope / hessian
        rank = bend * self.less
        factor = rank * (along * self.slope).sum(1) / (1 - rank * (self.slope * falls).sum(1))
        along += factor[:, None] * falls
        return along, intercept / bend - self.shift * (along * self.slope).sum(1)


def between(g: Any) -> Any:
    """Less the mean over the heads: one number added to all of a softmax changes nothing but the penalty, and stays 0."""
    return g - g.mean(axis=1, keepdims=True)

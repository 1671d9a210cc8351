"""Gated attention over the rows of a bag, then a linear head: the model, its gradient, and full-batch training.

Of the rows h_k of a bag (Ilse, Tomczak & Welling 2018, eq. 9, with offsets in the gates and the tanh):

    a_k = softmax_k( w · (tanh(V h_k) * sigmoid(U h_k)) )        score = W · Σ_k a_k h_k + b

The head is linear, so W h_k is made first and pooled after: no pooled vector is held, and V, U and W are one product
with the rows forward and one backward. Written with the operators that numpy and torch share; `xp` is either.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.probes.bags import Bags

Loss = Callable[[Any], tuple[Any, Any]]
"""From scores (bags, outputs) to the mean loss and its gradient, of the scores' shape."""
MOMENTS = (0.9, 0.999)
_TINY = 1e-8


@dataclass(frozen=True)
class AttentionHead:
    """The weights; `hidden` is the width of V and U."""

    projection: Any
    """(d, 2 hidden + outputs): V, U and W side by side."""
    offset: Any
    """(2 hidden + outputs,)."""
    query: Any
    """w (hidden,)."""

    @property
    def hidden(self) -> int:
        """Width of the attention's inner layer."""
        return int(self.query.shape[0])

    @classmethod
    def start(cls, width: int, hidden: int, outputs: int, seed: int) -> "AttentionHead":
        """V and U small and random, all else zero: each row has the same share, and every score is zero."""
        random = np.random.default_rng(seed)
        projection = np.zeros((width, 2 * hidden + outputs), dtype=np.float32)
        projection[:, : 2 * hidden] = random.normal(scale=width**-0.5, size=(width, 2 * hidden))
        zeros = [np.zeros(n, dtype=np.float32) for n in (2 * hidden + outputs, hidden)]
        return cls(projection, *zeros)

    def parts(self) -> tuple[Any, Any, Any]:
        """What is trained."""
        return self.projection, self.offset, self.query


def forward(head: AttentionHead, X: Any, bags: Bags, xp: Any) -> Any:
    """Scores (bags, outputs) of rows X (n, d)."""
    if bags.single:
        return X @ head.projection[:, 2 * head.hidden :] + head.offset[2 * head.hidden :]
    inner, _, _, share = _inside(head, X, bags, xp)
    return bags.sums(share[:, None] * inner[:, 2 * head.hidden :]) + head.offset[2 * head.hidden :]


def shares(head: AttentionHead, X: Any, bags: Bags, xp: Any) -> Any:
    """(n,): the attention that each row has in its bag."""
    return _inside(head, X, bags, xp)[3]


def _inside(head: AttentionHead, X: Any, bags: Bags, xp: Any) -> tuple[Any, Any, Any, Any]:
    h = head.hidden
    inner = X @ head.projection
    inner[:, : 2 * h] += head.offset[: 2 * h]
    bent = xp.tanh(inner[:, :h])
    gate = 0.5 + 0.5 * xp.tanh(0.5 * inner[:, h : 2 * h])  # the logistic function, without overflow
    share = bags.softmax((bent * gate) @ head.query)
    return inner, bent, gate, share


def gradient(head: AttentionHead, X: Any, bags: Bags, loss: Loss, decay: float, xp: Any) -> tuple[Any, AttentionHead]:
    """The mean loss + decay / 2 · (squares of V, U, W and w) and its gradient, as a head."""
    h = head.hidden
    made = xp.zeros_like(head.projection), xp.zeros_like(head.offset), xp.zeros_like(head.query)
    projection, offset, query = made
    if bags.single:  # a row's share is 1 whatever the attention: no gradient reaches it
        value, slope = loss(forward(head, X, bags, xp))
        projection[:, 2 * h :] = X.T @ slope
    else:
        inner, bent, gate, share = _inside(head, X, bags, xp)
        outcome = inner[:, 2 * h :]
        value, slope = loss(bags.sums(share[:, None] * outcome) + head.offset[2 * h :])
        of_row = bags.spread(slope)
        gain = (of_row * outcome).sum(axis=1)
        of_query = share * (gain - bags.spread(bags.sums(share * gain)))
        query += (bent * gate).T @ of_query
        back = xp.empty_like(inner)
        through = of_query[:, None] * head.query
        back[:, :h] = through * gate * (1 - bent**2)
        back[:, h : 2 * h] = through * bent * gate * (1 - gate)
        back[:, 2 * h :] = share[:, None] * of_row
        projection += X.T @ back
        offset[: 2 * h] += back[:, : 2 * h].sum(axis=0)
    offset[2 * h :] += slope.sum(axis=0)
    value = value + 0.5 * decay * ((head.projection**2).sum() + (head.query**2).sum())
    projection += decay * head.projection
    query += decay * head.query
    return value, AttentionHead(projection, offset, query)


def train(
    head: AttentionHead, X: Any, bags: Bags, loss: Loss, *, decay: float, lr: float, epochs: int, xp: Any
) -> tuple[AttentionHead, float]:
    """Adam over all bags at once, its rate falling to zero by a cosine; the head and the objective before the last step.

    The whole batch, so the order of bags decides nothing but roundings.
    """
    parts = list(head.parts())
    means, squares = ([xp.zeros_like(part) for part in parts] for _ in range(2))
    value: Any = float("nan")
    for step in range(1, epochs + 1):
        value, slopes = gradient(AttentionHead(*parts), X, bags, loss, decay, xp)
        rate = lr * 0.5 * (1 + math.cos(math.pi * (step - 1) / epochs))
        for i, slope in enumerate(slopes.parts()):
            means[i] = MOMENTS[0] * means[i] + (1 - MOMENTS[0]) * slope
            squares[i] = MOMENTS[1] * squares[i] + (1 - MOMENTS[1]) * slope**2
            corrected = squares[i] / (1 - MOMENTS[1] ** step)
            parts[i] = parts[i] - (rate / (1 - MOMENTS[0] ** step)) * means[i] / (corrected**0.5 + _TINY)
    return AttentionHead(*parts), float(value)

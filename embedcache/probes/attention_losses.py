"""Mean log losses with their gradients, in the operators that numpy and torch share."""

from typing import Any

from embedcache.probes.attention_heads import Loss


def binary(y: Any, xp: Any) -> Loss:
    """Of log-odds (n, 1); y (n, 1) of 0 and 1."""

    def loss(z: Any) -> tuple[Any, Any]:
        size = abs(z)
        each = 0.5 * (z + size) + xp.log1p(xp.exp(-size)) - y * z
        return each.mean(), (0.5 + 0.5 * xp.tanh(0.5 * z) - y) / len(z)

    return loss


def multinomial(y: Any, xp: Any) -> Loss:
    """Of scores (n, classes) under softmax; y (n, classes) with a one in each row."""

    def loss(z: Any) -> tuple[Any, Any]:
        shifted = z - xp.amax(z, axis=1)[:, None]
        power = xp.exp(shifted)
        total = power.sum(axis=1)[:, None]
        return (xp.log(total)[:, 0] - (y * shifted).sum(axis=1)).mean(), (power / total - y) / len(z)

    return loss

"""What "uncertain" (-1, as CheXpert's labeller writes it) counts as."""

from typing import Literal, get_args

import numpy as np

from embedcache.datasets.columns import number
from embedcache.errors import InputError, suggest

Policy = Literal["zeros", "ones", "ignore"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
VALUE: dict[Policy, float] = {"zeros": 0.0, "ones": 1.0, "ignore": np.nan}


def parse_policy(text: str) -> Policy:
    """The policy called `text`. Raises InputError."""
    for policy in POLICIES:
        if policy == text:
            return policy
    raise InputError(str(suggest("--uncertain policy", text, POLICIES)))


def is_uncertain(word: str) -> bool:
    """Whether a cell of a column of yes and no says: uncertain."""
    return number(word) == -1

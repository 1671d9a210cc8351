"""Systematic sampling, the study's rule for datasets without an official split."""

from embedcache.errors import InputError
from embedcache.types import StringArray, strings


def systematic_parts(patients: StringArray, test_every: int, validation_every: int | None = None) -> StringArray:
    """The part of each row by its patient: of the patients sorted by id every `test_every`-th tests, and of the rest every
    `validation_every`-th validates (none if that is None).

    Raises InputError for a stride below 2.
    """
    if test_every < 2 or (validation_every is not None and validation_every < 2):
        raise InputError(f"a systematic split takes every n-th, n at least 2. Got {test_every} and {validation_every}.")
    everyone = sorted(set(patients.tolist()))
    tests = set(everyone[test_every - 1 :: test_every])
    rest = [p for p in everyone if p not in tests]
    validates = set(rest[validation_every - 1 :: validation_every]) if validation_every else set()
    return strings(["test" if p in tests else "validation" if p in validates else "train" for p in patients.tolist()])

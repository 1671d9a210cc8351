"""One family of errors. Each is also a builtin, so that `except ValueError` of a caller still works.

A message has three parts in one line: what was seen, where, and what to do. It names a sample by its
store id or by its row in the user's table, never by a path or a patient's identifier.
"""

import difflib
from collections.abc import Iterable


class EmbedcacheError(Exception):
    """Everything that embedcache raises on purpose. The command line prints it as one line."""

    exit_code = 2
    """2: nothing could start, or the request was wrong. 1: the run went on and something was set aside."""


class InputError(EmbedcacheError, ValueError):
    """An argument, a table or a file that the user gave can not be used."""


class UnknownNameError(EmbedcacheError, KeyError):
    """A name that is not registered; the message lists the nearest and all that there is."""

    def __str__(self) -> str:  # KeyError would print the repr of its message
        return str(self.args[0])


class MissingPackageError(EmbedcacheError, ImportError):
    """An optional package is absent; the message names the feature and the extra to install."""


class ImageError(EmbedcacheError, ValueError):
    """One sample's pixels can not be read. `reason` holds no path and no identifier."""

    exit_code = 1

    def __init__(self, reason: str, stage: str = "decode") -> None:
        super().__init__(reason)
        self.reason = reason
        self.stage = stage


class StoreError(EmbedcacheError, ValueError):
    """A store breaks its own format, or a request does not fit what the store holds."""


class NewerFormatError(StoreError):
    """The store was written by a later format version."""


class IncompleteStoreError(StoreError):
    """A pass of the store is not finished, and partial reading was not asked for."""


class StoreBusyError(EmbedcacheError, RuntimeError):
    """Another live process holds the store; the message names its host and pid."""


class TooManyBadError(EmbedcacheError, RuntimeError):
    """Most of the first samples of a run can not be read, so it stopped; the message has the commonest reason."""


class TokenOverflowError(EmbedcacheError, ArithmeticError):
    """A token does not fit the stored dtype, or is not a number; the message names the layer."""


class WorkerFailedError(EmbedcacheError, RuntimeError):
    """Every process of a run on several devices ended badly; what they committed stays."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(EmbedcacheError, RuntimeError):
    """A signal ended the run after all whole shards were committed; the same command resumes it."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def suggest(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that is not in `known`: the nearest one first, then all that there is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return UnknownNameError(f"unknown {kind} {name!r}{hint} There is: {', '.join(names) or 'nothing'}.")

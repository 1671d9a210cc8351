"""Long columns of texts that repeat, held as distinct words and a number per row."""

from typing import Any, overload

import numpy as np
import numpy.typing as npt


class CodedTexts:
    """A column of texts that compares, indexes and lists as an array of numpy's own strings does.

    A million of those take a tenth of a second to make and 16 bytes each, although a column of labels has few distinct ones.
    Functions of numpy get such an array, made when they ask for it; nothing can be assigned to.
    """

    __hash__ = None  # type: ignore[assignment]  # as an array
    __slots__ = ("codes", "words")

    def __init__(self, words: npt.NDArray[Any], codes: npt.NDArray[np.int64]) -> None:
        """words: of dtype StringDType, all distinct; codes (n,): the word of each row."""
        self.words = words
        self.codes = codes

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array that it stands for."""
        return self.words.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """(n,)."""
        return self.codes.shape

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> str: ...
    @overload
    def __getitem__(self, index: slice | npt.NDArray[Any] | list[int]) -> "CodedTexts": ...
    def __getitem__(self, index: Any) -> "str | CodedTexts":
        codes = self.codes[index]
        return CodedTexts(self.words, codes) if np.ndim(codes) else str(self.words[codes])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("a coded column has no array of texts to share; ask for a copy.")
        texts: npt.NDArray[Any] = self.words[self.codes]
        return texts if dtype is None else texts.astype(dtype)

    def __eq__(self, other: object) -> npt.NDArray[np.bool_]:  # type: ignore[override]
        if isinstance(other, str):
            return np.asarray(self.codes == self._code_of(other))
        return np.asarray(np.asarray(self) == np.asarray(other))

    def __ne__(self, other: object) -> npt.NDArray[np.bool_]:  # type: ignore[override]
        return ~(self == other)

    def _code_of(self, text: str) -> int:
        """-1, which no row has, for a text that is no word."""
        found = np.flatnonzero(self.words == text)
        return int(found[0]) if len(found) else -1

    def tolist(self) -> list[str]:
        """Python strings, one object per distinct word."""
        texts: list[str] = np.array(self.words.tolist(), dtype=object)[self.codes].tolist()
        return texts

    def copy(self) -> npt.NDArray[Any]:
        """An array of texts, which can be assigned to."""
        return np.asarray(self)

    def used(self) -> "CodedTexts":
        """The same column, its words those that a row has, in the order of the texts."""
        there = np.flatnonzero(np.bincount(self.codes, minlength=len(self.words)))
        words = self.words[there]
        in_order = bool((words[1:] > words[:-1]).all())  # as they come from a table of ours
        if in_order and len(words) == len(self.words):
            return self
        order = np.arange(len(words)) if in_order else np.argsort(words, kind="stable")
        rank = np.empty(len(self.words), dtype=np.int64)
        rank[there[order]] = np.arange(len(there))
        return CodedTexts(words[order], rank[self.codes])

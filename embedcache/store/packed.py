"""A long column of texts as its UTF-8 bytes in a row, on which numpy and Arrow work without a Python object for each."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.types import IntArray, StringArray, ascii_bytes

BLOCK = 65_536
"""Texts that are Python objects at one time."""


@dataclass(frozen=True)
class PackedTexts:
    """n texts without anything between them."""

    data: bytes
    lengths: IntArray
    """Shape (n,): bytes of each."""

    @classmethod
    def of(cls, values: StringArray) -> "PackedTexts":
        """The texts of a column."""
        parts, lengths = [b""], [np.zeros(0, dtype=np.int64)]
        for start in range(0, len(values), BLOCK):
            block = values[start : start + BLOCK]
            if (known := _of_ascii(block)) is not None:
                parts.append(known[0])
                lengths.append(known[1])
                continue
            texts = block.tolist()
            joined = "".join(texts)
            # of ASCII, characters are bytes
            sized = texts if joined.isascii() else [text.encode() for text in texts]
            parts.append(joined.encode())
            lengths.append(np.fromiter(map(len, sized), dtype=np.int64, count=len(texts)))
        return cls(b"".join(parts), np.concatenate(lengths))

    @property
    def width(self) -> int | None:
        """Bytes of every text, where all have as many; 0 of none."""
        first = int(self.lengths[0]) if len(self.lengths) else 0
        return first if (self.lengths == first).all() else None

    def framed(self, before: npt.NDArray[np.uint8], after: bytes) -> bytes:
        """before[i] (of shape (n, k)), text i and `after`, for each text in turn, as one run of bytes."""
        n, k = before.shape
        end = np.frombuffer(after, dtype=np.uint8)
        data = np.frombuffer(self.data, dtype=np.uint8)
        width = self.width
        if width is not None:
            rows = [before, data.reshape(n, width), np.broadcast_to(end, (n, len(end)))]
            return np.concatenate(rows, axis=1).tobytes()
        out = np.empty(len(data) + n * (k + len(end)), dtype=np.uint8)
        is_text = np.ones(len(out), dtype=np.bool_)
        starts = np.cumsum(self.lengths + k + len(end)) - self.lengths - k - len(end)
        for frame, at in ((before, starts), (np.broadcast_to(end, (n, len(end))), starts + k + self.lengths)):
            places = at[:, None] + np.arange(frame.shape[1])
            out[places] = frame
            is_text[places] = False
        out[is_text] = data
        return out.tobytes()

    def sort(self) -> IntArray | None:
        """Shape (n,): a stable order of the texts, where all have the same length; else None."""
        width = self.width
        if not width:
            return None
        # eight bytes at a time as one big-endian number sort as the bytes do
        texts = np.frombuffer(self.data, dtype=np.uint8).reshape(-1, width)
        if width % 8:
            texts = np.pad(texts, ((0, 0), (0, -width % 8)))
        columns = [column.astype(np.uint64) for column in texts.view(">u8").T if (column != column[0]).any()]
        if not columns:
            return np.arange(len(texts))
        # nearly always the first number that differs at all decides; the others sort what it leaves undecided
        order: IntArray = np.argsort(columns[0], kind="stable")
        ordered = columns[0][order]
        same = ordered[1:] == ordered[:-1]
        pairs = np.flatnonzero(same)
        differ = np.zeros(len(pairs), dtype=np.bool_)
        for column in columns[1:]:
            differ |= column[order[pairs]] != column[order[pairs + 1]]
        undecided = pairs[differ]
        if len(undecided):
            group = np.concatenate([[0], np.cumsum(~same)])
            open_group = np.zeros(group[-1] + 1, dtype=np.bool_)
            open_group[group[undecided]] = True
            places = np.flatnonzero(open_group[group])
            rows = np.sort(order[places])
            order[places] = rows[np.lexsort([column[rows] for column in reversed(columns)])]
        return order


def _of_ascii(values: StringArray) -> tuple[bytes, IntArray] | None:
    """Bytes in a row and the length of each text, made without a Python object for each; None where that can not be."""
    narrow = ascii_bytes(values)
    if narrow is None:
        return None
    sizes = np.strings.str_len(values).astype(np.int64)
    data = narrow.tobytes()
    filled = len(data) - int(sizes.sum())
    if filled:
        data = data.replace(b"\0", b"")
    # where texts hold zeros of their own, too much was taken
    return (data, sizes) if len(data) == int(sizes.sum()) else None

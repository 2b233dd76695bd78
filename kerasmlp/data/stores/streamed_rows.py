"""Rows that stay where they are stored, and are float32 as they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

import numpy as np

from kerasmlp.data.stores.half_rows import as_single
from kerasmlp.data.stores.watched_file import WatchedFile

_BLOCK_BYTES = 1 << 23  # in float32: a pass over rows takes them in such blocks
_NEAR_ROWS = 4  # rows between two that are asked for are read along: a call costs more


class StoredPart(Protocol):
    """Rows of one file or array, in the precision in which they are stored there."""

    shape: tuple[int, int]
    dtype: np.dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """The rows of a range; not to be written to."""
        ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The rows of these numbers, which rise."""
        ...


class HeldPart:
    """Rows that are an array in memory.

    Args:
        values: `(rows, width)`, float16 or float32.
    """

    def __init__(self, values: np.ndarray):
        self.shape, self.dtype, self._values = values.shape, values.dtype, values

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._values[start:stop]

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self._values[rows]


class FilePart:
    """Rows that lie one after the other in a file, which must stay as it is.

    Args:
        file: In which they lie.
        offset: Of the first row, bytes.
        shape: `(rows, width)`.
        dtype: float16 or float32.
    """

    def __init__(self, file: WatchedFile, offset: int, shape: tuple[int, int], dtype: np.dtype):
        self.shape, self.dtype = shape, dtype
        self._file, self._offset = file, offset
        self._row_bytes = shape[1] * dtype.itemsize

    def read(self, start: int, stop: int) -> np.ndarray:
        with self._file.opened() as descriptor:
            return self._range(descriptor, start, stop)

    def take(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), self.shape[1]), self.dtype)
        ends = np.flatnonzero(np.diff(rows) > _NEAR_ROWS) + 1
        with self._file.opened() as descriptor:
            for first, last in zip([0, *ends], [*ends, len(rows)], strict=True):
                run = rows[first:last]
                if len(run) == 1:
                    self._fill(descriptor, found[first:last], int(run[0]))
                elif len(run):
                    around = self._range(descriptor, int(run[0]), int(run[-1]) + 1)
                    found[first:last] = around[run - run[0]]
        return found

    def _range(self, descriptor: int, start: int, stop: int) -> np.ndarray:
        found = np.empty((max(stop - start, 0), self.shape[1]), self.dtype)
        self._fill(descriptor, found, start)
        return found

    def _fill(self, descriptor: int, there: np.ndarray, start: int) -> None:
        view, at = memoryview(there).cast("B"), self._offset + start * self._row_bytes
        while len(view):
            count = os.preadv(descriptor, [view], at)
            if not count:
                raise EOFError("the file ends before its data")
            view, at = view[count:], at + count


class StreamedRows:
    """Rows of one or more parts, one after the other, as if they were an array of float32.

    An index, a range or numbers of rows give an array; `subset` gives rows that stay where they
    are. NumPy takes all of them for an array where it is asked to, in memory then.

    Args:
        parts: Of one width.
        chosen: Numbers of the rows that are meant, in any order; None: all of them.

    Example:

    >>> rows = StreamedRows([HeldPart(np.eye(3, dtype="float16")), HeldPart(np.ones((1, 3), "f2"))])
    >>> len(rows), rows.shape, rows[[3, 0]].tolist()
    (4, (4, 3), [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    >>> rows.subset(np.array([2, 3]))[0].tolist()
    [0.0, 0.0, 1.0]
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, parts: Sequence[StoredPart], chosen: np.ndarray | None = None):
        self.parts, self.chosen = list(parts), chosen
        self._starts = np.cumsum([0, *(part.shape[0] for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1]) if self.chosen is None else len(self.chosen)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.parts[0].shape[1]

    @property
    def size(self) -> int:
        return len(self) * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Of all rows as an array."""
        return self.size * self.dtype.itemsize

    @property
    def stored_dtype(self) -> np.dtype:
        """That holds all rows as they are stored."""
        return max(part.dtype for part in self.parts)

    def subset(self, rows: np.ndarray) -> Self:
        """The rows that an index or boolean array selects, where they are."""
        rows = np.arange(len(self))[rows]
        return type(self)(self.parts, rows if self.chosen is None else self.chosen[rows])

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple):
            rows = self[key[0]]
            if isinstance(key[0], int | np.integer):
                return rows[key[1:]]
            if isinstance(key[0], slice) or len(key) == 1:
                return rows[:, *key[1:]]
            return rows[np.arange(len(rows)), *key[1:]]  # pairs of numbers, as of an array
        if isinstance(key, int | np.integer):
            return self[key : key + 1 or None][0]
        return self._single(*self._where(key))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = np.empty(self.shape, np.float32)
        for start, block in self.blocks():
            found[start : start + len(block)] = block
        return found if dtype is None else found.astype(dtype, copy=False)

    def stored(self, key: Any) -> np.ndarray:
        """Rows in the precision in which they are stored; of an index, a range or numbers."""
        return self._stored(*self._where(key))

    def blocks(self, rows: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the number of the first row and each block of rows, float32.

        Args:
            rows: Of a block but the last; None: as many as fit a cache.
        """
        size = rows or max(1, _BLOCK_BYTES // (4 * self.shape[1]))
        for start in range(0, len(self), size):
            yield start, self[start : start + size]

    @property
    def in_memory(self) -> bool:
        """Whether all parts are."""
        return all(isinstance(part, HeldPart) for part in self.parts)

    @property
    def held_bytes(self) -> int:
        """That `held` takes."""
        return int(self._starts[-1]) * self.shape[1] * self.stored_dtype.itemsize

    def held(self) -> Self:
        """The same rows, all parts of them in memory as they are stored, once."""
        whole = StreamedRows(self.parts)
        if len(self.parts) == 1 and self.in_memory:
            return self
        values = np.empty(whole.shape, self.stored_dtype)
        size = max(1, _BLOCK_BYTES // values[0].nbytes)
        for start in range(0, len(whole), size):
            values[start : start + size] = whole.stored(np.s_[start : start + size])
        return type(self)([HeldPart(values)], self.chosen)

    def _where(self, key: Any) -> tuple[np.ndarray | None, slice | None]:
        """The rows that are meant by their numbers, or as a range of all rows there are."""
        if self.chosen is not None:
            return self.chosen[key], None
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return None, slice(start, max(start, stop))
            return np.arange(start, stop, step), None
        numbers = np.asarray(key)
        if numbers.dtype == bool:
            return np.arange(len(self))[numbers], None
        numbers = np.where(numbers < 0, numbers + len(self), numbers).astype(np.intp)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"a row that is none of {len(self)}")
        return numbers, None

    def _stored(self, numbers: np.ndarray | None, of: slice | None) -> np.ndarray:
        if numbers is not None:
            return self._taken(numbers, self.stored_dtype)
        first, last = np.searchsorted(self._starts, [of.start, of.stop], side="right")
        pieces = []
        for i in range(first - 1, min(last, len(self.parts))):
            start = self._starts[i]
            low, high = max(of.start - start, 0), min(of.stop - start, self.parts[i].shape[0])
            if low < high:
                pieces.append(self.parts[i].read(int(low), int(high)))
        if len(pieces) == 1:
            return pieces[0]
        empty = np.empty((0, self.shape[1]), self.stored_dtype)
        return np.concatenate([empty, *pieces])

    def _single(self, numbers: np.ndarray | None, of: slice | None) -> np.ndarray:
        stored = self._stored(numbers, of)
        if stored.dtype == np.float32:
            return stored
        found = np.empty(stored.shape, np.float32)
        as_single(stored, found)
        return found

    def _taken(self, numbers: np.ndarray, dtype: np.dtype) -> np.ndarray:
        if len(self.parts) == 1 and isinstance(self.parts[0], HeldPart):
            return self.parts[0].take(numbers)
        found = np.empty((len(numbers), self.shape[1]), dtype)
        rising = bool((np.diff(numbers) >= 0).all())
        order = None if rising else np.argsort(numbers, kind="stable")
        wanted = numbers if rising else numbers[order]
        ends = np.searchsorted(wanted, self._starts)
        for part, start, first, last in zip(self.parts, self._starts, ends, ends[1:], strict=False):
            if first < last:
                where = slice(first, last) if rising else order[first:last]
                found[where] = part.take(wanted[first:last] - start)
        return found


AnyRows = np.ndarray | StreamedRows
"""Rows in memory, float32, or streamed ones."""


def blocks_of(rows: AnyRows) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the number of the first row and each block of rows, float32.

    Example:

    >>> [(start, len(block)) for start, block in blocks_of(np.zeros((3, 2), "float32"))]
    [(0, 3)]
    """
    if isinstance(rows, StreamedRows):
        yield from rows.blocks()
        return
    size = max(1, _BLOCK_BYTES // max(rows[:1].nbytes, 1))
    for start in range(0, len(rows), size):
        yield start, rows[start : start + size]


def some_rows(rows: AnyRows, which: np.ndarray) -> AnyRows:
    """The rows that an index or boolean array selects; streamed ones stay where they are."""
    return rows.subset(which) if isinstance(rows, StreamedRows) else rows[which]


def joined_rows(parts: Sequence[AnyRows]) -> AnyRows:
    """Rows one after the other; where some are streamed, the whole is."""
    if not any(isinstance(part, StreamedRows) for part in parts):
        return np.concatenate(parts)
    every, numbers, first = [], [], 0
    for rows in parts:
        rows = rows if isinstance(rows, StreamedRows) else StreamedRows([HeldPart(rows)])
        every += rows.parts
        numbers.append(first + (np.arange(len(rows)) if rows.chosen is None else rows.chosen))
        first += sum(part.shape[0] for part in rows.parts)
    whole = StreamedRows(every)
    return (
        whole
        if all(rows.chosen is None for rows in parts if isinstance(rows, StreamedRows))
        else whole.subset(np.concatenate(numbers))
    )

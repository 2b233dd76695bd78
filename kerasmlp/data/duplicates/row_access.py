"""The rows of several stores as one, in ranges and by their numbers, each of length 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kerasmlp.data.stores.stored_rows import StoredRows


class RowAccess:
    """Rows of stores, one after the other, brought to length 1 as they are asked for.

    Args:
        parts: Of one width.
        chosen: Numbers of the rows that are meant, rising; None: all of them.

    Attributes:
        width: Of a row.

    Example:

    >>> from kerasmlp import EmbeddingStore, StoreInfo
    >>> info = StoreInfo(normalized=False)
    >>> parts = [StoredRows(EmbeddingStore(k * np.eye(2), info=info)) for k in (1, 2)]
    >>> RowAccess(parts, np.array([0, 1, 3])).take(np.array([1, 2]))
    array([[0., 1.],
           [0., 1.]], dtype=float32)
    """

    def __init__(self, parts: Sequence[StoredRows], chosen: np.ndarray | None = None):
        self.width = parts[0].width
        self._parts, self._starts = parts, np.cumsum([0, *map(len, parts)])
        self._chosen = np.arange(self._starts[-1]) if chosen is None else chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def subset(self, rows: np.ndarray) -> RowAccess:
        """Some of these rows, rising."""
        return RowAccess(self._parts, self._chosen[rows])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The rows of these numbers, rising, float32; zeros of a row of zeros."""
        wanted = self._chosen[rows]
        found = np.empty((len(wanted), self.width), np.float32)
        ends = np.searchsorted(wanted, self._starts)
        for part, start, first, last in zip(
            self._parts, self._starts, ends, ends[1:], strict=False
        ):
            if first < last:
                own = wanted[first:last] - start
                np.multiply(part.values[own], part.scales[own, None], out=found[first:last])
        return found

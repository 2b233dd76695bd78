"""Rows sorted by the pivots they are nearest to, so that each is compared with few others.

An inverted file (Sivic and Zisserman, "Video Google", ICCV 2003): two rows that are nearly the
same are nearest to the same pivot, or one of them is nearly so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from kerasmlp.data.duplicates.comparisons import Tiles
from kerasmlp.data.duplicates.row_access import RowAccess

RECALL = 0.99
"""Of the pairs at the cosine that cells are made for; of those above it more are found."""

_PIVOTS = 4  # times the root of the number of rows
_DIRECTIONS = 128  # measured: of 512 a quarter of the work, and hardly more cells for a row
_MOST_CELLS_OF_A_ROW = 32
_ROWS_OF_A_PIVOT = 20  # of the sample of which pivots are the means
_MEANS = 2  # measured: the first rounds halve the work, later ones change little
_TRIED = 2000
_MIXED = 32
_BLOCK = 4096


class Cells:
    """For each pivot the rows that it is nearest to, and those that it is nearly nearest to.

    Pivots are means of rows, in the principal directions of a sample. How near is nearly
    follows from rows that are turned to the cosine asked for, towards random mixtures of other
    rows: 99% of them must be found again by the row they came from.

    Args:
        rows: Of length 1.
        cosine: From which on pairs are to be found.
        seed: Of the pivots, and of what is turned.
        told: Called with the number of rows that were sorted.

    Example:

    >>> from kerasmlp import EmbeddingStore
    >>> from kerasmlp.data.stores.stored_rows import StoredRows
    >>> x = np.random.default_rng(0).normal(size=(500, 16))
    >>> x /= np.linalg.norm(x, axis=1, keepdims=True)
    >>> cells = Cells(RowAccess([StoredRows(EmbeddingStore(x))]), 0.9)
    >>> len(cells), cells.recall_at(0.9) > 0.97
    (88, True)
    """

    def __init__(
        self,
        rows: RowAccess,
        cosine: float,
        *,
        seed: int = 0,
        told: Callable[[int], object] = lambda done: None,
    ):
        self._rows, self._rng = rows, np.random.default_rng(seed)
        count = min(len(rows), _PIVOTS * round(len(rows) ** 0.5))
        some = self._drawn(_ROWS_OF_A_PIVOT * count)
        self._basis = _principal(rows, some)
        self._pivots = self._means(some, count)
        self._margin = self._needed_margin(cosine)
        self._sort(told)

    def __len__(self) -> int:
        return len(self._pivots)

    def tiles(self, chosen: np.ndarray | None = None) -> Tiles:
        """Compares the rows of each cell with those that are nearly in it.

        Args:
            chosen: Mask of rows to compare; None: all.
        """
        for first, last in pairwise(self._starts):
            near, own = self._members[first:last], self._own[first:last]
            if chosen is not None:
                own, near = own[chosen[near]], near[chosen[near]]
            if own.any() and len(near) > 1:
                others, places = self._rows.take(near), np.flatnonzero(own)
                cosines = others[places] @ others.T
                cosines[np.arange(len(places)), places] = -1
                yield near[places], near, cosines

    def recall_at(self, cosine: float) -> float:
        """The share of rows turned to a cosine that are found again by the row they came from."""
        return float((self._turned_apart(cosine)[0] <= self._margin).mean())

    def _drawn(self, count: int) -> np.ndarray:
        count = min(count, len(self._rows))
        return np.sort(self._rng.choice(len(self._rows), count, replace=False))

    def _to_pivots(self, x: np.ndarray) -> np.ndarray:
        return (x @ self._basis) @ self._pivots.T

    def _means(self, some: np.ndarray, count: int) -> np.ndarray:
        """Directions around which about as many rows lie: means of those nearest to a few."""
        first = np.sort(self._rng.choice(some, count, replace=False))
        pivots = _of_length_1(self._rows.take(first) @ self._basis)
        for _ in range(_MEANS):
            sums = np.zeros_like(pivots)
            for x in _blocks(self._rows, some):
                x = x @ self._basis
                nearest = (x @ pivots.T).argmax(axis=1)
                order = np.argsort(nearest, kind="stable")
                starts = np.flatnonzero(np.diff(nearest[order], prepend=-1))
                sums[nearest[order][starts]] += np.add.reduceat(x[order], starts)
            pivots = _of_length_1(np.where(sums.any(axis=1, keepdims=True), sums, pivots))
        return pivots

    def _turned_apart(self, cosine: float) -> tuple[np.ndarray, np.ndarray]:
        """By how much a turned row and its origin miss a pivot of each other, and what the
        origins miss all pivots by."""
        before = self._rows.take(self._drawn(_TRIED))
        others = self._rows.take(self._drawn(_TRIED))
        after = _turned(before, others, cosine, self._rng)
        near_before, near_after = self._to_pivots(before), self._to_pivots(after)
        behind = near_before.max(axis=1, keepdims=True) - near_before
        each = np.arange(len(before))
        one_way = near_after.max(axis=1) - near_after[each, near_before.argmax(axis=1)]
        other_way = behind[each, near_after.argmax(axis=1)]
        return np.minimum(one_way, other_way), behind

    def _needed_margin(self, cosine: float) -> float:
        """How much less near than the nearest pivot one may be."""
        apart, behind = self._turned_apart(cosine)
        most = min(_MOST_CELLS_OF_A_ROW * len(behind), behind.size) - 1
        return float(min(np.quantile(apart, RECALL), np.partition(behind, most, axis=None)[most]))

    def _sort(self, told: Callable[[int], object]) -> None:
        """Fills the cells, a range of rows at a time."""
        sizes, members, own = [], [], []
        for start in range(0, len(self._rows), _BLOCK):
            stop = min(start + _BLOCK, len(self._rows))
            x = self._rows.take(np.arange(start, stop))
            cosines = self._pivots @ (x @ self._basis).T
            nearest = cosines.max(axis=0)
            cell, row = np.nonzero(cosines >= nearest - self._margin)
            sizes.append(np.bincount(cell, minlength=len(self)).astype(np.int32))
            members.append((row + start).astype(np.int32))
            own.append(cosines[cell, row] == nearest[row])
            told(stop - start)
        self._starts = np.concatenate([[0], np.cumsum(np.sum(sizes, axis=0, dtype=np.int64))])
        self._members = np.empty(self._starts[-1], np.int32)
        self._own = np.empty(self._starts[-1], bool)
        filled = self._starts[:-1].copy()
        for size, rows, theirs in zip(sizes, members, own, strict=True):
            place = np.repeat(filled - (np.cumsum(size) - size), size) + np.arange(len(rows))
            self._members[place], self._own[place] = rows, theirs
            filled += size


def _principal(rows: RowAccess, some: np.ndarray) -> np.ndarray:
    """The directions in which rows differ most, `(width, directions)`."""
    moments = np.zeros((rows.width, rows.width))
    for x in _blocks(rows, some):
        moments += x.T @ x
    return np.linalg.eigh(moments)[1][:, -_DIRECTIONS:].astype(np.float32)


def _blocks(rows: RowAccess, numbers: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(numbers), _BLOCK):
        yield rows.take(numbers[start : start + _BLOCK])


def _turned(
    x: np.ndarray, others: np.ndarray, cosine: float, rng: np.random.Generator
) -> np.ndarray:
    """Each row turned to a cosine, towards a random mixture of rows, which differ as they do."""
    towards = np.zeros_like(x)
    for _ in range(_MIXED):
        factors = rng.standard_normal((len(x), 1), np.float32)
        towards += factors * others[rng.integers(0, len(others), len(x))]
    towards = _of_length_1(towards - np.vecdot(towards, x)[:, None] * x)
    return np.float32(cosine) * x + np.float32(np.sqrt(1 - cosine**2)) * towards


def _of_length_1(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

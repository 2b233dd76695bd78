"""Cosines between rows, a block at a time: the nearest of each, and the pairs above a threshold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kerasmlp.data.duplicates.row_access import RowAccess
from kerasmlp.utils.checks import reject

TILE = 2048
MOST_PAIRS = 5_000_000
"""That are listed: more take gigabytes, and nobody looks through them."""

Tiles = Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Numbers of some rows, of others, and the cosines between them; -1 of a row with itself."""


def number_of_tiles(rows: RowAccess) -> int:
    """Of `all_tiles`."""
    side = -(-len(rows) // TILE)
    return side * (side + 1) // 2


def all_tiles(rows: RowAccess) -> Tiles:
    """Compares each row with each other."""
    ranges = [np.arange(s, min(s + TILE, len(rows))) for s in range(0, len(rows), TILE)]
    for place, some in enumerate(ranges):
        left = rows.take(some)
        for others in ranges[place:]:
            right = left if others is some else rows.take(others)
            cosines = left @ right.T
            if others is some:
                np.fill_diagonal(cosines, -1)
            yield some, others, cosines


def nearest_cosines(count: int, tiles: Tiles) -> np.ndarray:
    """The largest cosine of each row with another, -1 where it was compared with none.

    Args:
        count: Of all rows.
        tiles: Of comparisons, in which no row is twice on one side.
    """
    nearest = np.full(count, -1, np.float32)
    for some, others, cosines in tiles:
        nearest[some] = np.maximum(nearest[some], cosines.max(axis=1))
        nearest[others] = np.maximum(nearest[others], cosines.max(axis=0))
    return np.minimum(nearest, 1)


def pairs_above(threshold: float, count: int, tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of at least such a cosine.

    Args:
        threshold: Cosine.
        count: Of all rows.
        tiles: Of comparisons; a pair may come more than once.

    Returns:
        `(pairs, 2)` numbers of rows, the lower one first, and the cosines, by these numbers.

    Raises:
        InputError: if they are more than 5,000,000.
    """
    found = _Pairs(threshold)
    for some, others, cosines in tiles:
        a, b = np.nonzero(cosines >= threshold)
        low, high = np.minimum(some[a], others[b]), np.maximum(some[a], others[b])
        found.add(low.astype(np.int64) * count + high, cosines[a, b])
    keys, values = found.all()
    return np.stack(np.divmod(keys, count), axis=1), np.minimum(values, 1)


class _Pairs:
    """Numbers of pairs with their cosines, each kept once."""

    def __init__(self, threshold: float):
        self._threshold, self._waiting = threshold, 0
        self._keys, self._values = [np.empty(0, np.int64)], [np.empty(0, np.float32)]

    def add(self, keys: np.ndarray, values: np.ndarray) -> None:
        self._keys.append(keys)
        self._values.append(values)
        self._waiting += len(keys)
        if self._waiting > MOST_PAIRS:
            self.all()

    def all(self) -> tuple[np.ndarray, np.ndarray]:
        keys, first = np.unique(np.concatenate(self._keys), return_index=True)
        values = np.concatenate(self._values)[first]
        self._keys, self._values, self._waiting = [keys], [values], 0
        if len(keys) > MOST_PAIRS:
            requirement = f"must be higher: more than {MOST_PAIRS:,} pairs are above it"
            reject("threshold", requirement, round(float(self._threshold), 4))
        return keys, values

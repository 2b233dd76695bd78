"""What a search for duplicates found: pairs, and the groups that they make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerasmlp.data.duplicates.comparisons import MOST_PAIRS
from kerasmlp.data.duplicates.components import components


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """What `near_duplicates` found; rows of all stores are numbered on, one store after the other.

    Attributes:
        names: Of the stores.
        starts: Number of the first row of each store, and of all rows.
        threshold: Cosine of a pair at least; None where only equal rows are pairs.
        derived: Whether the threshold is that of the valley.
        recall: Share of rows that were found again when they were turned by as much as the
            threshold allows (without one, to a cosine of 0.9); None where each row was compared
            with each.
        nearest: Cosine of each row with its nearest; where cells were made, with the nearest
            that was found. NaN of rows that were not looked at: views but the first.
        kinds: Equal rows have one number.
        near: `(pairs, 2)` numbers of kinds that are nearly the same.
        cosines: Of these pairs.
        known: Rows of one group, by the stores' column `group`, have one number.
    """

    names: tuple[str, ...]
    starts: np.ndarray
    threshold: float | None
    derived: bool
    recall: float | None
    nearest: np.ndarray
    kinds: np.ndarray
    near: np.ndarray
    cosines: np.ndarray
    known: np.ndarray

    @property
    def looked_at(self) -> np.ndarray:
        """Numbers of the rows that were compared."""
        return np.flatnonzero(self.kinds >= 0)

    def store_of(self, rows: np.ndarray) -> np.ndarray:
        """The number of the store of each row."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """All pairs, `(pairs, 2)` numbers of rows, and their cosines, the least alike first.

        Where more than 5,000,000 would be listed, as many rows are equal, one row of a kind
        stands for all that are equal to it, and comes in pairs with them.
        """
        order = self.looked_at[np.argsort(self.kinds[self.looked_at], kind="stable")]
        sizes = np.bincount(self.kinds[order])
        firsts = np.concatenate([[0], np.cumsum(sizes)])
        a, b = self.near.T
        every = (sizes[a] * sizes[b]).sum() + (sizes * (sizes - 1) // 2).sum() <= MOST_PAIRS
        found, cosines = [order[firsts[self.near]]], [self.cosines]
        if every and len(self.near):
            times = sizes[a] * sizes[b]
            place = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
            wide = np.repeat(sizes[b], times)
            left = order[np.repeat(firsts[a], times) + place // wide]
            right = order[np.repeat(firsts[b], times) + place % wide]
            found, cosines = [np.stack([left, right], axis=1)], [np.repeat(self.cosines, times)]
        for kind in np.flatnonzero(sizes > 1):
            rows = order[firsts[kind] : firsts[kind + 1]]
            among = np.triu_indices(len(rows), 1) if every else (0, slice(1, None))
            left, right = np.broadcast_arrays(rows[among[0]], rows[among[1]])
            found.append(np.stack([left, right], axis=1))
            cosines.append(np.ones(len(left), np.float32))
        listed, values = np.sort(np.concatenate(found), axis=1), np.concatenate(cosines)
        best = np.lexsort((listed[:, 1], listed[:, 0], values))
        return listed[best], values[best]

    def groups(self, *, known: bool = True) -> np.ndarray:
        """A number for each row, the same for those that pairs connect, the lowest of their rows.

        Args:
            known: Whether rows of one group of a store are connected, too.
        """
        rows = self.looked_at
        first = np.full(self.kinds.max(initial=0) + 1, -1)
        first[self.kinds[rows][::-1]] = rows[::-1]
        edges = [np.stack([first[self.kinds[rows]], rows], axis=1), first[self.near]]
        if known:
            firsts = np.unique(self.known, return_index=True, return_inverse=True)
            edges.append(np.stack([firsts[1][firsts[2]], np.arange(len(self.known))], axis=1))
        return components(len(self.kinds), np.concatenate(edges))

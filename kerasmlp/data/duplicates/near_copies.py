"""Whether rows that are held out have near-duplicates among those learned from, at little cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerasmlp.data.duplicates.comparisons import TILE

NEAR_COSINE = 0.95
"""Of a near-duplicate at least: photos of faces compressed anew keep 0.97 and more, mostly."""

MOST_OPERATIONS = 100_000_000_000
"""Of one look: a second or two."""

REMEDY = "`leaks --threshold 0.95 --write-groups` gives such rows one group, which no split divides"

_FEWEST_ROWS, _FEWEST_COLUMNS = 20, 32


@dataclass(frozen=True)
class NearCopies:
    """How many rows held out have a near-duplicate among others.

    Attributes:
        rows: That have one.
        looked_at: Of how many.
        held_out: All rows held out.

    Example:

    >>> str(NearCopies(3, 100, 100)), str(NearCopies(3, 100, 2000))
    ('3 of the 100 rows', '3 of 100 of the 2,000 rows')
    """

    rows: int
    looked_at: int
    held_out: int

    def __str__(self) -> str:
        some = f"{self.looked_at:,} of " if self.looked_at < self.held_out else ""
        return f"{self.rows:,} of {some}the {self.held_out:,} rows"

    def to_json(self) -> dict[str, int | float]:
        """What a report says."""
        return {"rows": self.rows, "looked_at": self.looked_at, "cosine": NEAR_COSINE}


def can_have_copies(width: int, *, normalized: bool) -> bool:
    """Whether a cosine near 1 says that rows are nearly the same: of few columns it says little."""
    return normalized and width >= _FEWEST_COLUMNS


def near_copies(held_out: np.ndarray, others: np.ndarray, *, seed: int = 0) -> NearCopies:
    """Counts rows of norm 1 that have a near-duplicate among others.

    A near-duplicate has a cosine of 0.95 at least, and is twice as near as most rows have
    another: some embedders have all rows in a narrow cone. Where it would take long, some of
    the rows are looked at.

    Args:
        held_out: `(rows, width)`.
        others: Those learned from, `(rows, width)`.
        seed: Of the choice of some.

    Example:

    >>> x = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 64)))[0]
    >>> near_copies(x[:30], x[28:])
    NearCopies(rows=2, looked_at=30, held_out=30)
    """
    rows = looked_at(len(held_out), held_out.shape[1] * len(others), seed)
    nearest = nearest_among(held_out[rows], others)
    return NearCopies(int((nearest >= near_cosine(nearest)).sum()), len(rows), len(held_out))


def looked_at(
    rows: int, products: int, seed: int, *, operations: int = MOST_OPERATIONS
) -> np.ndarray:
    """Numbers of the rows that are looked at where each costs so many products, rising."""
    most = max(operations // (2 * max(products, 1)), _FEWEST_ROWS)
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def nearest_among(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The largest cosine of each row with one of others, both of norm 1."""
    nearest = np.full(len(rows), -1, np.float32)
    for start in range(0, len(rows), TILE):
        some = rows[start : start + TILE]
        for first in range(0, len(others), TILE):
            found = (some @ others[first : first + TILE].T).max(axis=1)
            nearest[start : start + TILE] = np.maximum(nearest[start : start + TILE], found)
    return nearest


def near_cosine(nearest: np.ndarray) -> float:
    """From which cosine on rows are nearly the same, of which these are with the nearest.

    Example:

    >>> near_cosine(np.array([0.99, 0.4, 0.3])), round(near_cosine(np.array([0.99, 0.9, 0.9])), 3)
    (0.95, 0.975)
    """
    angle = np.arccos(np.clip(np.quantile(nearest, 0.05), -1, 1))
    return float(max(NEAR_COSINE, np.cos(angle / 2)))

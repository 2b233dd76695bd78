"""How many pairs lie within parts of the rows and across them: stores, folds."""

import numpy as np


class Crossings:
    """Pairs and rows with a duplicate, counted by the parts that rows are in.

    Args:
        kinds: Equal rows have one number, -1 is left out.
        near: `(pairs, 2)` numbers of kinds that are nearly the same.
        parts: Of each row, from 0 on; -1 is left out.

    Attributes:
        pairs: `(parts, parts)`; of two different parts at both places.
        rows: `(parts, parts)`: rows of the first that have a duplicate in the second.

    Example:

    >>> kinds, near = np.array([0, 1, 2, 0, 3]), np.array([[0, 1]])
    >>> found = Crossings(kinds, near, np.array([0, 0, 0, 1, 1]))
    >>> found.pairs.tolist(), found.rows.tolist(), found.elsewhere.tolist()
    ([[1, 2], [2, 0]], [[2, 2], [1, 0]], [2, 1])
    """

    def __init__(self, kinds: np.ndarray, near: np.ndarray, parts: np.ndarray):
        there = (kinds >= 0) & (parts >= 0)
        kinds, parts, number = kinds[there], parts[there], parts.max(initial=0) + 1
        paired = np.bincount(kinds, minlength=near.max(initial=-1) + 1) > 1
        paired[near] = True
        place = np.cumsum(paired) - 1  # of the kinds that are in a pair
        kinds, parts = place[kinds[paired[kinds]]], parts[paired[kinds]]
        a, b = place[near].T
        own = np.zeros((paired.sum(), number), np.int64)
        np.add.at(own, (kinds, parts), 1)
        others = own.copy()
        np.add.at(others, a, own[b])
        np.add.at(others, b, own[a])
        near_pairs = own[a].T @ own[b]
        equal = own.T @ own
        self.pairs = near_pairs + near_pairs.T + equal
        np.fill_diagonal(self.pairs, np.diag(near_pairs) + (np.diag(equal) - own.sum(axis=0)) // 2)
        self.rows = own.T @ (others > 0)
        np.fill_diagonal(self.rows, (own * (others > 1)).sum(axis=0))
        elsewhere = others.sum(axis=1, keepdims=True) - others > 0
        self.elsewhere = (own * elsewhere).sum(axis=0)
        """Rows of each part that have a duplicate in any other."""

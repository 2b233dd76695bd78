"""What the rows of a training are to be answered with, made as they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class TargetRows:
    """Targets of rows, `(rows, outputs)` float32, of which there are only some kinds.

    Of 101 years and a million rows the whole would take as much memory as their embeddings.

    Args:
        parts: Side by side: a table of kinds and the kind of each row, or None where the table
            has a line for each row.
        weights: Of the rows, factors of all outputs; None: 1.

    Example:

    >>> genders = np.eye(2, dtype="float32"), np.array([1, 0, 1])
    >>> targets = TargetRows([genders, (np.float32([[5], [6], [7]]), None)])
    >>> targets.shape, targets[[0, 1]].tolist()
    ((3, 3), [[0.0, 1.0, 5.0], [1.0, 0.0, 6.0]])
    """

    def __init__(
        self,
        parts: Sequence[tuple[np.ndarray, np.ndarray | None]],
        weights: np.ndarray | None = None,
    ):
        self.parts, self.weights = list(parts), weights

    def __len__(self) -> int:
        table, kinds = self.parts[0]
        return len(table if kinds is None else kinds)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), sum(table.shape[1] for table, _ in self.parts)

    def __getitem__(self, rows: Any) -> np.ndarray:
        each = [table[rows if kinds is None else kinds[rows]] for table, kinds in self.parts]
        found = each[0] if len(each) == 1 else np.concatenate(each, axis=1)
        return found if self.weights is None else found * self.weights[rows][:, None]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def weighted(self, weights: np.ndarray) -> TargetRows:
        """The same, in which rows count so much."""
        return TargetRows(self.parts, weights)

    @classmethod
    def side_by_side(cls, each: Sequence[TargetRows]) -> TargetRows:
        """Those of several heads as one."""
        return cls([part for targets in each for part in targets.parts])

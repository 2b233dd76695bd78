"""Which rows are compared with which: each with each, or as far as they are near one pivot."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from kerasmlp.data.duplicates.cells import Cells
from kerasmlp.data.duplicates.comparisons import Tiles, all_tiles, number_of_tiles
from kerasmlp.data.duplicates.row_access import RowAccess

EXACT_ROWS = 50_000
"""Up to so many rows each is compared with each, in half a minute on two cores."""


class RowSearch:
    """Comparisons of rows that are enough to find pairs of a cosine and above.

    Args:
        rows: Of length 1.
        cosine: Of the pairs to be found.
        seed: Of the pivots.
        progress: Show bars.
    """

    def __init__(self, rows: RowAccess, cosine: float, *, seed: int, progress: bool):
        self._rows, self._progress, self._cells = rows, progress, None
        if len(rows) > EXACT_ROWS:
            with self._bar(len(rows), "sorting rows", "row") as bar:
                self._cells = Cells(rows, cosine, seed=seed, told=bar.update)

    def recall_at(self, cosine: float) -> float | None:
        """As of `Cells`; None where each row is compared with each."""
        return None if self._cells is None else self._cells.recall_at(cosine)

    def tiles(self) -> Tiles:
        """Of all rows."""
        if self._cells is None:
            return self._told(all_tiles(self._rows), number_of_tiles(self._rows))
        return self._told(self._cells.tiles(), len(self._cells))

    def among(self, chosen: np.ndarray) -> Tiles:
        """Of the rows that a mask selects."""
        if self._cells is not None and chosen.sum() > EXACT_ROWS:
            yield from self._told(self._cells.tiles(chosen), len(self._cells))
            return
        numbers = np.flatnonzero(chosen)
        some = self._rows.subset(numbers)
        for left, right, cosines in self._told(all_tiles(some), number_of_tiles(some)):
            yield numbers[left], numbers[right], cosines

    def _told(self, tiles: Tiles, total: int) -> Iterator:
        with self._bar(total, "comparing rows", "block") as bar:
            for tile in tiles:
                yield tile
                bar.update()

    def _bar(self, total: int, what: str, unit: str) -> Any:
        from tqdm import tqdm

        return tqdm(total=total, desc=what, unit=unit, disable=not self._progress)

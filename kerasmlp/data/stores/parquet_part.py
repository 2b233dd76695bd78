"""The rows of a Parquet file, which stay there."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from kerasmlp.data.stores.watched_file import WatchedFile, is_too_many
from kerasmlp.utils.checks import reject_file

EMBEDDING = "embedding"
"""The column of lists."""


class ParquetPart:
    """Rows of a Parquet file, a row group at a time; the last group stays in memory.

    Args:
        path: Of the file, which stays open and must stay as it is.
        file: It, opened by pyarrow.
        dtype: float16 or float32.
        width: Of a row.
        name: Of the column of lists.
    """

    def __init__(self, path: Any, file: Any, dtype: np.dtype, width: int, name: str = EMBEDDING):
        groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        self.shape, self.dtype = (sum(groups), width), np.dtype(dtype)
        self._path, self._file, self._starts = path, file, np.cumsum([0, *groups])
        self._held, self._lock, self._name = (-1, None), threading.Lock(), name
        with open(path, "rb") as watched:
            self._watched = WatchedFile(path, watched.fileno())

    def read(self, start: int, stop: int) -> np.ndarray:
        pieces = [np.empty((0, self.shape[1]), self.dtype)]
        for group in self._groups(start, stop):
            first = self._starts[group]
            pieces.append(self._group(group)[max(start - first, 0) : stop - first])
        return pieces[1] if len(pieces) == 2 else np.concatenate(pieces)

    def take(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), self.shape[1]), self.dtype)
        if not len(rows):
            return found
        for group in self._groups(int(rows[0]), int(rows[-1]) + 1):
            first, last = np.searchsorted(rows, self._starts[group : group + 2])
            if first < last:
                found[first:last] = self._group(group)[rows[first:last] - self._starts[group]]
        return found

    def _groups(self, start: int, stop: int) -> range:
        first, last = np.searchsorted(self._starts, [start, max(stop, start + 1) - 1], "right") - 1
        return range(int(first), int(last) + 1 if stop > start else int(first))

    def _group(self, number: int) -> np.ndarray:
        with self._lock:
            if self._held[0] != number:
                self._held = -1, None  # two groups of another program can be too many
                self._held = number, self._values(number)
            return self._held[1]

    def _values(self, number: int) -> np.ndarray:
        column = self._column(number)
        requirement = f"must hold {self.shape[1]} numbers in each row of {self._name!r}"
        if column.null_count:
            reject_file(self._path, requirement, "rows without a list")
        parts = [chunk.flatten() for chunk in column.chunks]
        if any(part.null_count for part in parts):
            reject_file(self._path, requirement, "gaps")
        values = [part.to_numpy(zero_copy_only=False) for part in parts]
        rows = int(self._starts[number + 1] - self._starts[number])
        whole = values[0] if len(values) == 1 else np.concatenate(values)
        if whole.size != rows * self.shape[1]:
            reject_file(self._path, requirement, f"{whole.size} numbers in {rows} rows")
        return whole.reshape(rows, self.shape[1])

    def _column(self, number: int) -> Any:
        import pyarrow

        # The watched descriptor is another than pyarrow's, but of the same file.
        try:
            with self._watched.opened():
                return self._file.read_row_group(number, columns=[self._name]).column(0)
        except pyarrow.ArrowMemoryError:
            raise
        except (pyarrow.ArrowException, OSError) as error:
            if is_too_many(error):
                raise
            came = ascii(" ".join(str(error).split())[:100])
            reject_file(self._path, "must hold what was written, by its checksums", came)

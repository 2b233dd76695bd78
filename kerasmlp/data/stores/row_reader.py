"""The rows of a file, read past h5py's global lock on all cores."""

import contextlib
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import h5py
import numpy as np

from kerasmlp.data.stores.checksums import Checksums
from kerasmlp.data.stores.raw_file import RawFile

_TASK_BYTES = 1 << 25  # measured: smaller tasks lose more to starting them than they win
_PIECE_BYTES = 1 << 21  # measured: the cache of a core is smaller, but calls cost too
_THREADS = min(4, os.cpu_count() or 1)


class RowReader(contextlib.AbstractContextManager):
    """Reads the rows of a dataset on all cores, and compares their checksums.

    The rows start to flow at once. A block of rows is done with before the
    next is read, as it is in the cache.

    Args:
        each: Called with the first row's number and each block of rows.
        keep: False forgets a block once `each` has seen it.
    """

    def __init__(
        self,
        raw: RawFile,
        dataset: h5py.Dataset,
        dtype: type,
        checksums: Checksums,
        each: Callable[[int, np.ndarray], None] = lambda start, block: None,
        *,
        keep: bool = True,
    ):
        self.rows = np.empty(dataset.shape, dtype) if keep else None
        self._shape, self._kept_as = dataset.shape, np.dtype(dtype)
        self._raw, self._dataset, self._checksums, self._each = raw, dataset, checksums, each
        self._offset = dataset.id.get_offset()
        self._dtype = dataset.dtype
        row_size = math.prod(self._shape[1:])
        self._row_bytes = row_size * self._dtype.itemsize
        if self._dtype not in (self._kept_as, np.dtype("<f2")):
            self._offset = None  # rewritten by another program: big-endian, integers
        # as many tasks as keep all threads busy to the end
        nbytes = self._shape[0] * row_size * self._kept_as.itemsize
        tasks = _THREADS * -(-nbytes // (_THREADS * _TASK_BYTES))
        step = -(-self._shape[0] // tasks)
        step = -(-step // checksums.rows) * checksums.rows
        self._pool = ThreadPoolExecutor(_THREADS)
        starts = range(0, self._shape[0], step)
        self._reads = [self._pool.submit(self._read, s, s + step) for s in starts]

    def __exit__(self, *exception: Any) -> None:
        self._pool.shutdown(cancel_futures=True)

    def result(self) -> np.ndarray | None:
        """Waits for the last row; returns all that are kept.

        Raises:
            InputError: if rows differ from their checksums.
        """
        for read in self._reads:
            read.result()
        self._checksums.require()
        return self.rows

    def _read(self, start: int, stop: int) -> None:
        size = self._checksums.rows
        size *= max(1, _PIECE_BYTES // (size * self._row_bytes))
        in_place = self._offset is not None and self._dtype == self._kept_as
        stop = min(stop, self._shape[0])
        shape = (min(size, stop - start), *self._shape[1:])
        apart = None if in_place else np.empty(shape, self._dtype)
        passing = np.empty(shape, self._kept_as) if self.rows is None else None
        for first in range(start, stop, size):
            last = min(first + size, stop)
            block = passing[: last - first] if self.rows is None else self.rows[first:last]
            stored = block if in_place else apart[: len(block)]
            if self._offset is None:  # chunked, compressed
                self._dataset.read_direct(stored, np.s_[first : first + len(block)])
            else:
                self._raw.read_into(stored, self._offset + first * self._row_bytes)
            self._checksums.compare(stored, first)
            with np.errstate(over="ignore", invalid="ignore"):  # the caller rejects such rows
                if not in_place:
                    block[:] = stored
                self._each(first, block)

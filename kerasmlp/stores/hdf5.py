"""HDF5 files: opened with one kind of error, rows read past h5py's global lock."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kerasmlp.checks import InputError, reject_file

_BLOCK_BYTES = 1 << 25  # measured: smaller blocks lose more to calls than they win in cache
_HALF_ROWS = 512  # but halves are read into a small buffer, which stays in cache
_THREADS = min(4, os.cpu_count() or 1)

# what h5py and numpy were seen to raise on files with damaged bytes
_DAMAGE = (
    OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, MemoryError, OverflowError,
    AttributeError, IndexError, NotImplementedError,
)  # fmt: skip


@contextlib.contextmanager
def open_hdf5(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Opens an HDF5 file for reading; whatever is wrong with it becomes one sentence.

    Raises:
        InputError: if there is no such file, or it cannot be read to its end.
    """
    if not Path(path).is_file():
        reject_file(path, "must be an HDF5 file", "no such file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except _DAMAGE as error:
        text = " ".join(str(error).split())[:200]
        reject_file(path, "must be a complete HDF5 file", f"a damaged or foreign one ({text})")


@contextlib.contextmanager
def create_hdf5(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Creates an HDF5 file; a write that fails is an OSError, also when closing notices it."""
    try:
        with h5py.File(path, "w") as file:
            yield file
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None) or _errno_in(str(error))
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _errno_in(text: str) -> int | None:
    found = re.search(r"errno = (\d+)", text)
    return int(found[1]) if found else None


class RowReader:
    """Reads the rows of a dataset as float32, and their squared norms, on all cores.

    The rows start to flow at once, so the caller reads labels meanwhile.

    Args:
        path: The file that holds `dataset`.
        dataset: Of two dimensions, numeric.
    """

    def __init__(self, path: str | os.PathLike, dataset: h5py.Dataset):
        self.embeddings = np.empty(dataset.shape, np.float32)
        self.squared_norms = np.empty(len(self.embeddings), np.float32)
        self._dataset = dataset
        self._offset = dataset.id.get_offset()
        self._row_bytes = dataset.dtype.itemsize * dataset.shape[1]
        plain = dataset.dtype in (np.dtype("<f2"), np.dtype("<f4"))
        self._raw = open(path, "rb") if plain and self._offset is not None else None  # noqa: SIM115
        # as many blocks as keep all threads busy to the end
        blocks = _THREADS * -(-self.embeddings.nbytes // (_THREADS * _BLOCK_BYTES))
        rows = -(-len(self.embeddings) // blocks)
        self._pool = ThreadPoolExecutor(_THREADS)
        starts = range(0, len(self.embeddings), rows)
        self._reads = [self._pool.submit(self._read, slice(s, s + rows)) for s in starts]

    def __enter__(self) -> RowReader:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._raw is not None:
            self._raw.close()

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Waits for the last row; returns embeddings and squared norms."""
        for read in self._reads:
            read.result()
        return self.embeddings, self.squared_norms

    def _read(self, rows: slice) -> None:
        block = self.embeddings[rows]
        with np.errstate(over="ignore"):
            if self._raw is None:  # rewritten by another program: chunked, compressed, big-endian
                block[:] = self._dataset[rows]
            elif self._dataset.dtype == np.float32:
                self._fill(block, rows.start)
            else:
                half = np.empty((_HALF_ROWS, block.shape[1]), np.float16)
                for start in range(0, len(block), _HALF_ROWS):
                    part = half[: len(block) - start]
                    self._fill(part, rows.start + start)
                    block[start : start + _HALF_ROWS] = part
            np.vecdot(block, block, out=self.squared_norms[rows])

    def _fill(self, block: np.ndarray, start: int) -> None:
        view = memoryview(block).cast("B")
        offset = self._offset + start * self._row_bytes
        while len(view):
            count = os.preadv(self._raw.fileno(), [view], offset)
            if not count:
                raise EOFError("the file ends before its last row")
            view, offset = view[count:], offset + count

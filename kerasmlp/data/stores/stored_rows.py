"""The rows of an embedding store where they lie, in its file: memory holds what is looked at."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping

import h5py
import numpy as np

from kerasmlp.data.row_hashes import row_hashes
from kerasmlp.data.stores.checksums import Checksums
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.hdf5 import hdf5_of
from kerasmlp.data.stores.hdf5_writing import write_hdf5
from kerasmlp.data.stores.raw_file import RawFile
from kerasmlp.data.stores.row_store import SCHEMA_VERSION
from kerasmlp.data.stores.store_file import StoreFile, reject_table
from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.utils.files import atomic_path, require_free

_PIECE_BYTES = 1 << 23


class StoredRows:
    """Rows of a store, of any precision, with what one pass over them tells.

    Everything that `EmbeddingStore.open` checks is checked, against the checksums too. Files
    that another program has rewritten are read whole.

    Args:
        store: A file, or a store in memory.

    Attributes:
        name: The file, or the name of the store.
        values: `(rows, width)`, float16 or float32; of a file they are only mapped.
        labels: As of an `EmbeddingStore`.
        info: As of an `EmbeddingStore`.
        scales: One over the norm of each row, 0 of a row of zeros; float32.
        hashes: Of `row_hashes`.

    Raises:
        InputError: naming the file, what was expected and what came.

    Example:

    >>> rows = StoredRows(EmbeddingStore(np.eye(3, 8), {"gender": [0, 1, 1]}))
    >>> len(rows), rows.values.shape, rows.scales
    (3, (3, 8), array([1., 1., 1.], dtype=float32))
    """

    values: np.ndarray
    labels: Mapping[str, np.ndarray]
    info: StoreInfo

    def __init__(self, store: EmbeddingStore | str | os.PathLike):
        self._map: mmap.mmap | None = None
        if isinstance(store, EmbeddingStore):
            self._hold(store)
        else:
            self._open(store)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def save_as(self, path: str | os.PathLike, labels: Mapping[str, np.ndarray]) -> None:
        """Writes a store of the same rows with other labels, in the same precision.

        Raises:
            InputError: if the file exists.
            OSError: if the disk is full.
        """
        require_free(path)
        says = {"format": EmbeddingStore.FORMAT, "schema_version": SCHEMA_VERSION}
        says |= self.info.to_attributes()
        columns = {f"labels/{key}": column for key, column in labels.items()}
        with atomic_path(path, replace=False) as temporary:
            dtype, name = self.values.dtype, EmbeddingStore.ROWS[0]
            write_hdf5(temporary, name, self.values, dtype, columns, says)

    def _hold(self, store: EmbeddingStore) -> None:
        self.name, self.labels, self.info = store.name, store.labels, store.info
        self.values = store.embeddings.astype(store.storage_dtype, copy=False)
        self._measure(None)

    def _open(self, path: str | os.PathLike) -> None:
        name, what, ndim, kinds, dtype = EmbeddingStore.ROWS
        reject_table(path, EmbeddingStore.KIND, EmbeddingStore.COMMAND)
        with RawFile(path, "an HDF5 file") as raw, hdf5_of(raw) as opened:
            file = StoreFile(raw, opened, verify=True, most_bytes=None)
            kind = f"{EmbeddingStore.KIND} (`{EmbeddingStore.COMMAND}` makes one)"
            says = file.attributes(EmbeddingStore.FORMAT, SCHEMA_VERSION, kind)
            dataset, checksums = file.rows(name, what, ndim, kinds, np.dtype(dtype).itemsize)
            if not _lies_plain(dataset):
                return self._hold(EmbeddingStore.open(path, verify=True))
            self.name, self.info = path, StoreInfo.from_attributes(path, says)
            self._map = raw.mapped()
            offset, size = dataset.id.get_offset(), dataset.size
            flat = np.frombuffer(self._map, dataset.dtype, count=size, offset=offset)
            self.values = flat.reshape(dataset.shape)
            each, judge = EmbeddingStore.watched(path, dataset, self.info)
            self._measure(checksums, each)
            self.labels = file.labels(len(dataset), checksums.seed)
        judge(self.labels)

    def _measure(self, checksums: Checksums | None, each=lambda start, block: None) -> None:
        """One pass over all rows, a range at a time."""
        rows, width = self.values.shape
        self.scales, hashes = np.zeros(rows, np.float32), []
        unit = 1 if checksums is None else checksums.rows
        step = unit * max(1, _PIECE_BYTES // (unit * width * self.values.itemsize))
        for start in range(0, rows, step):
            stored = self.values[start : start + step]
            if checksums is not None:
                checksums.compare(stored, start)
            with np.errstate(over="ignore", invalid="ignore"):  # such rows are rejected below
                block = stored.astype(np.float32)
                each(start, block)
                norms = np.sqrt(np.vecdot(block, block))
            np.divide(1, norms, out=self.scales[start : start + step], where=norms > 0)
            hashes.append(row_hashes(block, half=self.info.normalized))
        if checksums is not None:
            checksums.require()
        self.hashes = np.concatenate(hashes)


def _lies_plain(dataset: h5py.Dataset) -> bool:
    """Whether rows lie in the file one after the other, as numbers that NumPy takes as they are."""
    return dataset.id.get_offset() is not None and dataset.dtype in (np.float16, np.float32)

"""Rows with their labels, in memory and in one HDF5 file: what the stores of all kinds share."""

import copy
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import h5py
import numpy as np

from kerasmlp.data.stores.hdf5 import hdf5_of
from kerasmlp.data.stores.hdf5_writing import write_hdf5
from kerasmlp.data.stores.label_columns import as_column
from kerasmlp.data.stores.raw_file import RawFile
from kerasmlp.data.stores.row_reader import RowReader
from kerasmlp.data.stores.store_file import StoreFile, reject_table, require_no_table
from kerasmlp.data.stores.store_info import RowsInfo
from kerasmlp.data.stores.streamed_rows import AnyRows, StreamedRows, blocks_of, some_rows
from kerasmlp.utils.checks import reject
from kerasmlp.utils.files import atomic_path, require_free

SCHEMA_VERSION = 1
Each = Callable[[int, np.ndarray], None]
Judge = Callable[[Mapping[str, np.ndarray]], None]


class RowStore(ABC):
    """Rows with labels; a kind of its own says what the rows are.

    On disk they are one contiguous, uncompressed dataset, read whole in one
    go; labels are columns under `labels/`.

    Raises:
        InputError: if a label is out of range.
    """

    FORMAT: ClassVar[str]  # that a file names
    KIND: ClassVar[str]  # what such a file is, in words
    COMMAND: ClassVar[str]  # that makes one of a table or of arrays
    # the dataset, what it holds in words, its dimensions and kinds, and its type in memory
    ROWS: ClassVar[tuple[str, str, int, str, type]]
    INFO: ClassVar[type[RowsInfo]] = RowsInfo

    def __init__(
        self,
        values: AnyRows,
        labels: Mapping[str, Sequence | np.ndarray] | None,
        info: RowsInfo | None,
        name: str | os.PathLike,
        came: np.dtype,
    ):
        self.values, self.info, self.name = values, info or self.INFO(), name
        self.labels = {k: as_column(name, k, v, len(values)) for k, v in (labels or {}).items()}
        self.storage_dtype = _stored_as(came, self.ROWS[-1])

    def _with_rows(self, values: AnyRows, labels: Mapping[str, np.ndarray], **parts: Any) -> Self:
        """The store with other rows, that were checked already."""
        store = copy.copy(self)
        vars(store).update(values=values, labels=labels, **parts)
        return store

    @classmethod
    def _streams(cls, dataset: h5py.Dataset, streamed: bool | None) -> bool:
        """Whether rows stay in the file."""
        return False

    @classmethod
    @abstractmethod
    def watched(cls, path: Any, dataset: h5py.Dataset, info: RowsInfo) -> tuple[Each, Judge]:
        """What sees each block of rows as it is read, and what judges rows and labels then."""

    def __len__(self) -> int:
        return len(self.values)

    def _words(self) -> str:
        """The names of the labels, for `repr`."""
        named = ", ".join(list(self.labels)[:8])
        others = f" and {len(self.labels) - 8} others" if len(self.labels) > 8 else ""
        return f"labels {named}{others}" if self.labels else "no labels"

    def digest(self) -> str:
        """SHA-256 of rows and labels: the same data, the same digest."""
        return digest_of(self.values, self.labels)

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        """Returns the rows that an index or boolean array selects, in its order.

        Raises:
            InputError: if it selects none, or one that is not there.
        """
        rows = _selected(indices, len(self))
        return self._with_rows(
            some_rows(self.values, rows), {k: v[rows] for k, v in self.labels.items()}
        )

    def with_labels(self, labels: Mapping[str, Sequence | np.ndarray]) -> Self:
        """Returns the same rows with other columns.

        Args:
            labels: As of the store.

        Raises:
            InputError: if a label is out of range.
        """
        columns = {k: as_column(self.name, k, v, len(self)) for k, v in labels.items()}
        return self._with_rows(self.values, columns)

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Writes the store as one HDF5 file, which appears whole or not at all.

        Raises:
            InputError: if the file exists and `overwrite` is False, or is called a table.
            OSError: if the disk is full; an old file is still there.
        """
        require_no_table(path)
        if not overwrite:
            require_free(path)
        says = {"format": self.FORMAT, "schema_version": SCHEMA_VERSION}
        says |= self.info.to_attributes()
        columns = {f"labels/{key}": column for key, column in self.labels.items()}
        with atomic_path(path, replace=overwrite) as temporary:
            write_hdf5(temporary, self.ROWS[0], self.values, self.storage_dtype, columns, says)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike,
        *,
        verify: bool = False,
        most_bytes: int | None = None,
        streamed: bool | None = None,
    ) -> Self:
        """Reads a store and checks schema, sizes, labels and rows.

        Args:
            path: Of the file.
            verify: True holds rows and labels against their checksums too, as
                all commands do; it costs a quarter to half of the reading time.
                Older files have none.
            most_bytes: That it may take in memory, or None: eight times the
                file's size and 512 MiB.
            streamed: Whether embeddings stay in the file once they are checked, and are read
                again as they are asked for (`StreamedRows`); None: those above 512 MiB in
                float32.

        Raises:
            InputError: naming the file, what was expected and what came.
        """
        name, what, ndim, kinds, dtype = cls.ROWS
        reject_table(path, cls.KIND, cls.COMMAND)
        with RawFile(path, "an HDF5 file") as raw, hdf5_of(raw) as opened:
            file = StoreFile(raw, opened, verify=verify, most_bytes=most_bytes)
            kind = f"{cls.KIND} (`{cls.COMMAND}` makes one)"
            attributes = file.attributes(cls.FORMAT, SCHEMA_VERSION, kind)
            info = cls.INFO.from_attributes(path, attributes)
            dataset, checksums = file.rows(name, what, ndim, kinds, np.dtype(dtype).itemsize)
            each, judge = cls.watched(path, dataset, info)
            labels = file.labels(len(dataset), checksums.seed)
            keep = not cls._streams(dataset, streamed)
            with RowReader(raw, dataset, dtype, checksums, each, keep=keep) as rows:
                values = rows.result()
            values = values if keep else StreamedRows([raw.part(dataset)])
            parts = {"info": info, "name": path, "storage_dtype": _stored_as(dataset.dtype, dtype)}
        judge(labels)
        return cls.__new__(cls)._with_rows(values, labels, **parts)


def _stored_as(came: np.dtype, dtype: type) -> np.dtype:
    """Half precision stays what it is in a file, although it is float32 in memory."""
    return np.dtype(np.float16 if came.newbyteorder("=") == np.float16 else dtype)


def digest_of(values: AnyRows, labels: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of contiguous rows and their labels."""
    digest = hashlib.sha256(repr(values.shape).encode())
    for _, block in blocks_of(values):
        digest.update(block)
    for key in sorted(labels):
        column = labels[key]
        digest.update(key.encode() + column.dtype.kind.encode())
        digest.update(
            repr(column.tolist()).encode()
            if column.dtype.kind == "U"
            else np.ascontiguousarray(column)
        )
    return digest.hexdigest()


def _selected(indices: Sequence[int] | np.ndarray, rows: int) -> np.ndarray:
    indices = np.asarray(indices)
    if indices.dtype == bool and indices.shape == (rows,):
        indices = np.flatnonzero(indices)
    if indices.size == 0:
        reject("indices", "must select at least one row", indices.tolist())
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        requirement = f"must be whole numbers, or {rows} times True or False"
        reject("indices", requirement, f"shape {indices.shape}, dtype {indices.dtype}")
    if indices.min() < -rows or indices.max() >= rows:
        reject("indices", f"must be rows of a store of {rows}", int(indices.max()))
    return indices

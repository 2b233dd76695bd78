"""Rows with their labels, in memory and in one HDF5 file: what the stores of all kinds share."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import h5py
import numpy as np

from kerasmlp.data.stores.hdf5_writing import write_hdf5
from kerasmlp.data.stores.label_columns import as_column
from kerasmlp.data.stores.row_reader import RowReader
from kerasmlp.data.stores.store_file import open_store
from kerasmlp.data.stores.store_info import RowsInfo
from kerasmlp.utils.checks import reject
from kerasmlp.utils.files import atomic_path, require_free

SCHEMA_VERSION = 1
Each = Callable[[int, np.ndarray], None]


class RowStore:
    """Rows with labels; a kind of its own says what the rows are.

    On disk they are one contiguous, uncompressed dataset, read whole in one
    go; labels are columns under `labels/`.

    Args:
        values: The rows, checked and contiguous.
        labels: Column name to array `(rows,)` of integers, floats or text.
        info: Where the rows come from.
        name: The file or argument, for the errors.
        storage_dtype: Of the rows in a file.

    Raises:
        InputError: if a label is out of range.
    """

    FORMAT: ClassVar[str]
    """That a file names."""
    KIND: ClassVar[str]
    """What such a file is, in words."""
    ROWS: ClassVar[tuple[str, str, int, str, type]]
    """The dataset, what it holds in words, its dimensions and kinds, and its type in memory."""
    INFO: ClassVar[type[RowsInfo]] = RowsInfo

    def __init__(
        self,
        values: np.ndarray,
        labels: Mapping[str, Sequence | np.ndarray] | None,
        info: RowsInfo | None,
        name: str | os.PathLike,
        storage_dtype: np.dtype,
    ):
        labels = {k: as_column(name, k, v, len(values)) for k, v in (labels or {}).items()}
        self.check_labels(name, labels)
        self.values, self.labels, self.storage_dtype = values, labels, storage_dtype
        self.info, self.name = info or self.INFO(), name

    def with_rows(self, values: np.ndarray, labels: Mapping[str, np.ndarray], **parts: Any) -> Self:
        """The store with other rows, that were checked already."""
        store = copy.copy(self)
        vars(store).update(values=values, labels=labels, **parts)
        return store

    @staticmethod
    def check_labels(name: Any, labels: Mapping[str, np.ndarray]) -> None:
        """Rejects labels that this kind of store gives another meaning."""

    @classmethod
    def watched(cls, path: Any, dataset: h5py.Dataset, info: RowsInfo) -> tuple[Each, Callable]:
        """What sees each block of rows as it is read, and what judges them all in the end."""
        return lambda start, block: None, lambda: None

    def __len__(self) -> int:
        return len(self.values)

    def words(self) -> str:
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
        return self.with_rows(self.values[rows], {k: v[rows] for k, v in self.labels.items()})

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Writes the store as one HDF5 file, which appears whole or not at all.

        Raises:
            InputError: if the file exists and `overwrite` is False.
            OSError: if the disk is full; an old file is still there.
        """
        if not overwrite:
            require_free(path)
        says = {"format": self.FORMAT, "schema_version": SCHEMA_VERSION}
        says |= self.info.to_attributes()
        columns = {f"labels/{key}": column for key, column in self.labels.items()}
        with atomic_path(path, replace=overwrite) as temporary:
            write_hdf5(temporary, self.ROWS[0], self.values, self.storage_dtype, columns, says)

    @classmethod
    def open(
        cls, path: str | os.PathLike, *, verify: bool = False, most_bytes: int | None = None
    ) -> Self:
        """Reads a whole store and checks schema, sizes, labels and rows.

        Args:
            path: Of the file.
            verify: True holds rows and labels against their checksums too, as
                all commands do; it costs a quarter to half of the reading time.
                Older files have none.
            most_bytes: That it may take in memory, or None: eight times the
                file's size and 512 MiB.

        Raises:
            InputError: naming the file, what was expected and what came.
        """
        name, what, ndim, kinds, dtype = cls.ROWS
        with open_store(
            path, cls.FORMAT, SCHEMA_VERSION, cls.KIND, verify=verify, most_bytes=most_bytes
        ) as file:
            info = cls.INFO.from_attributes(path, file.attributes)
            dataset, checksums = file.rows(name, what, ndim, kinds, np.dtype(dtype).itemsize)
            each, judge = cls.watched(path, dataset, info)
            labels = file.labels(len(dataset), checksums.seed)
            cls.check_labels(path, labels)
            with RowReader(file.raw, dataset, dtype, checksums, each) as rows:
                values = rows.result()
            storage_dtype = cls.stored_as(dataset.dtype)
        judge()
        return cls.__new__(cls).with_rows(
            values, labels, info=info, name=path, storage_dtype=storage_dtype
        )

    @staticmethod
    def stored_as(dtype: np.dtype) -> np.dtype:
        """Of which type rows of a type are in a file."""
        return dtype


def digest_of(values: np.ndarray, labels: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of contiguous rows and their labels."""
    digest = hashlib.sha256(repr(values.shape).encode())
    digest.update(values)
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

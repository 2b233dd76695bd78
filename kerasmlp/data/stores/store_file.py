"""What the files of all stores share: format and version, labels, one dataset of rows."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kerasmlp.data.stores.allowance import Allowance
from kerasmlp.data.stores.checksums import Checksums
from kerasmlp.data.stores.hdf5 import (
    hdf5_of,
    memory_bytes,
    read_attributes,
    read_texts,
    require_written,
)
from kerasmlp.data.stores.hdf5_links import own_part
from kerasmlp.data.stores.label_columns import as_column
from kerasmlp.data.stores.raw_file import RawFile
from kerasmlp.utils.checks import reject_file

_TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".npz", ".npy", ".parquet")


class StoreFile:
    """A store's file, open for reading; `open_store` makes it.

    Args:
        raw: The file.
        file: As HDF5 sees it.
        attributes: Of it.
        verify: Whether what is read is held against its checksums.
        most_bytes: That it may take in memory, or None.
    """

    def __init__(
        self,
        raw: RawFile,
        file: h5py.File,
        attributes: dict[str, Any],
        *,
        verify: bool,
        most_bytes: int | None,
    ):
        self.raw, self.path, self.attributes = raw, raw.path, attributes
        self._file, self._verify = file, verify
        self._allowance = Allowance(raw.path, raw.size, most_bytes)

    def rows(
        self, name: str, what: str, ndim: int, kinds: str, itemsize: int
    ) -> tuple[h5py.Dataset, Checksums]:
        """The dataset of rows, whole, of a size that the file can have, and its checksums.

        Args:
            name: Of the dataset.
            what: It holds, for the error.
            ndim: Its dimensions.
            kinds: Of NumPy's, that it may be of.
            itemsize: Bytes of each number in memory.
        """
        dataset = own_part(self.path, self._file, name)
        if (
            not isinstance(dataset, h5py.Dataset)
            or dataset.ndim != ndim
            or 0 in dataset.shape
            or dataset.dtype.kind not in kinds
        ):
            came = f"shape {getattr(dataset, 'shape', None)}, "
            came += f"dtype {getattr(dataset, 'dtype', None)}"
            reject_file(self.path, f"must hold {what} as `{name}`", came)
        dtype = dataset.dtype  # h5py makes it anew each time
        require_written(self.path, dataset, dtype, name, self.raw)
        self._allowance.take(memory_bytes(dataset, dtype, itemsize), name)
        return dataset, Checksums(self.path, dataset, name, verify=self._verify)

    def labels(self, rows: int, seed: int | None) -> dict[str, np.ndarray]:
        """The label columns.

        Args:
            rows: How many there are.
            seed: Of the checksums; None compares none.
        """
        columns, group = {}, own_part(self.path, self._file, "labels")
        for key in () if group is None else group.keys():
            column = own_part(self.path, group, key)
            if getattr(column, "shape", None) != (rows,):
                came = f"shape {getattr(column, 'shape', None)}"
                reject_file(self.path, f"must hold {rows} values of label {key!r}", came)
            dtype = column.dtype
            require_written(self.path, column, dtype, key, self.raw)
            # text takes four times in memory what it takes in the file, and once as it is read
            self._allowance.take(memory_bytes(column, dtype, 5 * dtype.itemsize), key)
            columns[key] = column, dtype
        return {key: self._label(key, *column, seed) for key, column in columns.items()}

    def _label(
        self, key: str, column: h5py.Dataset, dtype: np.dtype, seed: int | None
    ) -> np.ndarray:
        if dtype.hasobject:
            return as_column(self.path, key, read_texts(column, key, self._allowance), len(column))
        offset = column.id.get_offset()
        if offset is not None and dtype.kind in "iufS":  # past h5py, which takes twice as long
            values = np.empty(len(column), dtype)
            self.raw.read_into(values.view(np.uint8), offset)
        else:
            values = column[()]
        if seed is not None:
            checksums = Checksums(self.path, column, f"labels/{key}", verify=True, seed=seed)
            checksums.compare(values)
            checksums.require()
        return as_column(self.path, key, values, len(column))


def reject_table(path: str | os.PathLike, wanted: str) -> None:
    """Rejects a table or an array of another program, and says how it becomes a store.

    Args:
        path: Of a file, whatever it is.
        wanted: What it must be, in words.

    Example:

    >>> reject_table("faces.h5", "a store")  # whether it is there is for others to say
    """
    path = Path(path)
    if path.name.lower().endswith(_TABLES) and path.is_file():
        store = path.with_name(path.name.split(".")[0] + ".h5")
        words = shlex.join(["import-embeddings", str(path), "-o", str(store)])
        reject_file(path, f"must be {wanted}", f"a table or array, of which `{words}` makes one")


@contextlib.contextmanager
def open_store(
    path: str | os.PathLike,
    format_name: str,
    version: int,
    kind: str,
    *,
    verify: bool,
    most_bytes: int | None = None,
) -> Iterator[StoreFile]:
    """Opens a store's file, once, and reads its attributes.

    Args:
        path: Of the file.
        format_name: That the file must name.
        version: Of its schema.
        kind: What it must be, in words, for the error.
        verify: Whether what is read is held against its checksums.
        most_bytes: That it may take in memory, or None.

    Raises:
        InputError: naming the file, what was expected and what came.
    """
    with RawFile(path, "an HDF5 file") as raw, hdf5_of(raw) as file:
        attributes = read_attributes(file)
        if attributes.get("format") != format_name:
            reject_file(path, f"must be {kind}", "an HDF5 file of another kind")
        came = attributes.get("schema_version")
        if came != version:
            reject_file(path, f"must have schema version {version}", f"{came}")
        if len(file.attrs) != len(attributes):
            name = min({*file.attrs} - {*attributes})
            reject_file(path, "must hold single values as attributes", f"a list in {name!r}")
        yield StoreFile(raw, file, attributes, verify=verify, most_bytes=most_bytes)

"""What the files of all stores share: format and version, labels, one dataset of rows."""

import os
import shlex
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kerasmlp.data.stores.allowance import Allowance
from kerasmlp.data.stores.checksums import Checksums
from kerasmlp.data.stores.hdf5 import (
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
    """A store's file, open for reading."""

    def __init__(self, raw: RawFile, file: h5py.File, *, verify: bool, most_bytes: int | None):
        self.path, self._raw, self._file, self._verify = raw.path, raw, file, verify
        self._allowance = Allowance(raw.path, raw.size, most_bytes)

    def attributes(self, format_name: str, version: int, kind: str) -> dict[str, Any]:
        """What the file says of itself: its format and version must be these."""
        attributes = read_attributes(self._file)
        if attributes.get("format") != format_name:
            reject_file(self.path, f"must be {kind}", "an HDF5 file of another kind")
        came = attributes.get("schema_version")
        if came != version:
            reject_file(self.path, f"must have schema version {version}", f"{came}")
        if len(self._file.attrs) != len(attributes):
            name = min({*self._file.attrs} - {*attributes})
            reject_file(self.path, "must hold single values as attributes", f"a list in {name!r}")
        return attributes

    def rows(
        self, name: str, what: str, ndim: int, kinds: str, itemsize: int
    ) -> tuple[h5py.Dataset, Checksums]:
        """The dataset of rows, whole, of a size that the file can have, and its checksums."""
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
        require_written(self.path, dataset, dtype, name, self._raw)
        self._allowance.take(memory_bytes(dataset, dtype, itemsize), name)
        return dataset, Checksums(self.path, dataset, name, verify=self._verify)

    def labels(self, rows: int, seed: int | None) -> dict[str, np.ndarray]:
        """The label columns."""
        columns, group = {}, own_part(self.path, self._file, "labels")
        for key in () if group is None else group.keys():
            column = own_part(self.path, group, key)
            if getattr(column, "shape", None) != (rows,):
                came = f"shape {getattr(column, 'shape', None)}"
                reject_file(self.path, f"must hold {rows} values of label {key!r}", came)
            dtype = column.dtype
            require_written(self.path, column, dtype, key, self._raw)
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
            self._raw.read_into(values.view(np.uint8), offset)
        else:
            values = column[()]
        if seed is not None:
            checksums = Checksums(self.path, column, f"labels/{key}", verify=True, seed=seed)
            checksums.compare(values)
            checksums.require()
        return as_column(self.path, key, values, len(column))


def require_no_table(path: str | os.PathLike) -> None:
    """Rejects a name under which no store in HDF5 would be found again.

    Example:

    >>> require_no_table("faces.h5")
    """
    name = Path(path).name.lower()
    if suffix := next((suffix for suffix in _TABLES if name.endswith(suffix)), None):
        reject_file(path, "must end in .h5 or .hdf5, as an HDF5 file", f"suffix {suffix!r}")


def reject_table(path: str | os.PathLike, wanted: str, command: str = "import-embeddings") -> None:
    """Rejects a table or an array of another program, and says how it becomes a store.

    Example:

    >>> reject_table("faces.h5", "a store")  # whether it is there is for others to say
    """
    path = Path(path)
    if path.name.lower().endswith(_TABLES) and path.is_file():
        store = path.with_name(path.name.split(".")[0] + ".h5")
        words = shlex.join([command, str(path), "-o", str(store)])
        reject_file(path, f"must be {wanted}", f"a table or array, of which `{words}` makes one")

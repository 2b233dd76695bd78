"""Values of HDF5 data sets, by the names that enums declare and no larger than the file allows."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kerasmlp.data.sources.large_arrays import part_of_dataset
from kerasmlp.data.sources.source import DROPPED, bytes_in_memory, require_size, text_array
from kerasmlp.data.stores.streamed_rows import StreamedRows
from kerasmlp.utils.checks import reject_file

_CHANGES = ("scale_factor", "add_offset", "_FillValue", "missing_value")
"""Attributes by which netCDF and others mean other values than they store."""


class ValueReader:
    """Collects the columns of one file.

    Example:

    >>> with h5py.File("a.h5", "w", driver="core", backing_store=False) as file:
    ...     kinds = h5py.enum_dtype({"cat": 1, "dog": 2}, "i1")
    ...     dataset = file.create_dataset("species", data=[2, 1], dtype=kinds)
    ...     reader = ValueReader("a.h5", 1000)
    ...     reader.read("species", dataset)
    >>> reader.columns["species"]
    array(['dog', 'cat'], dtype='<U3')
    """

    def __init__(self, path: Path, file_size: int, drop: Collection[str] = ()):
        self.path = path
        self.file_size = file_size
        self.drop = drop
        self.columns: dict[str, np.ndarray] = {}
        self.single: dict[str, Any] = {}
        self.left_out: dict[str, str] = {}
        self.doubts: list[str] = []
        self._bytes = 0

    def read(self, name: str, dataset: h5py.Dataset) -> None:
        """Takes a data set as a column, a table as its fields, a single value as an attribute."""
        dtype, shape = dataset.dtype, dataset.shape
        if shape is None or dtype.kind not in "iufbSOV":
            self.left_out[name] = f"values of type {dtype}" if shape else "no values"
        elif dtype.names is not None:
            self._read_fields(name, dataset)
        elif dtype.kind == "O" and not (h5py.check_string_dtype(dtype) or _numbers(dtype)):
            self.left_out[name] = "references or lists of text"
        elif sum(axis != 1 for axis in shape[1:]) > 1:
            self.left_out[name] = f"an array of shape {shape}"
        elif shape == ():
            value = self.values(dataset)
            self.single[name] = value if isinstance(value, bytes) else np.asarray(value).item()
        else:
            self.columns[name] = self.values(dataset)
            if changed := [key for key in _CHANGES if key in dataset.attrs]:
                self.doubts.append(
                    f"took {name!r} as it is stored, without its attribute {', '.join(changed)}"
                )

    def drops(self, name: str) -> bool:
        """Whether a name is one to leave alone; it is noted if so."""
        if name in self.drop:
            self.left_out[name] = DROPPED
        return name in self.drop

    def values(self, dataset: h5py.Dataset) -> Any:
        """All values of a data set; codes of an enum as their names."""
        self.require(dataset)
        if (part := part_of_dataset(self.path, dataset)) is not None:
            return StreamedRows([part])
        values = dataset[()]
        if _is_bits(dataset):
            return values.astype(bool)
        return self._named(dataset.name, values, dataset.dtype)

    def _named(self, name: str, values: Any, dtype: np.dtype) -> Any:
        enum = h5py.check_enum_dtype(dtype)
        if enum is None:
            return values
        names = {value: name for name, value in enum.items()}
        found, codes = np.unique(values, return_inverse=True)
        unnamed = [v for v in found.tolist() if v not in names]
        if unnamed and "." not in name:  # of a table, whose gaps are such codes
            requirement = f"must hold codes that have a name in {name!r}"
            reject_file(self.path, requirement, repr(unnamed[0]))
        texts = [names.get(v, "") for v in found.tolist()]
        return text_array(texts, codes.reshape(values.shape)) if texts else np.array([], str)

    def require(self, dataset: h5py.Dataset) -> None:
        """Holds what a data set, or one of its chunks, says it takes against the file's size."""
        count = max(math.prod(dataset.shape), math.prod(dataset.chunks or (0,)))
        self._bytes += bytes_in_memory(dataset.dtype, count)
        require_size(self.path, self.file_size, self._bytes, f"values up to {dataset.name!r}")

    def _read_fields(self, name: str, dataset: h5py.Dataset) -> None:
        if dataset.ndim != 1:
            self.left_out[name] = f"a table of shape {dataset.shape}"
            return
        self.require(dataset)
        for field in dataset.dtype.names:
            whole = f"{name}.{field}"
            kind = dataset.dtype[field]
            if self.drops(field) or self.drops(whole):
                continue
            if field in self.columns:
                self.left_out[whole] = "a second column of this name"
            elif kind.names is not None or kind.base.kind not in "iufbSO":
                self.left_out[whole] = f"values of type {kind}"
            elif kind.kind == "O" and not h5py.check_string_dtype(kind):
                self.left_out[whole] = "references or lists"
            else:
                self.columns[field] = self._named(whole, dataset.fields(field)[()], kind)


def _numbers(dtype: np.dtype) -> bool:
    base = h5py.check_vlen_dtype(dtype)
    return base is not None and base.kind in "iuf"


def _is_bits(dataset: h5py.Dataset) -> bool:
    """Whether PyTables wrote bools, which h5py reads as numbers."""
    return dataset.id.get_type().get_class() == h5py.h5t.BITFIELD

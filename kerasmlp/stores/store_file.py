"""What the files of all stores share: format and version, labels, one dataset of rows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kerasmlp.checks import reject_file
from kerasmlp.files import atomic_path
from kerasmlp.stores.hdf5 import open_hdf5, read_attributes, write_hdf5
from kerasmlp.stores.label_columns import as_column
from kerasmlp.stores.store_info import RowsInfo


@contextlib.contextmanager
def open_store(
    path: Path, format_name: str, version: int, kind: str
) -> Iterator[tuple[h5py.File, dict[str, Any]]]:
    """Opens a store's file and reads its attributes.

    Args:
        path: Of the file.
        format_name: That the file must name.
        version: Of its schema.
        kind: What it must be, in words, for the error.

    Raises:
        InputError: naming the file, what was expected and what came.
    """
    with open_hdf5(path) as file:
        attributes = read_attributes(file)
        if attributes.get("format") != format_name:
            reject_file(path, f"must be {kind}", "an HDF5 file of another kind")
        came = attributes.get("schema_version")
        if came != version:
            reject_file(path, f"must have schema version {version}", f"{came}")
        yield file, attributes


def require_rows(path: Path, dataset: Any, name: str, what: str, ndim: int, kinds: str) -> None:
    """Rejects a dataset that is none, has no rows, or whose file ends before them."""
    if (
        not isinstance(dataset, h5py.Dataset)
        or dataset.ndim != ndim
        or 0 in dataset.shape
        or dataset.dtype.kind not in kinds
    ):
        came = f"shape {getattr(dataset, 'shape', None)}, dtype {getattr(dataset, 'dtype', None)}"
        reject_file(path, f"must hold {what} as `{name}`", came)
    offset = dataset.id.get_offset()
    end = (offset or 0) + dataset.nbytes
    size = path.stat().st_size
    if offset is not None and end > size:
        reject_file(path, f"must be complete, {end:,} bytes or more", f"{size:,} bytes")


def read_labels(path: Path, file: h5py.File, rows: int) -> dict[str, np.ndarray]:
    """The label columns of a store's file."""
    labels = {}
    for key, column in file["labels"].items() if "labels" in file else ():
        if getattr(column, "shape", None) != (rows,):
            came = f"shape {getattr(column, 'shape', None)}"
            reject_file(path, f"must hold {rows} values of label {key!r}", came)
        labels[key] = as_column(path, key, column[()], rows)
    return labels


def save_store(
    path: str | os.PathLike,
    name: str,
    rows: np.ndarray,
    dtype: np.dtype,
    labels: Mapping[str, np.ndarray],
    info: RowsInfo,
    *,
    format_name: str,
    version: int,
    overwrite: bool,
) -> None:
    """Writes rows, as dataset `name`, with labels and info; the file appears whole or not at all.

    Raises:
        InputError: if the file exists and `overwrite` is False.
        OSError: if the disk is full; an old file is still there.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        reject_file(path, "must not exist yet", "an existing file")
    attributes = {"format": format_name, "schema_version": version, **info.to_attributes()}
    columns = {f"labels/{key}": column for key, column in labels.items()}
    with atomic_path(path) as temporary:
        write_hdf5(temporary, name, rows, dtype, columns, attributes)

"""Arrays as other programs write them, read by the kind of file, never by pickle."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from kerasmlp.data.sources.csv_table import read_csv
from kerasmlp.data.sources.hdf5_arrays import read_hdf5
from kerasmlp.data.sources.numpy_arrays import read_numpy
from kerasmlp.data.sources.parquet_table import read_parquet
from kerasmlp.data.sources.source import SourceArrays
from kerasmlp.utils.checks import reject_file

_READERS = {
    ".npz": read_numpy,
    ".npy": read_numpy,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".csv.gz": read_csv,
    ".tsv.gz": read_csv,
    ".parquet": read_parquet,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".h5ad": read_hdf5,
}


def read_source(path: str | os.PathLike, drop: Collection[str] = ()) -> SourceArrays:
    """Reads all arrays of a file, by its suffix.

    Args:
        path: Ends in one of `.npz`, `.npy`, `.csv`, `.tsv` (also with `.gz`),
            `.parquet`, `.h5`, `.hdf5` or `.h5ad`. Tables need pyarrow.
        drop: Names of what is not even converted.

    Raises:
        InputError: naming the file, what was expected and what came.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    suffix = "".join(path.suffixes[-2:]).lower() if suffix == ".gz" else suffix
    reader = _READERS.get(suffix)
    if reader is None:
        reject_file(path, f"must end in one of {', '.join(_READERS)}", f"suffix {path.suffix!r}")
    return reader(path, drop)

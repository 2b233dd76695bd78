"""Arrays as other programs write them, read by the kind of file, never by pickle."""

import os
from collections.abc import Collection
from pathlib import Path

from kerasmlp.data.sources.hdf5_arrays import read_hdf5, read_store
from kerasmlp.data.sources.numpy_arrays import read_numpy
from kerasmlp.data.sources.source import SourceArrays
from kerasmlp.data.stores.parquet_rows import is_parquet_store
from kerasmlp.data.stores.store_folder import MANIFEST, is_store_folder
from kerasmlp.utils.checks import reject_file


def _read_table(path: Path, drop: Collection[str]) -> SourceArrays:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        need = "needs pyarrow to be read (`pip install kerasmlp[tables]`)"
        reject_file(path, need, "no such package")
    from kerasmlp.data.sources.csv_table import read_csv
    from kerasmlp.data.sources.parquet_table import read_parquet

    read = read_parquet if path.suffix.lower() == ".parquet" else read_csv
    return read(path, drop)


_READERS = {
    **dict.fromkeys((".npz", ".npy"), read_numpy),
    **dict.fromkeys((".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet"), _read_table),
    **dict.fromkeys((".h5", ".hdf5", ".h5ad"), read_hdf5),
}


def read_source(path: str | os.PathLike, drop: Collection[str] = ()) -> SourceArrays:
    """Reads all arrays of a file, by its suffix.

    Args:
        path: Ends in one of `.npz`, `.npy`, `.csv`, `.tsv` (also with `.gz`),
            `.parquet`, `.h5`, `.hdf5` or `.h5ad`, or is a store. Tables need pyarrow.
        drop: Names of what is not even converted.

    Raises:
        InputError: naming the file, what was expected and what came.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    suffix = "".join(path.suffixes[-2:]).lower() if suffix == ".gz" else suffix
    if is_store_folder(path) or is_parquet_store(path):
        return read_store(path, drop)
    reader = _READERS.get(suffix)
    if path.is_dir():
        came = f"a folder without {MANIFEST}"
        reject_file(path, "must be a file, or a store: a folder of shards", came)
    if reader is None:
        reject_file(path, f"must end in one of {', '.join(_READERS)}", f"suffix {path.suffix!r}")
    return reader(path, drop)

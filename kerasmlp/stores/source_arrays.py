"""Arrays as other programs write them (.npz, .npy, tables, plain HDF5), read without pickle."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np

from kerasmlp.checks import reject_file
from kerasmlp.files import what_is
from kerasmlp.stores.embedding_store import FORMAT, EmbeddingStore
from kerasmlp.stores.hdf5 import open_hdf5, read_attributes


@dataclass(frozen=True)
class SourceArrays:
    """What a file holds.

    Attributes:
        columns: Name to array; the first axis is rows.
        attributes: Name to value, as HDF5 attributes and scalars of an .npz.
    """

    columns: dict[str, np.ndarray]
    attributes: dict[str, Any] = field(default_factory=dict)


def read_source(path: str | os.PathLike) -> SourceArrays:
    """Reads all arrays of a file, by its suffix.

    Args:
        path: `.npz`, `.npy`, `.csv`, `.tsv`, `.parquet`, `.h5` or `.hdf5`.
            Tables need pyarrow.

    Raises:
        InputError: naming the file, what was expected and what came.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        reject_file(path, f"must end in one of {', '.join(_READERS)}", f"suffix {path.suffix!r}")
    if not path.is_file():
        reject_file(path, "must be a file", what_is(path))
    if path.stat().st_size == 0:
        reject_file(path, "must hold embeddings", "an empty file")
    return reader(path)


def _read_numpy(path: Path) -> SourceArrays:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return SourceArrays({"embedding": loaded})
        with loaded:
            arrays = {k: loaded[k] for k in loaded.files}
    except _NUMPY_DAMAGE as error:
        text = " ".join(str(error).split())[:200]
        if "allow_pickle" in text or "pickled" in text:
            reject_file(path, "must hold plain arrays", "pickled or foreign objects, never loaded")
        kind = path.suffix.lower()
        reject_file(path, f"must be a complete {kind} file", f"a damaged or foreign one ({text})")
    foreign = [k for k, v in arrays.items() if not isinstance(v, np.ndarray)]
    if foreign:
        reject_file(path, "must hold arrays only", f"other content in {foreign[0]!r}")
    scalars = {k: v.item() for k, v in arrays.items() if v.ndim == 0}
    return SourceArrays({k: v for k, v in arrays.items() if v.ndim}, scalars)


_NUMPY_DAMAGE = (
    OSError, ValueError, EOFError, KeyError, TypeError, MemoryError, OverflowError, SyntaxError,
    RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def _read_hdf5(path: Path) -> SourceArrays:
    columns: dict[str, np.ndarray] = {}
    with open_hdf5(path) as file:
        attributes = read_attributes(file)
    if attributes.get("format") == FORMAT:
        return _from_store(EmbeddingStore.open(path))
    with open_hdf5(path) as file:

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.ndim and item.dtype.kind in "iufbSO":
                if item.dtype.kind == "O" and h5py.check_string_dtype(item.dtype) is None:
                    return
                key = name.rsplit("/", 1)[-1]
                if key in columns:
                    reject_file(path, "must hold each column once", f"{key!r} in two groups")
                columns[key] = item[()]

        file.visititems(visit)
    return SourceArrays(columns, attributes)


def _from_store(store: EmbeddingStore) -> SourceArrays:
    known = {k: v for k, v in asdict(store.info).items() if v is not None}
    columns = {**store.labels, "embedding": store.embeddings.astype(store.storage_dtype)}
    return SourceArrays(columns, {**known, "gender_codes": "0 male, 1 female"})


def _read_csv(path: Path) -> SourceArrays:
    def read() -> Any:
        from pyarrow import csv

        with open(path, encoding="utf-8-sig", errors="replace") as file:
            header = file.readline()
        separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
        # a newline in quotes is legal, and the default block ends at 1 MB: 512 columns need more
        blocks = csv.ReadOptions(block_size=1 << 24)
        quoting = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
        return csv.read_csv(path, read_options=blocks, parse_options=quoting)

    return _read_table(path, read)


def _read_parquet(path: Path) -> SourceArrays:
    def read() -> Any:
        from pyarrow import parquet

        return parquet.ParquetFile(path).read()

    return _read_table(path, read)


def _read_table(path: Path, read: Callable[[], Any]) -> SourceArrays:
    try:
        import pyarrow
    except ImportError:
        reject_file(
            path, "needs pyarrow to be read (`pip install kerasmlp[tables]`)", "no such package"
        )
    try:
        table = read()
        names = table.column_names
        columns = {n: _from_arrow(path, n, table.column(n)) for n in dict.fromkeys(names)}
    except KeyError:
        repeated = next(n for n in names if names.count(n) > 1)
        reject_file(path, "must hold each column once", f"{repeated!r} twice or more")
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        text = ascii(" ".join(str(error).split())[:200])
        reject_file(path, "must be a complete table", f"a damaged or foreign one ({text})")
    return SourceArrays(columns)


def _from_arrow(path: Path, name: str, column: Any) -> np.ndarray:
    import pyarrow as pa

    chunks = [chunk for chunk in column.chunks if len(chunk)] or [pa.array([], column.type)]
    parts = [_from_chunk(path, name, chunk) for chunk in chunks]
    if len({part.shape[1:] for part in parts}) > 1:
        _reject_lists(path, name)
    return np.concatenate(parts)


def _reject_lists(path: Path, name: str) -> NoReturn:
    reject_file(path, f"must hold lists of one length in column {name!r}", "several lengths")


def _from_chunk(path: Path, name: str, column: Any) -> np.ndarray:
    import pyarrow as pa

    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        widths = set(column.value_lengths().to_pylist())
        if len(widths) > 1 or None in widths:
            _reject_lists(path, name)
        values = _from_chunk(path, name, column.flatten())
        return values.reshape(len(column), *(widths or {0}))
    numeric = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    if numeric and column.null_count == 0:
        return column.to_numpy(zero_copy_only=False)
    if numeric:
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    if types.is_null(kind):
        return np.full(len(column), np.nan)
    return np.array(["" if v is None else str(v) for v in column.cast(pa.string()).to_pylist()])


_READERS = {
    ".npz": _read_numpy,
    ".npy": _read_numpy,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
}

"""Where stores are, and in which of three forms: one HDF5 file, a folder of shards, Parquet."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.parquet_rows import SUFFIX, is_parquet_store, write_parquet
from kerasmlp.data.stores.store_folder import is_store_folder, shard_name, shards_of, write_manifest
from kerasmlp.utils.checks import check_int, reject, reject_file
from kerasmlp.utils.files import (
    atomic_path,
    new_folder,
    replaced_folder,
    require_free,
    what_is,
)

ROWS_PER_SHARD = 1_000_000

_HDF5 = (".h5", ".hdf5")


def is_store(path: str | os.PathLike) -> bool:
    """Whether a path is called, or is, a store; photos and tables are none.

    Example:

    >>> is_store("faces.h5"), is_store("faces.jpg")
    (True, False)
    """
    return Path(path).suffix.lower() in _HDF5 or is_store_folder(path) or is_parquet_store(path)


def check_store_path(
    path: str | os.PathLike, *, force: bool, rows_per_shard: int | None = None
) -> None:
    """Rejects a path at which no store can be written.

    Args:
        path: Ends in `.h5`, `.hdf5`, `.parquet`, or in none: a folder of shards.
        force: Whether a store that is there may be replaced.
        rows_per_shard: For a folder alone.
    """
    path = Path(path)
    requirement = "must end in .h5, .hdf5, .parquet or, as a folder of shards, in none"
    if path.suffix.lower() not in (*_HDF5, SUFFIX, ""):
        reject_file(path, requirement, f"suffix {path.suffix!r}")
    if not path.suffix and os.path.lexists(path) and not path.is_dir():
        reject_file(path, requirement, f"{what_is(path)} without a suffix")
    if rows_per_shard is not None:
        check_int("rows_per_shard", rows_per_shard, minimum=1)
        if path.suffix:
            reject("rows_per_shard", f"must be left out for one file, {path}", rows_per_shard)
    if not os.path.lexists(path):
        return
    if not force and not (path.is_dir() and not path.suffix and not any(path.iterdir())):
        reject_file(path, "must not exist yet (--force replaces it)", what_is(path))
    if path.is_dir() and any(path.iterdir()):
        names = {shard.name for shard in shards_of(path)[0]} | {"manifest.json"}
        if others := sorted({inner.name for inner in path.iterdir()} - names):
            reject_file(path, "must hold nothing but a store to be replaced", f"{others[0]!r} too")


def save_store(
    store: EmbeddingStore,
    path: str | os.PathLike,
    *,
    rows_per_shard: int | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a store in the form that the path tells; it appears whole or not at all.

    Rows are read, and written, in ranges.

    Args:
        store: Of any form.
        path: Ends in `.h5` or `.hdf5`, in `.parquet`, or in none: a folder of shards.
        rows_per_shard: Of a folder; None: a million.
        overwrite: Whether a store that is there is replaced.

    Raises:
        InputError: if something is there that is not to be replaced.
        OSError: if the disk is full; an old store is still there.

    Example:

    >>> import tempfile
    >>> store = EmbeddingStore(np.eye(5), {"gender": [0, 1, 1, 0, -1]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_store(store, f"{folder}/shards", rows_per_shard=2)
    ...     sorted(os.listdir(f"{folder}/shards"))
    ...     EmbeddingStore.open(f"{folder}/shards").digest() == store.digest()
    ['000000.h5', '000001.h5', '000002.h5', 'manifest.json']
    True
    """
    check_store_path(path, force=overwrite, rows_per_shard=rows_per_shard)
    path = Path(path)
    if path.suffix.lower() in _HDF5:
        store.save(path, overwrite=overwrite)
    elif path.suffix:
        if not overwrite:
            require_free(path)
        with atomic_path(path, replace=overwrite) as temporary:
            of_store = store.values, store.storage_dtype, store.labels
            write_parquet(temporary, *of_store, store.info.to_attributes())
    else:
        path = Path(os.path.realpath(path))
        replaces = path.is_dir() and any(path.iterdir())
        with replaced_folder(path) if replaces else new_folder(path) as folder:
            _write_shards(store, folder, rows_per_shard or ROWS_PER_SHARD)


def _write_shards(store: EmbeddingStore, folder: Path, size: int) -> None:
    rows = {}
    for number, start in enumerate(range(0, len(store), size)):
        some = np.arange(start, min(start + size, len(store)))
        store.subset(some).save(folder / shard_name(number))
        rows[shard_name(number)] = len(some)
    write_manifest(folder, rows, store.info)

"""Plain HDF5: data sets by their names, compound tables by their fields, links inside the file."""

from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py

from kerasmlp.data.sources.anndata import is_anndata, read_anndata
from kerasmlp.data.sources.hdf5_values import ValueReader
from kerasmlp.data.sources.pandas_frames import frames_of, read_frame
from kerasmlp.data.sources.source import CODES, DROPPED, SourceArrays
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.hdf5 import open_hdf5, read_attributes
from kerasmlp.data.stores.hdf5_links import refuse_outside
from kerasmlp.data.stores.streamed_rows import StreamedRows
from kerasmlp.utils.checks import reject_file


def read_hdf5(path: Path, drop: Collection[str] = ()) -> SourceArrays:
    """Reads a store, an AnnData file, a pandas HDFStore or any other HDF5 file."""
    with open_hdf5(path) as file:
        attributes = read_attributes(file)
        if attributes.get("format") != EmbeddingStore.FORMAT:
            refuse_outside(path, file)
            reader = ValueReader(path, file.id.get_filesize(), drop)
            unread = [k for k in file.attrs if k.endswith(CODES) and k not in attributes]
            reader.left_out |= dict.fromkeys(unread, "an attribute that is a list")
            if is_anndata(file, attributes):
                return replace(read_anndata(file, reader), attributes=attributes)
            if frames := frames_of(file, attributes):
                return replace(read_frame(path, frames, reader), attributes=attributes)
            groups = _read_plain(path, file, reader)
            return SourceArrays(
                reader.columns, attributes | reader.single, reader.left_out,
                items=True, doubts=reader.doubts, groups=groups,
            )  # fmt: skip
    return read_store(path, drop)


def read_store(path: Path, drop: Collection[str] = ()) -> SourceArrays:
    """Reads a store of any form."""
    store = EmbeddingStore.open(path, verify=True)
    known = {k: v for k, v in asdict(store.info).items() if v is not None and k != "import_report"}
    columns = {k: v for k, v in store.labels.items() if k not in drop}
    rows = store.embeddings
    columns["embedding"] = (
        rows if isinstance(rows, StreamedRows) else rows.astype(store.storage_dtype)
    )
    left_out = {k: DROPPED for k in store.labels if k in drop}
    known["gender_codes"] = "0 male, 1 female"
    return SourceArrays(columns, known, left_out, store=True)


def _read_plain(path: Path, file: h5py.File, reader: ValueReader) -> dict[str, str]:
    groups: dict[str, str] = {}
    datasets: dict[Any, tuple[str, h5py.Dataset]] = {}
    for name, dataset in _datasets(file, reader, set()):
        place = h5py.h5o.get_info(dataset.id).addr
        if place not in datasets:  # links come first: who made one chose the name
            datasets[place] = name, dataset
    for name, dataset in datasets.values():
        key = name.rsplit("/", 1)[-1]
        if reader.drops(key) or reader.drops(name):
            continue
        if key in reader.columns or key in reader.single:
            reject_file(path, "must hold each column once", f"{key!r} in two groups")
        known = set(reader.columns)
        reader.read(key, dataset)
        groups |= dict.fromkeys(set(reader.columns) - known, name.rpartition("/")[0])
    return groups


def _datasets(group: h5py.Group, reader: ValueReader, seen: set) -> Iterator[tuple[str, Any]]:
    seen.add(h5py.h5o.get_info(group.id).addr)
    links = {name: group.get(name, getlink=True) for name in group}
    for name in sorted(links, key=lambda n: not isinstance(links[n], h5py.SoftLink)):
        item, whole = group.get(name), f"{group.name}/{name}".lstrip("/")
        if isinstance(item, h5py.Dataset):
            yield whole, item
        elif isinstance(links[name], h5py.SoftLink):
            reader.left_out[whole] = "a link to nothing" if item is None else "a link to a group"
        elif isinstance(item, h5py.Group) and h5py.h5o.get_info(item.id).addr not in seen:
            yield from _datasets(item, reader, seen)

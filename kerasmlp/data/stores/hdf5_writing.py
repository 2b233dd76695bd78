"""HDF5 files written by one way: the same content has the same bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import h5py
import numpy as np

from kerasmlp.data.stores.checksums import block_checksums, keep_checksums, seed_of

_BLOCK_BYTES = 1 << 25


def write_hdf5(
    path: str | os.PathLike,
    name: str,
    rows: np.ndarray,
    dtype: np.dtype,
    columns: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
) -> None:
    """Writes rows as one dataset, and small columns and attributes beside it.

    HDF5 crashes the process now and then when a write fails, so it writes
    into memory, leaving the rows out, and a full disk meets our own writes.
    Rows and columns have checksums, as HDF5 keeps such of its structures only.

    Raises:
        OSError: if the disk is full.
    """
    image, checksums = _SparseFile(), block_checksums(rows, dtype)
    with _new_file(image) as file:
        for key, value in attributes.items():
            if isinstance(value, str):  # of fixed length: the heap of others has no checksum
                encoded = value.encode("utf-8", "replace") or b"\0"
                file.attrs.create(key, encoded, dtype=h5py.string_dtype("utf-8", len(encoded)))
            else:
                file.attrs[key] = value
        for folder in sorted({key.rpartition("/")[0] for key in columns} - {""}):
            h5py.h5g.create(file.id, folder.encode(), gcpl=_without_times(h5py.h5p.GROUP_CREATE))
        for key, column in columns.items():
            if column.dtype.kind == "U":
                encoded = np.strings.encode(column, "utf-8")
                width = max(encoded.dtype.itemsize, 1)
                column = encoded.astype(h5py.string_dtype("utf-8", width))
            stored = file.create_dataset(key, data=column)
            table = block_checksums(column, stored.dtype, seed_of(checksums))
            keep_checksums(stored, table)
        reserve = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        reserve.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        reserve.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        dataset = file.create_dataset(name, rows.shape, dtype, dcpl=reserve)
        keep_checksums(dataset, checksums)
        offset = dataset.id.get_offset()
    block = max(1, _BLOCK_BYTES // rows[0].nbytes)
    with open(path, "wb") as raw:
        image.copy_to(raw)
        raw.seek(offset)
        for start in range(0, len(rows), block):
            raw.write(np.ascontiguousarray(rows[start : start + block], dtype))


def _new_file(image: _SparseFile) -> h5py.File:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    # from 1.8 on HDF5 puts checksums on its structures; without, damage there can crash a reader
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_LATEST)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, image)
    how = {"fcpl": _without_times(h5py.h5p.FILE_CREATE), "fapl": access}
    return h5py.File(h5py.h5f.create(repr(image).encode(), h5py.h5f.ACC_TRUNC, **how))


def _without_times(kind: h5py.h5p.PropClassID) -> h5py.h5p.PropInstanceID:
    """So that the same content has the same bytes, whenever it is written."""
    properties = h5py.h5p.create(kind)
    properties.set_obj_track_times(False)
    return properties


class _SparseFile:
    """A file in memory that takes room only where something was written."""

    _PAGE = 1 << 16

    def __init__(self):
        self._pages: dict[int, bytearray] = {}
        self._position = self._size = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (self._size if whence == os.SEEK_END else 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int) -> None:
        self._size = size

    def flush(self) -> None:
        pass

    def _parts(self, length: int) -> Iterator[tuple[bytearray, slice, slice]]:
        end, done = self._position + length, 0
        while self._position < end:
            page, start = divmod(self._position, self._PAGE)
            count = min(self._PAGE - start, end - self._position)
            content = self._pages.setdefault(page, bytearray(self._PAGE))
            yield content, slice(start, start + count), slice(done, done + count)
            self._position, done = self._position + count, done + count

    def write(self, data: memoryview) -> int:
        data = memoryview(data).cast("B")
        for content, there, here in self._parts(len(data)):
            content[there] = data[here]
        self._size = max(self._size, self._position)
        return len(data)

    def readinto(self, data: memoryview) -> int:
        data = memoryview(data).cast("B")
        for content, there, here in self._parts(len(data)):
            data[here] = content[there]
        return len(data)

    read = readinto  # h5py recognises a file by it

    def copy_to(self, raw: BinaryIO) -> None:
        for page, content in sorted(self._pages.items()):
            raw.seek(page * self._PAGE)
            raw.write(content)
        raw.truncate(self._size)

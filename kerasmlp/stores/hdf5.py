"""HDF5 files: opened with one kind of error, rows read past h5py's global lock."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from kerasmlp.checks import InputError, reject_file
from kerasmlp.files import what_is

_BLOCK_BYTES = 1 << 25  # measured: smaller blocks lose more to calls than they win in cache
_HALF_ROWS = 512  # but halves are read into a small buffer, which stays in cache
_THREADS = min(4, os.cpu_count() or 1)

# what h5py and numpy were seen to raise on files with damaged bytes
_DAMAGE = (
    OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, MemoryError, OverflowError,
    AttributeError, IndexError,
)  # fmt: skip


@contextlib.contextmanager
def open_hdf5(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Opens an HDF5 file for reading; whatever is wrong with it becomes one sentence.

    Raises:
        InputError: if there is no such file, or it cannot be read to its end.
    """
    if not Path(path).is_file():
        reject_file(path, "must be an HDF5 file", what_is(path))
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except _DAMAGE as error:
        text = " ".join(str(error).split())[:200]
        reject_file(path, "must be a complete HDF5 file", f"a damaged or foreign one ({text})")


def read_attributes(file: h5py.File) -> dict[str, Any]:
    """Attributes of a file; text is text, in whatever form HDF5 has it."""
    found = dict(file.attrs)
    texts = {k: v.decode("utf-8", "replace") for k, v in found.items() if isinstance(v, bytes)}
    return found | texts


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

    Args:
        path: The file to replace.
        name: Of the dataset of rows.
        rows: At least one.
        dtype: What they are stored as.
        columns: Name in the file to numbers or text.
        attributes: Name to text, number or bool.

    Raises:
        OSError: if the disk is full.
    """
    image = _SparseFile()
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
            file.create_dataset(key, data=column)
        reserve = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        reserve.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        reserve.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        dataset = file.create_dataset(name, rows.shape, dtype, dcpl=reserve)
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


class RowReader:
    """Reads the rows of a dataset as float32, and their squared norms, on all cores.

    The rows start to flow at once, so the caller reads labels meanwhile.

    Args:
        path: The file that holds `dataset`.
        dataset: Of two dimensions, numeric.
    """

    def __init__(self, path: str | os.PathLike, dataset: h5py.Dataset):
        self.embeddings = np.empty(dataset.shape, np.float32)
        self.squared_norms = np.empty(len(self.embeddings), np.float32)
        self._dataset = dataset
        self._offset = dataset.id.get_offset()
        self._row_bytes = dataset.dtype.itemsize * dataset.shape[1]
        plain = dataset.dtype in (np.dtype("<f2"), np.dtype("<f4"))
        self._raw = open(path, "rb") if plain and self._offset is not None else None  # noqa: SIM115
        # as many blocks as keep all threads busy to the end
        blocks = _THREADS * -(-self.embeddings.nbytes // (_THREADS * _BLOCK_BYTES))
        rows = -(-len(self.embeddings) // blocks)
        self._pool = ThreadPoolExecutor(_THREADS)
        starts = range(0, len(self.embeddings), rows)
        self._reads = [self._pool.submit(self._read, slice(s, s + rows)) for s in starts]

    def __enter__(self) -> RowReader:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._raw is not None:
            self._raw.close()

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Waits for the last row; returns embeddings and squared norms."""
        for read in self._reads:
            read.result()
        return self.embeddings, self.squared_norms

    def _read(self, rows: slice) -> None:
        block = self.embeddings[rows]
        with np.errstate(over="ignore", invalid="ignore"):  # the caller rejects such rows
            if self._raw is None:  # rewritten by another program: chunked, compressed, big-endian
                block[:] = self._dataset[rows]
            elif self._dataset.dtype == np.float32:
                self._fill(block, rows.start)
            else:
                half = np.empty((_HALF_ROWS, block.shape[1]), np.float16)
                for start in range(0, len(block), _HALF_ROWS):
                    part = half[: len(block) - start]
                    self._fill(part, rows.start + start)
                    block[start : start + _HALF_ROWS] = part
            np.vecdot(block, block, out=self.squared_norms[rows])

    def _fill(self, block: np.ndarray, start: int) -> None:
        view = memoryview(block).cast("B")
        offset = self._offset + start * self._row_bytes
        while len(view):
            count = os.preadv(self._raw.fileno(), [view], offset)
            if not count:
                raise EOFError("the file ends before its last row")
            view, offset = view[count:], offset + count

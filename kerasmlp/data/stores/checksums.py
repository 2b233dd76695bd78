"""Checksums of arrays by block of rows, quick enough to be compared whenever a file is read."""

import zlib
from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np

from kerasmlp.utils.checks import reject_file

_BLOCK_BYTES = 1 << 20  # measured: smaller blocks name rows more closely, but calls cost time
_MAX_BLOCKS = 1 << 13  # HDF5 has room for 64 kB in an attribute, beside which it keeps a checksum
_FOLD = 1021  # words of eight bytes; a prime, so that no two rows lie upon each other
_NAME = b"checksums"  # of the attribute: rows in a block, then the checksum of each


def checksum(values: np.ndarray, seed: int = 0) -> int:
    """CRC-32 of the bytes of a contiguous array, folded by addition to 8168 bytes where it is long.

    Whatever changes within 8 kB changes it, and every single bit. A CRC of
    all bytes would take as long as reading them. It goes on from the seed.

    Example:

    >>> hex(checksum(np.frombuffer(b"123456789", np.uint8)))
    '0xcbf43926'
    >>> long = np.zeros(10_000, np.uint64)
    >>> before = checksum(long)
    >>> long[5_000] = 1
    >>> checksum(long) == before
    False
    """
    bytes_ = np.frombuffer(values, np.uint8)
    count = len(bytes_) // (8 * _FOLD)
    if count < 2:
        return zlib.crc32(bytes_, seed)
    words = np.frombuffer(values, "<u8", count * _FOLD).reshape(count, _FOLD)
    return zlib.crc32(bytes_[words.nbytes :], zlib.crc32(np.add.reduce(words), seed))


def rows_per_block(rows: int, row_bytes: int) -> int:
    """A number of rows that fit a cache; a multiple of 8, as sums of aligned words are faster."""
    fitting = max(_BLOCK_BYTES // max(row_bytes, 1), -(-rows // _MAX_BLOCKS), 1)
    return -(-fitting // 8) * 8


def block_checksums(values: np.ndarray, dtype: np.dtype, seed: int = 0) -> np.ndarray:
    """The number of rows in a block, then the checksum of each as it is stored."""
    rows = rows_per_block(len(values), dtype.itemsize * values[0].size)
    blocks = (values[start : start + rows] for start in range(0, len(values), rows))
    kept = [checksum(np.ascontiguousarray(block, dtype), seed) for block in blocks]
    return np.array([rows, *kept], np.uint32)


def keep_checksums(dataset: h5py.Dataset, table: np.ndarray) -> None:
    dataset.attrs.create(_NAME.decode(), table)


def seed_of(table: np.ndarray) -> int:
    """For what belongs to the rows of these checksums: labels of other rows do not fit them."""
    return zlib.crc32(table)


def content_crc(file: h5py.File, names: Iterable[str]) -> int:
    """CRC-32 of the checksums that a file has of datasets: of other rows or labels it is another.

    Args:
        file: Open.
        names: Of the datasets.
    """
    crc = 0
    for name in sorted(names):
        crc = zlib.crc32(name.encode("utf-8", "surrogateescape"), crc)
        dataset = file[name]
        if h5py.h5a.exists(dataset.id, _NAME):
            crc = zlib.crc32(np.ascontiguousarray(dataset.attrs[_NAME.decode()]), crc)
    return crc


class Checksums:
    """The checksums that a file has of a dataset, against which its blocks are held.

    Args:
        dataset: Of that file; without checksums, as older files are, all is taken.
        verify: False takes all in any case.

    Attributes:
        rows: In each block but the last.
        seed: For the labels of these rows; None where no checksums are compared.

    Raises:
        InputError: if the checksums are not such.
    """

    def __init__(self, path: Any, dataset: h5py.Dataset, name: str, *, verify: bool, seed: int = 0):
        self.path, self.name, self._count = path, name, len(dataset)
        self._table, self._seed, self.seed = None, seed, None
        self._damaged: set[int] = set()
        if verify and h5py.h5a.exists(dataset.id, _NAME):
            attribute = h5py.h5a.open(dataset.id, _NAME)  # three times as fast as `dataset.attrs`
            kept = np.zeros(attribute.shape, np.uint32)
            if kept.ndim == 1 and attribute.dtype == kept.dtype:
                attribute.read(kept)
                self.rows, self._table, self.seed = int(kept[0]) or 1, kept[1:], seed_of(kept)
            if self._table is None or len(self._table) != -(-self._count // self.rows):
                came = f"checksums of another form for `{self.name}`"
                reject_file(path, "must be a complete HDF5 file", came)
        if self._table is None:
            self.rows = rows_per_block(self._count, dataset.nbytes // self._count)

    def compare(self, values: np.ndarray, start: int = 0) -> None:
        """Compares rows from `start`, the first of a block; of any thread."""
        if self._table is None:
            return
        for first in range(start, start + len(values), self.rows):
            block = values[first - start : first - start + self.rows]
            if checksum(np.ascontiguousarray(block), self._seed) != self._table[first // self.rows]:
                self._damaged.add(first)

    def require(self) -> None:
        """Rejects the file if a block differed."""
        if self._damaged:
            first, others = min(self._damaged), len(self._damaged) - 1
            last = min(first + self.rows, self._count) - 1
            came = f"damage in rows {first} to {last} of `{self.name}`"
            came += f" and in {others} other blocks of rows" if others else ""
            reject_file(self.path, "must hold what was written, by its checksums", came)

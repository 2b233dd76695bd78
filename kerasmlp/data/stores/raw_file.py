"""A file that is opened once, for everything that is read of it."""

import contextlib
import os
import stat
import struct
from pathlib import Path
from typing import Any

import h5py

from kerasmlp.data.stores.streamed_rows import FilePart
from kerasmlp.data.stores.watched_file import WatchedFile, is_too_many
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import what_is

_HEAP = b"GCOL\1\0\0\0"
_MOST_OF_A_HEAP = 1 << 20


class RawFile(contextlib.AbstractContextManager):
    """A regular file, open for reading, also as the Python file that h5py reads by.

    Whatever comes to lie at the path meanwhile, all that is read is of the
    file that was opened. HDF5, which gets no path, neither locks it nor cares
    about file systems that cannot lock. A pipe is refused instead of waited for.

    Raises:
        InputError: if there is no such file, or it may not be read.

    Example:

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as made:
    ...     _ = made.write(b"abc"), made.flush()
    ...     with RawFile(made.name, "a file") as raw:
    ...         raw.size, raw.read_into(there := bytearray(2), 1), bytes(there)
    (3, None, b'bc')
    """

    def __init__(self, path: str | os.PathLike, what: str):
        self.path = Path(path)
        self._position = 0
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            if is_too_many(error):
                raise
            missing = isinstance(error, FileNotFoundError | ValueError)
            reject_file(path, f"must be {what}", what_is(path) if missing else error.strerror)
        self._status = os.fstat(self._descriptor)
        self.size = self._status.st_size
        if not stat.S_ISREG(self._status.st_mode):
            self.close()
            reject_file(path, f"must be {what}", what_is(path))

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    def read_into(self, buffer: Any, offset: int) -> None:
        """Fills a buffer from an offset on; of any thread."""
        view = memoryview(buffer).cast("B")
        while len(view):
            count = os.preadv(self._descriptor, [view], offset)
            if not count:
                raise EOFError("the file ends before its data")
            view, offset = view[count:], offset + count

    def part(self, dataset: h5py.Dataset) -> FilePart:
        """The rows of a dataset that lie one after the other; it outlives this object."""
        file = WatchedFile(self.path, self._descriptor, self._status)
        return FilePart(file, dataset.id.get_offset(), dataset.shape, dataset.dtype)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (self.size if whence == os.SEEK_END else 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> None:
        self.read_into(buffer, self._position)
        if len(buffer) <= _MOST_OF_A_HEAP:
            found = bytes(buffer).find(_HEAP)
            while found >= 0:
                self._check_heap(self._position + found)
                found = bytes(buffer).find(_HEAP, found + 1)

    read = readinto  # h5py recognises a file by it

    def _check_heap(self, start: int) -> None:
        """Refuses a damaged heap of texts, in which HDF5 would look for the next one for ever."""
        head = os.pread(self._descriptor, 16, start)
        size = int.from_bytes(head[8:], "little")
        if head[:8] != _HEAP or start % 8 or size > self.size - start:
            return  # other bytes, or HDF5 says it itself
        heap, at = os.pread(self._descriptor, min(size, _MOST_OF_A_HEAP), start), 16
        while at + 16 <= len(heap):
            number, length = struct.unpack_from("<H6xQ", heap, at)
            at += 16 + -(-length // 8) * 8 if number else length
            if at > size or not (number or length):
                raise OSError("a damaged heap of texts")

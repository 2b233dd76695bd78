"""What the end of a Parquet file says of its columns; pyarrow dies of some damage there."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

_MAGIC = b"PAR1"
_MOST_BYTES = 1 << 28
_DEEPEST = 32
_KINDS = (
    "BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY",
)  # fmt: skip
_ROW_GROUPS, _COLUMNS, _META, _KIND, _PATH, _CODEC, _VALUES, _UNPACKED = 4, 1, 3, 1, 3, 4, 5, 6


@dataclass(frozen=True)
class ColumnChunk:
    """A column in a group of rows.

    Args:
        path: Its name, and of lists the names within.
        kind: Of its numbers, as the format calls it.
        compressed: Whether its pages are.
        values: How many.
        unpacked_bytes: Of its pages, without compression.
    """

    path: tuple[str, ...]
    kind: str
    compressed: bool
    values: int
    unpacked_bytes: int


def column_chunks(file: BinaryIO) -> Iterator[ColumnChunk]:
    """All columns of all groups of rows; the file is left where it ends.

    Args:
        file: Open, which can be sought in.

    Raises:
        ValueError: if the end of the file is damaged, or no Parquet.

    Example:

    >>> import io, pyarrow
    >>> from pyarrow import parquet
    >>> file = io.BytesIO()
    >>> table = pyarrow.table({"x": [1.5, 2.5]})
    >>> parquet.write_table(table, file, compression="none", use_dictionary=False)
    >>> chunk = next(column_chunks(file))
    >>> chunk.path, chunk.kind, chunk.compressed, chunk.values
    (('x',), 'DOUBLE', False, 2)

    Reference: "File Format" and "Thrift compact protocol" of Apache Parquet and Apache Thrift.
    """
    says = _Reader(read_footer(file)[1]).struct()
    try:
        for group in says[_ROW_GROUPS]:
            for column in group[_COLUMNS]:
                meta = column[_META]
                path = tuple(part.decode() for part in meta[_PATH])
                sizes = int(meta[_VALUES]), int(meta[_UNPACKED])
                if min(sizes) < 0:
                    raise ValueError("a negative size")
                yield ColumnChunk(path, _KINDS[meta[_KIND]], meta[_CODEC] != 0, *sizes)
    except (KeyError, TypeError, IndexError, AttributeError):
        raise ValueError("a damaged footer") from None


def read_footer(file: BinaryIO) -> tuple[int, bytes]:
    """Where the part of a file begins that says where all others are, and that part.

    Raises:
        ValueError: if there is none.
    """
    end = file.seek(0, os.SEEK_END) - 8
    file.seek(max(end, 0))
    size = int.from_bytes(file.read(4), "little")
    if file.read(4) != _MAGIC or not 0 < size <= min(end, _MOST_BYTES):
        raise ValueError("no footer")
    file.seek(end - size)
    return end - size, file.read(size)


class _Reader:
    """Reads Thrift's compact protocol; of a struct the fields by number."""

    def __init__(self, content: bytes):
        self._content, self._at, self._depth = content, 0, 0

    def struct(self) -> dict[int, Any]:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("a footer that is too deep")
        fields: dict[int, Any] = {}
        number = 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._whole()
            # A flag has its value in its kind.
            fields[number] = kind & 15 == 1 if kind & 15 in (1, 2) else self._value(kind & 15)
        self._depth -= 1
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (1, 2, 3):
            return self._byte()
        if kind in (4, 5, 6):
            return self._whole()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._varint())
        if kind in (9, 10):
            return self._list()
        if kind == 11:
            return self._map()
        if kind == 12:
            return self.struct()
        raise ValueError("a value of an unknown kind")

    def _list(self) -> list:
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._varint()
        return [self._value(head & 15) for _ in range(self._bounded(count))]

    def _map(self) -> None:
        """Is passed over: nothing that is asked for lies in one."""
        if count := self._bounded(self._varint()):
            kinds = self._byte()
            for _ in range(count):
                self._value(kinds >> 4)
                self._value(kinds & 15)

    def _bounded(self, count: int) -> int:
        if count > len(self._content) - self._at:
            raise ValueError("a list that is longer than the footer")
        return count

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, size: int) -> bytes:
        found = self._content[self._at : self._at + size]
        if len(found) < size:
            raise ValueError("a footer that ends early")
        self._at += size
        return found

    def _whole(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _varint(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise ValueError("a number that is too long")

"""A store as one Parquet file, which other programs read: a column of lists, and its labels."""

from __future__ import annotations

import json
import math
import os
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.data.labels import is_unknown
from kerasmlp.data.stores.allowance import Allowance
from kerasmlp.data.stores.streamed_rows import AnyRows, StreamedRows
from kerasmlp.utils.checks import reject_file

SUFFIX = ".parquet"
_KEY = b"kerasmlp"
_CRC = b"kerasmlp_crc32"
_NO_CRC = b"00000000"
_MAGIC = b"PAR1"
_MOST_OF_A_FOOTER = 1 << 26
_NAME = "embedding"
_GROUP_BYTES = 1 << 25  # of embeddings as they are stored: what a reader holds at once
_WORD = "a Parquet file of `export-embeddings`"


class ParquetPart:
    """Rows of a Parquet file, a row group at a time; the last group stays in memory.

    Args:
        path: Of the file, which stays open.
        file: It, opened by pyarrow.
        dtype: float16 or float32.
        width: Of a row.
        name: Of the column of lists.
    """

    def __init__(self, path: Any, file: Any, dtype: np.dtype, width: int, name: str = _NAME):
        groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        self.shape, self.dtype = (sum(groups), width), np.dtype(dtype)
        self._path, self._file, self._starts = path, file, np.cumsum([0, *groups])
        self._held, self._lock, self._name = (-1, None), threading.Lock(), name

    def read(self, start: int, stop: int) -> np.ndarray:
        pieces = [np.empty((0, self.shape[1]), self.dtype)]
        for group in self._groups(start, stop):
            first = self._starts[group]
            pieces.append(self._group(group)[max(start - first, 0) : stop - first])
        return pieces[1] if len(pieces) == 2 else np.concatenate(pieces)

    def take(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), self.shape[1]), self.dtype)
        if not len(rows):
            return found
        for group in self._groups(int(rows[0]), int(rows[-1]) + 1):
            first, last = np.searchsorted(rows, self._starts[group : group + 2])
            if first < last:
                found[first:last] = self._group(group)[rows[first:last] - self._starts[group]]
        return found

    def _groups(self, start: int, stop: int) -> range:
        first, last = np.searchsorted(self._starts, [start, max(stop, start + 1) - 1], "right") - 1
        return range(int(first), int(last) + 1 if stop > start else int(first))

    def _group(self, number: int) -> np.ndarray:
        with self._lock:
            if self._held[0] != number:
                self._held = number, self._values(number)
            return self._held[1]

    def _values(self, number: int) -> np.ndarray:
        column = self._file.read_row_group(number, columns=[self._name]).column(0)
        requirement = f"must hold {self.shape[1]} numbers in each row of {self._name!r}"
        if column.null_count:
            reject_file(self._path, requirement, "rows without a list")
        parts = [chunk.flatten() for chunk in column.chunks]
        if any(part.null_count for part in parts):
            reject_file(self._path, requirement, "gaps")
        values = [part.to_numpy(zero_copy_only=False) for part in parts]
        rows = int(self._starts[number + 1] - self._starts[number])
        whole = values[0] if len(values) == 1 else np.concatenate(values)
        if whole.size != rows * self.shape[1]:
            reject_file(self._path, requirement, f"{whole.size} numbers in {rows} rows")
        return whole.reshape(rows, self.shape[1])


def is_parquet_store(path: str | os.PathLike) -> bool:
    """Whether a Parquet file says that it is a store; others are read by `import-embeddings`."""
    if Path(path).suffix.lower() != SUFFIX or not os.path.isfile(path):
        return False
    return _CRC in _footer(path)[1]


def open_parquet(
    path: str | os.PathLike,
) -> tuple[dict[str, Any], ParquetPart, dict[str, np.ndarray]]:
    """What a Parquet file says of itself, its rows, and its columns of labels.

    Raises:
        InputError: if it is damaged, or not one of `write_parquet`.
    """
    pyarrow, (_, footer) = _pyarrow(path), _footer(path)
    place = _crc_place(footer)
    if place is None or footer[place] != _crc_of(footer, place):
        reject_file(path, "must hold what was written, by its checksums", "a damaged footer")
    try:
        file = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
        says = json.loads((file.metadata.metadata or {})[_KEY])
        kind = file.schema_arrow.field(_NAME).type
        dtype = np.dtype(kind.value_type.to_pandas_dtype())
        part = ParquetPart(path, file, dtype, kind.list_size)
        attributes, dtypes = says["attributes"], says["labels"]
        plain = all(isinstance(v, str | bool | int | float) for v in attributes.values())
        kinds = {name: np.dtype(each) for name, each in dtypes.items()}
        known = dtype in (np.float16, np.float32) and all(k.kind in "iufU" for k in kinds.values())
        if not (plain and known) or 0 in part.shape or _NAME in kinds:
            raise ValueError(f"{dtype} of shape {part.shape}, labels {', '.join(kinds)}")
        _require_size(path, file.metadata, math.prod(part.shape) * dtype.itemsize)
        table = file.read(columns=list(kinds)) if kinds else None
        labels = {name: _from_arrow(table.column(name), each) for name, each in kinds.items()}
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        came = f"a damaged or foreign one ({' '.join(str(e).split())[:100]!a})"
        reject_file(path, f"must be {_WORD}", came)
    return attributes, part, labels


def _require_size(path: Any, metadata: Any, embedding_bytes: int) -> None:
    """A few bytes can claim to unpack to any size."""
    allowance = Allowance(path, os.path.getsize(path))
    allowance.take(embedding_bytes, _NAME)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(group.num_columns):
            column = group.column(place)
            if not column.path_in_schema.startswith(f"{_NAME}."):
                size = max(column.total_uncompressed_size, 8 * column.num_values)
                allowance.take(size, column.path_in_schema)


def checked_blocks(path: Any, part: ParquetPart) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the rows of a file in float32, against the checksums of its pages."""
    pyarrow = _pyarrow(path)
    try:
        yield from StreamedRows([part]).blocks()
    except (pyarrow.ArrowException, OSError) as error:
        text = ascii(" ".join(str(error).split())[:100])
        reject_file(path, "must hold what was written, by its checksums", text)


def write_parquet(
    path: str | os.PathLike,
    rows: AnyRows,
    dtype: np.dtype,
    labels: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
) -> None:
    """Writes rows as fixed-size lists, and labels beside them; what is unknown is null.

    Args:
        path: Of the file.
        rows: `(rows, width)`.
        dtype: In which they are stored.
        labels: As of a store.
        attributes: Text, numbers and flags that the file says of itself.

    Raises:
        OSError: if the disk is full.
    """
    pyarrow, width = _pyarrow(path), rows.shape[1]
    if _NAME in labels:
        reject_file(path, "must have no label of the name of its rows", repr(_NAME))
    kinds = {k: "U" if v.dtype.kind == "U" else v.dtype.str for k, v in labels.items()}
    says = json.dumps({"attributes": dict(attributes), "labels": kinds})
    kind = pyarrow.list_(pyarrow.from_numpy_dtype(dtype), width)
    columns = {name: _to_arrow(pyarrow, column) for name, column in labels.items()}
    fields = [(_NAME, kind), *((name, column.type) for name, column in columns.items())]
    schema = pyarrow.schema(fields, metadata={_KEY: says, _CRC: _NO_CRC})
    texts = [name for name, each in kinds.items() if each == "U"]
    of_group = max(1, _GROUP_BYTES // (width * np.dtype(dtype).itemsize))
    how = {"compression": {n: "zstd" for n in columns} | {f"{_NAME}.list.element": "none"}}
    with pyarrow.parquet.ParquetWriter(
        path, schema, use_dictionary=texts, write_statistics=list(columns),
        write_page_checksum=True, **how,
    ) as writer:  # fmt: skip
        for start in range(0, len(rows), of_group):
            block = np.ascontiguousarray(rows[start : start + of_group], dtype)
            flat = pyarrow.array(block.reshape(-1))
            lists = pyarrow.FixedSizeListArray.from_arrays(flat, width)
            some = [column.slice(start, len(block)) for column in columns.values()]
            table = pyarrow.Table.from_arrays([lists, *some], schema=schema)
            writer.write_table(table, row_group_size=of_group)
    _keep_crc(path)


def _footer(path: str | os.PathLike) -> tuple[int, bytes]:
    """Where the part of a file begins that says where all others are, and that part."""
    try:
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
            end = file.seek(0, os.SEEK_END) - 8
            file.seek(max(end, 0))
            size = int.from_bytes(file.read(4), "little")
            if file.read(4) != _MAGIC or not 0 < size <= min(end, _MOST_OF_A_FOOTER):
                return 0, b""
            file.seek(end - size)
            return end - size, file.read(size)
    except OSError:
        return 0, b""


def _crc_place(footer: bytes) -> slice | None:
    """Where the checksum of a footer stands in it; pyarrow would crash on some damage there."""
    at = footer.find(_CRC)
    digits = footer.find(b"\x08", at) + 1  # the length of the text that follows
    found = at >= 0 and 0 < digits <= at + len(_CRC) + 4
    return slice(digits, digits + len(_NO_CRC)) if found else None


def _crc_of(footer: bytes, place: slice) -> bytes:
    blank = footer[: place.start] + _NO_CRC + footer[place.stop :]
    return f"{zlib.crc32(blank):08x}".encode()


def _keep_crc(path: str | os.PathLike) -> None:
    start, footer = _footer(path)
    place = _crc_place(footer)
    with open(path, "r+b") as file:
        file.seek(start + place.start)
        file.write(_crc_of(footer, place))


def _to_arrow(pyarrow: Any, column: np.ndarray) -> Any:
    of_floats = column.dtype.kind == "f"  # which have NaN, of any bits
    return pyarrow.array(column, mask=None if of_floats else is_unknown(column))


def _from_arrow(column: Any, kind: np.dtype) -> np.ndarray:
    """A column as it was in the store."""
    if kind.kind == "U":
        return np.array(["" if text is None else text for text in column.to_pylist()], str)
    if column.null_count:
        column = column.fill_null(float("nan") if kind.kind == "f" else -1)
    return column.to_numpy().astype(kind, copy=False)


def _pyarrow(path: Any) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        need = "needs pyarrow to be read or written (`pip install kerasmlp[tables]`)"
        reject_file(path, need, "no such package")
    return pyarrow

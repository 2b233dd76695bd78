"""A store as one Parquet file, which other programs read: a column of lists, and its labels."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.data.labels import is_unknown
from kerasmlp.data.stores.allowance import Allowance
from kerasmlp.data.stores.parquet_part import EMBEDDING, ParquetPart
from kerasmlp.data.stores.streamed_rows import AnyRows
from kerasmlp.utils.checks import InputError, reject_file
from kerasmlp.utils.parquet_footer import column_chunks, read_footer

SUFFIX = ".parquet"
_KEY = b"kerasmlp"
_CRC = b"kerasmlp_crc32"
_NO_CRC = b"00000000"
_GROUP_BYTES = 1 << 25  # of embeddings as they are stored: what a reader holds at once
_WORD = "a Parquet file of `export-embeddings`"


def is_parquet_store(path: str | os.PathLike) -> bool:
    """Whether a Parquet file says that it is a store; others are read by `import-embeddings`."""
    if Path(path).suffix.lower() != SUFFIX or not os.path.isfile(path):
        return False
    return _CRC in _footer(path)[1]


def open_parquet(
    path: str | os.PathLike, most_bytes: int | None = None
) -> tuple[dict[str, Any], ParquetPart, dict[str, np.ndarray]]:
    """What a Parquet file says of itself, its rows, and its columns of labels.

    Args:
        path: Of the file.
        most_bytes: As of `EmbeddingStore.open`.

    Raises:
        InputError: if it is damaged, or not one of `write_parquet`.
    """
    pyarrow, (_, footer) = _pyarrow(path), _footer(path)
    place = _crc_place(footer)
    if place is None or footer[place] != _crc_of(footer, place):
        came = "a damaged footer, or one of another program that kept the checksum of this one"
        way = "; without metadata, as pandas writes it, it is a table for `import-embeddings`"
        reject_file(path, "must hold what was written, by its checksums", came + way)
    try:
        says = json.loads((pyarrow.parquet.read_metadata(path).metadata or {})[_KEY])
        texts = [name for name, each in says["labels"].items() if each == "U"]
        how = {"page_checksum_verification": True, "read_dictionary": texts}
        file = pyarrow.parquet.ParquetFile(path, **how)
        kind = file.schema_arrow.field(EMBEDDING).type
        dtype = np.dtype(kind.value_type.to_pandas_dtype())
        part = ParquetPart(path, file, dtype, kind.list_size)
        attributes, dtypes = says["attributes"], says["labels"]
        plain = all(isinstance(v, str | bool | int | float) for v in attributes.values())
        kinds = {name: np.dtype(each) for name, each in dtypes.items()}
        known = dtype in (np.float16, np.float32) and all(k.kind in "iufU" for k in kinds.values())
        if not (plain and known) or 0 in part.shape or EMBEDDING in kinds:
            raise ValueError(f"{dtype} of shape {part.shape}, labels {', '.join(kinds)}")
        allowance = Allowance(path, os.path.getsize(path), most_bytes)
        _take_sizes(allowance, path, 4 * math.prod(part.shape))
        table = file.read(columns=list(kinds)) if kinds else None
        labels = {k: _from_arrow(table.column(k), kinds[k], k, allowance) for k in kinds}
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        came = f"a damaged or foreign one ({' '.join(str(e).split())[:100]!a})"
        reject_file(path, f"must be {_WORD}", came)
    return attributes, part, labels


def _take_sizes(allowance: Allowance, path: str | os.PathLike, embedding_bytes: int) -> None:
    """A few bytes can claim to unpack to any size."""
    allowance.take(embedding_bytes, EMBEDDING)
    with open(path, "rb") as file:
        for column in column_chunks(file):
            if column.path[:1] != (EMBEDDING,):
                size = max(column.unpacked_bytes, 8 * column.values)
                allowance.take(size, ".".join(column.path))


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
    if EMBEDDING in labels:
        reject_file(path, "must have no label of the name of its rows", repr(EMBEDDING))
    kinds = {k: "U" if v.dtype.kind == "U" else v.dtype.str for k, v in labels.items()}
    says = json.dumps({"attributes": dict(attributes), "labels": kinds})
    kind = pyarrow.list_(pyarrow.from_numpy_dtype(dtype), width)
    columns = {name: _to_arrow(pyarrow, column) for name, column in labels.items()}
    fields = [(EMBEDDING, kind), *((name, column.type) for name, column in columns.items())]
    schema = pyarrow.schema(fields, metadata={_KEY: says, _CRC: _NO_CRC})
    texts = [name for name, each in kinds.items() if each == "U"]
    of_group = max(1, _GROUP_BYTES // (width * np.dtype(dtype).itemsize))
    how = {"compression": {n: "zstd" for n in columns} | {f"{EMBEDDING}.list.element": "none"}}
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
    """As `read_footer`; empty where there is none."""
    try:
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
            return read_footer(file)
    except (OSError, ValueError):
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


def _from_arrow(column: Any, kind: np.dtype, name: str, allowance: Allowance) -> np.ndarray:
    """A column as it was in the store."""
    if kind.kind == "U":
        return _texts(column, name, allowance)
    if column.null_count:
        column = column.fill_null(float("nan") if kind.kind == "f" else -1)
    return column.to_numpy().astype(kind, copy=False)


def _texts(column: Any, name: str, allowance: Allowance) -> np.ndarray:
    """A column of text, of which each row takes as much as the longest of its dictionaries."""
    chunks = [(c, c.dictionary.to_pylist()) for c in column.dictionary_encode().chunks]
    longest = max((len(text) for _, texts in chunks for text in texts), default=0)
    allowance.take(4 * longest * len(column), name)
    found, start = np.empty(len(column), f"U{max(longest, 1)}"), 0
    for chunk, texts in chunks:
        each = np.array([*texts, ""], object)  # the texts themselves, however many rows have one
        found[start : start + len(chunk)] = each[chunk.indices.fill_null(len(texts)).to_numpy()]
        start += len(chunk)
    return found


def _pyarrow(path: Any) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        need = "needs pyarrow to be read or written (`pip install kerasmlp[tables]`)"
        reject_file(path, need, "no such package")
    return pyarrow

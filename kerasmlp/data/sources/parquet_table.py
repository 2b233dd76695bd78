"""Parquet: only the columns that can mean something, and no more than the file can hold."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

from pyarrow import parquet, types

from kerasmlp.data.sources.arrow_columns import is_read, read_table, require_once
from kerasmlp.data.sources.large_arrays import parts_of_parquet
from kerasmlp.data.sources.source import DROPPED, SourceArrays, open_file, require_size
from kerasmlp.data.stores.streamed_rows import StreamedRows
from kerasmlp.utils.parquet_footer import column_chunks

_BYTES = {"BOOLEAN": 20, "INT32": 4, "FLOAT": 4, "BYTE_ARRAY": 12, "FIXED_LEN_BYTE_ARRAY": 64}


def read_parquet(path: Path, drop: Collection[str] = ()) -> SourceArrays:
    left_out: dict[str, str] = {}
    large: dict[str, Any] = {}

    def read() -> Any:
        schema = parquet.read_schema(file)
        require_once(path, schema.names, drop)
        file.seek(0)
        fields = {f.name: f for f in schema}
        texts = [f.name for f in schema if types.is_string(f.type) or types.is_binary(f.type)]
        # as a dictionary, one long text that all rows share is held once
        opened = parquet.ParquetFile(file, read_dictionary=texts)
        names = schema.names
        kept = [n for n in names if n not in drop and is_read(fields[n].type)]
        wanted = set(kept)
        left_out.update(
            (f.name, DROPPED if f.name in drop else f"values of type {f.type}"[:100])
            for f in schema if f.name not in wanted
        )  # fmt: skip
        _require_size(path, file, wanted)
        large.update(parts_of_parquet(path, opened, kept))
        kept = [n for n in kept if n not in large]
        return opened.read(columns=list(dict.fromkeys(kept)), use_pandas_metadata=False)

    with open_file(path) as file:
        source = read_table(path, read, drop)
    source.left_out.update(left_out)
    source.columns.update({name: StreamedRows([part]) for name, part in large.items()})
    return source


def _require_size(path: Path, file: BinaryIO, kept: set[str]) -> None:
    """What the columns take once read, by what the file says of them."""
    unpacked = 0
    for column in column_chunks(file):
        if column.path[0] in kept:
            values = column.values * _BYTES.get(column.kind, 8)
            unpacked += max(values, column.unpacked_bytes)
    require_size(path, os.fstat(file.fileno()).st_size, unpacked, "its columns")

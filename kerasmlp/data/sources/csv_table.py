"""Text tables in the dialects that spreadsheets, pandas and R write."""

import csv
import gzip
import io
import itertools
import os
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from kerasmlp.data.sources.arrow_columns import read_table
from kerasmlp.data.sources.csv_values import GAPS, has_decimal_commas, of_families, typed
from kerasmlp.data.sources.source import (
    DROPPED,
    SourceArrays,
    most_bytes,
    open_file,
    require_size,
    text_encoding,
)
from kerasmlp.utils.checks import reject_file

MOST_COLUMNS = 50_000
_HEAD = 1 << 20
_BLOCK = 1 << 22  # measured: a third faster than 16 MB on two cores
_COUNTED = 1 << 18  # fits a cache, and is read into the same place each time
_SEPARATORS = ",;\t|"
_FRACTION = re.compile(r"\s*[+-]?\d*[.,]\d+([eE][+-]?\d+)?\s*")
_UNNAMED = "Unnamed: "
csv.field_size_limit(_HEAD)  # a cell may hold thousands of numbers


def read_csv(path: Path, drop: Collection[str] = ()) -> SourceArrays:
    """Reads `.csv` and `.tsv`, in UTF-8 or UTF-16, compressed by gzip or not."""

    def read() -> Any:
        stream = _plain_text(path, file)
        head = stream.read(_HEAD)
        start, separator = _start_and_separator(path, head)
        names = next(_rows(head[start:], separator), [])
        if not names and len(head) == _HEAD:
            _reject_width(path, f"a header of over {_HEAD:,} bytes")
        if 2 * sum(map(bool, map(_FRACTION.fullmatch, names))) > len(names):
            expected = "must begin with a line of the names of its columns"
            reject_file(path, expected, f"numbers such as {names[0]}")
        _require_size(path, stream, len(names), os.fstat(file.fileno()).st_size)
        kept = [name for name in names if name not in drop and _plain(name) not in drop]
        dropped.update((_plain(name), DROPPED) for name in set(names) - set(kept))
        families = of_families([_plain(name) for name in kept])
        families = {name for name in kept if _plain(name) in families}

        def parse(decimal_point: str) -> Any:
            stream.seek(start)
            # a newline in quotes is legal; the default block ends at 1 MB: wide rows need more
            return arrow_csv.read_csv(
                stream,
                arrow_csv.ReadOptions(block_size=_BLOCK),
                arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
                arrow_csv.ConvertOptions(
                    null_values=GAPS, decimal_point=decimal_point,
                    column_types=dict.fromkeys(set(kept) - families, pa.binary()),
                    include_columns=kept if len(kept) < len(names) else None,
                ),
            )  # fmt: skip

        table = parse(".")
        if len(set(table.column_names)) == table.num_columns:  # else it is refused
            table = _typed(table, families, parse, doubts)
        return table.rename_columns(
            [_plain(n) or f"{_UNNAMED}{place}" for place, n in enumerate(table.column_names)]
        )

    dropped: dict[str, str] = {}
    doubts: list[str] = []
    with open_file(path) as file:
        source = read_table(path, read, drop)
    source.left_out.update(dropped)
    index = [n for n in source.columns if re.fullmatch(_UNNAMED + r"\d+(_level_\d+)?", n)]
    for name in index:  # a comma at the end of each line names no rows
        values = source.columns[name]
        if values.dtype.kind == "f" and np.isnan(values).all():
            del source.columns[name]
            source.left_out[name] = "neither a name nor values"
    return replace(source, index=index, doubts=doubts)


def _plain(name: str) -> str:
    """The name of a column; `np.savetxt` writes the first one behind a `#`."""
    return re.sub(r"^#\s+", "", name.strip())


def _plain_text(path: Path, file: BinaryIO) -> BinaryIO:
    """The text as UTF-8, unpacked."""
    size = os.fstat(file.fileno()).st_size
    stream, start = file, file.read(4)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=file) as unpack:
            text = unpack.read(most_bytes(size) + 1)
        require_size(path, size, len(text), "its text, or more,")
        stream, start = io.BytesIO(text), text[:4]
    encoding = text_encoding(start)
    if encoding.startswith("utf-8"):
        return stream
    return io.BytesIO(stream.read().decode(encoding).encode())


def _start_and_separator(path: Path, head: bytes) -> tuple[int, str]:
    """Where the header begins, and what stands between values."""
    start = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    said = re.match(rb'"?sep=(.)"?\r?\n', head[start:], re.IGNORECASE)
    if said:
        return start + said.end(), said[1].decode("latin-1")
    counts = {}
    for separator in _SEPARATORS:
        rows = [len(row) for row in itertools.islice(_rows(head[start:], separator), 4) if row]
        if rows and rows[0] > 1:
            counts[separator] = (len(set(rows)) == 1, rows[0])
    best = max(counts.values(), default=None)
    likely = [separator for separator, count in counts.items() if count == best]
    if len(likely) > 1:
        came = " and ".join(map(repr, likely))
        reject_file(path, "must have one separator (a first line `sep=;` names it)", came)
    words = [len(line.split()) for line in head[start:].splitlines()[:2]]
    if not likely and len(words) == 2 and words[1] - words[0] in (0, 1) and words[0] > 1:
        reject_file(path, "must have a comma, a semicolon, a tab or | between values", "spaces")
    return start, likely[0] if likely else ","


def _rows(head: bytes, separator: str) -> Any:
    reader = csv.reader(io.StringIO(head.decode("utf-8", "replace"), ""), delimiter=separator)
    whole = len(head) < _HEAD - 100  # else the last row may be cut
    try:
        rows = list(itertools.islice(reader, 5))
    except csv.Error:
        return iter(())
    return iter(rows if whole or len(rows) == 5 else rows[:-1])


def _require_size(path: Path, stream: BinaryIO, columns: int, file_size: int) -> None:
    """What a table takes as numbers, by its header and its lines."""
    if columns > MOST_COLUMNS:
        _reject_width(path, f"{columns:,}")
    size = stream.seek(0, os.SEEK_END)
    if 8 * size > most_bytes(file_size):
        stream.seek(0)
        lines, block = 0, bytearray(_COUNTED)
        while count := stream.readinto(block):
            newlines = block.count(b"\n", 0, count)
            lines += newlines or block.count(b"\r", 0, count)  # as an old Mac has them
        require_size(path, file_size, max(8 * columns * lines, size), "its numbers")


def _reject_width(path: Path, came: str) -> NoReturn:
    way_out = "(an array in .npz or lists in Parquet may be wider)"
    reject_file(path, f"must hold at most {MOST_COLUMNS:,} columns {way_out}", came)


def _typed(table: Any, families: Collection[str], parse: Any, doubts: list[str]) -> Any:
    """Columns as what their texts are, with one decimal sign for the whole file."""
    names, columns = table.column_names, table.columns
    for place, column in enumerate(columns):
        if pa.types.is_binary(column.type):
            try:
                columns[place] = column.cast(pa.string())
            except pa.ArrowInvalid:
                continue  # no UTF-8: said where the column is needed
    commas = has_decimal_commas(pa.table(columns, names), families)
    numbers = parse(",").columns if commas else columns
    for place, (name, column) in enumerate(zip(names, columns, strict=True)):
        if name in families:
            columns[place] = numbers[place]
        elif pa.types.is_string(column.type):
            columns[place], doubt = typed(name, column, commas=commas)
            doubts += [doubt] if doubt else []
    return pa.table(columns, names)

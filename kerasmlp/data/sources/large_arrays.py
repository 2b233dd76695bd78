"""Arrays of other programs that are too large to be read whole: they stay in their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from kerasmlp.data.stores.embedding_store import STREAMED_BYTES, lies_plain
from kerasmlp.data.stores.parquet_part import ParquetPart
from kerasmlp.data.stores.streamed_rows import FilePart
from kerasmlp.data.stores.watched_file import WatchedFile


def part_of_npy(path: Path, file: BinaryIO) -> FilePart | None:
    """The rows of an open `.npy` file, or None: it is small, or no matrix of rows of floats.

    Its header has been checked; the file is left where it was.
    """
    start = file.tell()
    version = np.lib.format.read_magic(file)
    read = {(1, 0): "read_array_header_1_0", (2, 0): "read_array_header_2_0"}[version]
    shape, by_columns, dtype = getattr(np.lib.format, read)(file)
    offset = file.tell()
    file.seek(start)
    if by_columns or not is_large(shape, dtype):
        return None
    return FilePart(WatchedFile(path, file.fileno()), offset, shape, dtype)


def part_of_dataset(path: Path, dataset: h5py.Dataset) -> FilePart | None:
    """The rows of a dataset that lie one after the other, or None, as of `part_of_npy`."""
    if not (is_large(dataset.shape, dataset.dtype) and lies_plain(dataset)):
        return None
    with open(path, "rb") as file:
        watched = WatchedFile(path, file.fileno())
    part = FilePart(watched, dataset.id.get_offset(), dataset.shape, dataset.dtype)
    return part if part.read(0, 1).tobytes() == dataset[:1].tobytes() else None


def parts_of_parquet(path: Path, file: Any, names: Sequence[str]) -> dict[str, ParquetPart]:
    """Columns of fixed-size lists that are large, by their names.

    Args:
        path: Of the file.
        file: It, opened by pyarrow.
        names: Of the columns.
    """
    import pyarrow
    import pyarrow.parquet

    rows, found = file.metadata.num_rows, {}
    for name in dict.fromkeys(names):
        kind = file.schema_arrow.field(name).type
        if pyarrow.types.is_fixed_size_list(kind) and pyarrow.types.is_floating(kind.value_type):
            dtype = np.dtype(kind.value_type.to_pandas_dtype())
            if is_large((rows, kind.list_size), dtype):
                again = pyarrow.parquet.ParquetFile(path)
                found[name] = ParquetPart(path, again, dtype, kind.list_size, name)
    return found


def is_large(shape: Sequence[int], dtype: np.dtype) -> bool:
    """Whether an array is a matrix of floats, of half or single precision, that stays in its file.

    Example:

    >>> is_large((1_000_000, 512), np.dtype("f2")), is_large((1_000_000,), np.dtype("f2"))
    (True, False)
    """
    of_floats = dtype in (np.float16, np.float32)
    return len(shape) == 2 and of_floats and 4 * shape[0] * shape[1] > STREAMED_BYTES

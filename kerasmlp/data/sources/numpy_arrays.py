"""`.npz` and `.npy`, never by pickle, and no larger than their bytes."""

import os
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kerasmlp.data.sources.large_arrays import part_of_npy
from kerasmlp.data.sources.source import (
    DROPPED,
    PICKLED,
    SourceArrays,
    bytes_in_memory,
    open_file,
    require_size,
)  # fmt: skip
from kerasmlp.data.stores.streamed_rows import StreamedRows
from kerasmlp.utils.checks import InputError, reject_file

_DAMAGE = (
    OSError, ValueError, EOFError, KeyError, TypeError, MemoryError, OverflowError, SyntaxError,
    RuntimeError, RecursionError, zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip


def read_numpy(path: Path, drop: Collection[str] = ()) -> SourceArrays:
    """Reads the arrays of `.npz` or the one of `.npy`, which is called `embedding`."""
    with open_file(path) as file:
        try:
            if file.read(6) == b"\x93NUMPY":
                return _one(path, file)
            file.seek(0)
            if file.read(2) != b"PK":
                reject_file(
                    path, "must hold plain arrays", "pickled or foreign objects, never read"
                )
            return _several(path, file, drop)
        except InputError:
            raise
        except _DAMAGE as error:
            text = " ".join(str(error).split())[:200]
            kind = path.suffix.lower()
            reject_file(
                path, f"must be a complete {kind} file", f"a damaged or foreign one ({text})"
            )


def _one(path: Path, file: BinaryIO) -> SourceArrays:
    file.seek(0)
    size = os.fstat(file.fileno()).st_size
    if (why := _why_not(path, file, size, size)) is not None:
        reject_file(path, "must hold plain arrays", why)
    file.seek(0)
    if (part := part_of_npy(path, file)) is not None:
        return SourceArrays({"embedding": StreamedRows([part])})
    array = np.load(file, allow_pickle=False)
    if array.dtype.names is None:
        return _split(path, {"embedding": array}, {})
    return replace(_split(path, {"table": array}, {}), table=True)


def _several(path: Path, file: BinaryIO, drop: Collection[str]) -> SourceArrays:
    size = os.fstat(file.fileno()).st_size
    arrays = {}
    with zipfile.ZipFile(file) as archive:
        names = [m.filename.removesuffix(".npy") for m in archive.infolist()]
        members = [m for m, name in zip(archive.infolist(), names, strict=True) if name not in drop]
        left_out = {name: DROPPED for name in names if name in drop}
        require_size(path, size, sum(m.file_size for m in members), "its arrays")
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name in arrays or name in left_out:
                reject_file(path, "must hold each column once", f"{name!r} twice")
            with archive.open(member) as stream:
                why = _why_not(path, stream, member.file_size, size)
            if why is not None:
                left_out[name] = why
                continue
            with archive.open(member) as stream:
                arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return _split(path, arrays, left_out)


def _why_not(path: Path, stream: Any, length: int, file_size: int) -> str | None:
    """Why an array cannot be read; its header says how large it is, and may say too much."""
    try:
        version = np.lib.format.read_magic(stream)
    except ValueError:
        return "not an array"
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:  # 3.0 has field names that are not ASCII
        return f"an array of format {version}"
    shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        return PICKLED
    count = 1
    for axis in shape:
        count *= int(axis)
    if count < 0 or count * dtype.itemsize > length:
        came = f"an array that says it has shape {shape}"
        reject_file(path, f"must be a complete {path.suffix.lower()} file", came)
    if not dtype.itemsize and count:
        return "values without a size"
    require_size(path, file_size, bytes_in_memory(dtype, count), f"an array of shape {shape}")
    return None


def _split(path: Path, arrays: dict[str, np.ndarray], left_out: dict[str, str]) -> SourceArrays:
    columns: dict[str, np.ndarray] = {}
    single = {k: v for k, v in arrays.items() if v.ndim == 0 and v.dtype.names is None}
    for name, value in single.items():
        _check_text(path, name, value)
    scalars = {name: value.item() for name, value in single.items()}
    for name, array in arrays.items():
        if not array.ndim:
            continue
        if array.dtype.names is None:
            columns[name] = array
            continue
        for field in array.dtype.names:
            if field in columns or field in arrays:
                left_out[f"{name}.{field}"] = "a second column of this name"
            elif array.dtype[field].names is None:
                columns[field] = array[field]
            else:
                left_out[f"{name}.{field}"] = "a table inside a table"
    for name, column in columns.items():
        _check_text(path, name, column)
    return SourceArrays(columns, scalars, left_out)


def _check_text(path: Path, name: str, array: np.ndarray) -> None:
    """Rejects codes that are no characters: Python breaks down on such a text."""
    if array.dtype.kind == "U" and array.size:
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        codes = np.ascontiguousarray(native).reshape(-1).view(np.uint32)
        if codes.size and codes.max() > sys.maxunicode:
            reject_file(path, f"must hold text in {name!r}", "codes that are no characters")

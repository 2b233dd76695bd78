"""HDF5 files, opened once and with one kind of error; what they hold is not believed."""

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from kerasmlp.data.stores.allowance import Allowance
from kerasmlp.data.stores.raw_file import RawFile
from kerasmlp.data.stores.watched_file import is_too_many
from kerasmlp.utils.checks import InputError, reject_file

_MAX_ATTRIBUTES_BYTES = 1 << 26
_POINTER_BYTES = 16
_FILTERS = {
    h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_SZIP, h5py.h5z.FILTER_NBIT, h5py.h5z.FILTER_SCALEOFFSET, h5py.h5z.FILTER_LZF,
}  # fmt: skip
_TEXT_ROWS = 1024

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
    with RawFile(path, "an HDF5 file") as raw, hdf5_of(raw) as file:
        yield file


@contextlib.contextmanager
def hdf5_of(raw: RawFile) -> Iterator[h5py.File]:
    """As `open_hdf5`, of a file that is open already."""
    try:
        with h5py.File(raw, "r") as file:
            sizes = file.id.get_create_plist().get_sizes()
            if sizes != (8, 8):  # as everybody writes them, and `RawFile` looks through
                reject_file(raw.path, "must be an HDF5 file of numbers of 8 bytes", f"{sizes}")
            yield file
    except InputError:
        raise
    except _DAMAGE as error:
        if is_too_many(error):
            raise
        text = " ".join(str(error).split())[:200]
        reject_file(raw.path, "must be a complete HDF5 file", f"a damaged or foreign one ({text})")


def read_attributes(file: h5py.File) -> dict[str, Any]:
    """Attributes of a file; text is text, in whatever form HDF5 has it.

    Left out are lists of texts of variable length, as all of them can be one
    and the same long text, and what comes after 64 MB.
    """
    found: dict[str, Any] = {}
    left = _MAX_ATTRIBUTES_BYTES
    attributes = file.attrs  # opens the root group, each time
    for name in attributes:
        # of a text of variable length that of a pointer; of an attribute without a value 0
        size = h5py.h5a.get_info(file.id, name.encode("utf-8", "surrogateescape")).data_size
        if size > left or (size > _POINTER_BYTES and attributes.get_id(name).dtype.hasobject):
            continue
        value = attributes[name]
        left -= getattr(value, "nbytes", None) or len(str(value))
        found[name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return found


def require_written(
    path: Any, dataset: h5py.Dataset, dtype: np.dtype, name: str, raw: RawFile
) -> None:
    """Rejects a dataset whose values are not all in the file, or need a plugin to be read."""
    how, offset = dataset.id.get_create_plist(), dataset.id.get_offset()
    filters = {how.get_filter(i)[0] for i in range(how.get_nfilters())}
    if not filters <= _FILTERS:
        reject_file(path, "must be packed as HDF5 itself does", f"`{name}` that needs a plugin")
    end = (offset or 0) + dataset.size * dtype.itemsize
    if offset is not None and end > raw.size:
        reject_file(path, f"must be complete, {end:,} bytes or more", f"{raw.size:,} bytes")
    if dataset.size and not dataset.id.get_storage_size():
        reject_file(path, f"must hold the values of `{name}`", "none that were ever written")


def memory_bytes(dataset: h5py.Dataset, dtype: np.dtype, itemsize: int) -> int:
    """What reading takes: the values as they are and of another size, and a chunk unpacked."""
    own = dtype.itemsize
    return int(dataset.size) * (own + itemsize) + math.prod(dataset.chunks or (0,)) * own


def read_texts(dataset: h5py.Dataset, name: str, allowance: Allowance) -> np.ndarray:
    """The values of a dataset of one dimension, of variable length, as far as is allowed.

    Raises:
        InputError: if they want too much memory, be it all one and the same text.
    """
    parts, widest, start = [], 0, 0
    while start < len(dataset):
        # what is not counted yet is allowed too: each row can be as long as the file
        rows = min(_TEXT_ROWS, max(1, allowance.left // allowance.file_bytes))
        part = dataset[start : start + rows]
        lengths = [len(v) if isinstance(v, bytes | str) else getattr(v, "nbytes", 0) for v in part]
        allowance.take(sum(lengths), name)
        widest = max(widest, *lengths)
        parts.append(part)
        start += rows
    allowance.take(5 * widest * len(dataset), name)  # NumPy gives all the room of the longest
    return np.concatenate(parts)

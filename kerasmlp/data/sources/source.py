"""What a file of another program holds, and how much of it may be taken into memory."""

import codecs
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import what_is

UNPACKED_RATIO = 4
UNPACKED_ALLOWANCE = 1 << 28
DROPPED = "as asked by --drop"
CODES = "_codes"
"""How the name of an attribute ends that says what the numbers of a column stand for."""

PICKLED = "Python objects (pickled), which are never loaded"
_LONG_TEXT = 256


@dataclass(frozen=True)
class SourceArrays:
    """What a file holds.

    Attributes:
        columns: Name to array; the first axis is rows. Integers and bools
            with gaps are masked arrays; text is a `U` array, or objects where
            single texts are long.
        attributes: Name to value, as HDF5 attributes and scalars of an .npz.
        left_out: Name of what was not read to the reason.
        index: Columns that only count or name the rows.
        table: Whether each column is known to be one value per row, so that
            columns of one number can be put together.
        store: Whether the file is a store, where -1 is unknown already.
        items: Whether arrays that differ in a number may be one row each.
        doubts: What reading it left open, one sentence each.
        groups: Name to the group of the file that holds it, where there are groups.
    """

    columns: dict[str, np.ndarray]
    attributes: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    index: Collection[str] = ()
    table: bool = False
    store: bool = False
    items: bool = False
    doubts: Collection[str] = ()
    groups: Mapping[str, str] = field(default_factory=dict)


def open_file(path: str | os.PathLike) -> BinaryIO:
    """Opens a file, once, and nothing that only looks like one: a pipe never ends.

    Raises:
        InputError: if there is no such file, or it is empty.
    """
    try:
        file = open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK))  # noqa: SIM115
    except (IsADirectoryError, FileNotFoundError, NotADirectoryError):
        reject_file(path, "must be a file", what_is(path))
    except (OSError, ValueError) as error:
        reject_file(path, "must be a file that can be read", str(error))
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        file.close()
        regular = stat.S_ISREG(status.st_mode)
        came = "an empty file" if regular else "a pipe, a device or a socket"
        reject_file(path, "must hold embeddings" if regular else "must be a file", came)
    return file


def text_encoding(head: bytes) -> str:
    """Of a table, by its first four bytes: the names of its columns begin in ASCII."""
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if 0 in head:
        return "utf-16-be" if head[0] == 0 else "utf-16-le"
    return "utf-8"


def most_bytes(file_size: int) -> int:
    """How many bytes a file may unpack to: enough for honest ones, too few to fill the memory."""
    return UNPACKED_RATIO * file_size + UNPACKED_ALLOWANCE


def require_size(path: Any, file_size: int, unpacked: int, what: str = "its values") -> None:
    """Rejects a file that says it is far larger than it is, before it is read.

    Example:

    >>> require_size("a.npz", 6000, 4_000_000_000)
    Traceback (most recent call last):
        ...
    kerasmlp.utils.checks.InputError: `a.npz` must unpack to at most 4 times its size and 256 MiB \
(save it without compression). Received: 4,000,000,000 bytes for its values, from 6,000
    """
    if unpacked > most_bytes(file_size):
        reject_file(
            path,
            f"must unpack to at most {UNPACKED_RATIO} times its size and "
            f"{UNPACKED_ALLOWANCE >> 20} MiB (save it without compression)",
            f"{unpacked:,} bytes for {what}, from {file_size:,}",
        )


def bytes_in_memory(dtype: np.dtype, count: int) -> int:
    """What so many values take once they are float32 or text."""
    size = dtype.itemsize
    each = {"S": 5 * size, "O": 64, "b": 20, "V": size, "U": size}.get(dtype.kind, max(size, 4))
    return each * count


def text_array(texts: Sequence[str | None], codes: np.ndarray | None = None) -> np.ndarray:
    """Text per row, "" where there is none; long texts stay objects, which take no padding.

    Args:
        texts: One per row, or the categories that `codes` choose from.
        codes: Index of the category per row, negative where there is none.

    Example:

    >>> text_array(["cat", "dog"], np.array([1, 0, -1]))
    array(['dog', 'cat', ''], dtype='<U3')
    """
    texts = ["" if text is None else text for text in (*texts, "")]
    if max(map(len, texts)) > _LONG_TEXT:
        column = np.empty(len(texts), object)
        column[:] = texts
    else:
        column = np.array(texts)
    return column[:-1] if codes is None else column[np.where(codes < 0, len(texts) - 1, codes)]


def as_text(value: Any) -> str:
    """What an attribute or a value says, whether it came as bytes, as text or as a number."""
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def named_codes(path: Any, name: str, names: Sequence, codes: np.ndarray) -> np.ndarray:
    """The names behind codes as text; a gap or -1 is unknown.

    Raises:
        InputError: if a code has no name.
    """
    codes = np.ma.filled(codes, -1).astype(np.int64)
    if codes.size and not -1 <= codes.min() <= codes.max() < len(names):
        came = int(codes.max() if codes.max() >= len(names) else codes.min())
        reject_file(path, f"must hold codes of its {len(names)} names in {name!r}", repr(came))
    return text_array([str(n) for n in names], codes)

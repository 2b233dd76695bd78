"""Label columns in one of three forms: integers, floats, text. Unknown is -1, NaN, ""."""

import numbers
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.data.labels import UNKNOWN
from kerasmlp.utils.checks import reject_file

MAX_AGE_YEARS = 130


def as_column(name: Any, key: str, values: Sequence | np.ndarray, rows: int) -> np.ndarray:
    """Checks one label column, also against what its name means.

    Raises:
        InputError: naming the file, what was expected and what came.

    Example:

    >>> as_column("a.h5", "group", [7.0, None], 2), as_column("a.h5", "race", ["x", None], 2)
    (array([ 7, -1]), array(['x', ''], dtype='<U1'))
    """
    column = plain_column(name, key, values, rows)
    text = column.dtype.kind == "U"
    if text and key in ("age_years", "gender", "fold"):
        reject_file(
            name, f"must hold numbers in label {key!r}", f"text, {column[0].item()!r} first"
        )
    if key == "age_years":
        column = column.astype(np.float32)
        bad = (column < 0) | (column > MAX_AGE_YEARS)
        _reject_rows(name, key, f"ages of 0 to {MAX_AGE_YEARS} years, or NaN", column, bad)
    elif key == "gender":
        bad = (column != UNKNOWN) & (column != 0) & (column != 1)
        _reject_rows(name, key, "0 (male), 1 (female) or -1 (unknown)", column, bad)
        column = column.astype(np.int8)
    elif key in ("fold", "group") and column.dtype.kind == "f":
        whole, bad = whole_numbers(column)
        _reject_rows(name, key, "whole numbers or text", column, bad)
        column = whole
    return column


def whole_numbers(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Floats as integers, -1 where nothing is known, and the mask of those that are none."""
    whole = np.where(np.isnan(column), UNKNOWN, column).astype(np.float64)
    bad = ~(np.abs(whole) < 2**53) | (whole != np.rint(whole))
    return np.where(bad, UNKNOWN, whole).astype(np.int64), bad


def way_to_utf8(path: Any) -> str:
    """What to do with a table of another encoding; "" for other files, which are no text.

    Example:

    >>> way_to_utf8("faces.csv.gz"), way_to_utf8("faces.h5")
    (' (save it as UTF-8, or by `iconv -f latin1 -t utf8`)', '')
    """
    table = {".csv", ".tsv"} & {suffix.lower() for suffix in Path(str(path)).suffixes}
    return " (save it as UTF-8, or by `iconv -f latin1 -t utf8`)" if table else ""


def plain_column(name: Any, key: str, values: Sequence | np.ndarray, rows: int) -> np.ndarray:
    """Brings one label column into one of the three forms, whatever it means."""
    if not isinstance(key, str) or key.strip(". ") == "" or "/" in key or "\0" in key:
        reject_file(name, "must hold labels with names that are words without '/'", f"{key!r}")
    column = values if isinstance(values, np.ndarray) else np.asarray(_listed(values))
    column = column.astype(object) if column.dtype.kind == "T" else column
    came = column.dtype
    if column.shape != (rows,):
        reject_file(name, f"must hold {rows} values of label {key!r}", f"shape {column.shape}")
    try:
        if column.dtype.kind == "O":
            column = _from_objects(column)
        if column is not None and column.dtype.kind == "S":
            column = decode_text(column)
    except UnicodeDecodeError:
        requirement = f"must hold UTF-8 text in label {key!r}{way_to_utf8(name)}"
        reject_file(name, requirement, "other bytes, as of Latin-1")
    if column is None or column.dtype.kind not in "iufbU":
        reject_file(name, f"must hold numbers or text in label {key!r}", f"dtype {came}")
    column = column.astype(column.dtype.newbyteorder("="), copy=False)
    if came.kind in "OU" and column.dtype.kind == "U":  # what was decoded here is valid
        codes = np.ascontiguousarray(column).view(np.uint32)
        bad = ((codes >= 0xD800) & (codes < 0xE000)).reshape(rows, -1).any(axis=1)
        _reject_rows(name, key, "valid Unicode text", column, bad)
    return column.astype(np.int8) if column.dtype.kind == "b" else column


def _listed(values: Sequence) -> Any:
    """A list as it is, unless numpy would write None or NaN as the words 'None' and 'nan'."""
    values = list(values)
    uniform = len({type(v) for v in values}) <= 1 and not any(v is None for v in values)
    if uniform or all(isinstance(v, numbers.Number) for v in values):
        return values
    objects = np.empty(len(values), object)
    objects[:] = values
    return objects


def _from_objects(column: np.ndarray) -> np.ndarray | None:
    values = [None if _is_gap(v) else v for v in column]
    known = [v for v in values if v is not None]
    if known and all(isinstance(v, bool | np.bool_) for v in known):
        return np.array([UNKNOWN if v is None else int(v) for v in values], np.int8)
    if (
        known
        and all(isinstance(v, numbers.Integral) for v in known)
        and max(map(abs, known)) >= 2**53
    ):
        return np.array(["" if v is None else str(v) for v in values])  # a float would merge some
    if all(isinstance(v, numbers.Real) for v in known):
        return np.array([np.nan if v is None else float(v) for v in values])
    if not all(isinstance(v, str | bytes) for v in known):
        return None
    texts = ("" if v is None else v.decode() if isinstance(v, bytes) else v for v in values)
    return np.array(list(texts), dtype=str)


def _is_gap(value: Any) -> bool:
    """None, NaN, or what pandas has for them, which is not imported to find out."""
    nan = isinstance(value, float | np.floating) and value != value
    return value is None or nan or type(value).__name__ in ("NAType", "NaTType")


def decode_text(column: np.ndarray) -> np.ndarray:
    """Decodes UTF-8 bytes to text; ASCII, the common case, twenty times faster than numpy does."""
    width = column.dtype.itemsize
    codes = np.ascontiguousarray(column).view(np.uint8).reshape(len(column), width)
    if codes.max(initial=0) < 128:
        return codes.astype(np.uint32).view(f"U{width}").reshape(len(column))
    return np.strings.decode(column, "utf-8")


def joined_column(
    names: Sequence, key: str, parts: Sequence[np.ndarray | None], rows: Sequence[int]
) -> np.ndarray:
    """One label of several stores in one kind, with every value kept; None is unknown throughout.

    Raises:
        InputError: if kinds differ so that joining them would change a value.

    Example:

    >>> joined_column("ab", "score", [np.array([3, -1]), np.array([0.5])], [2, 1])
    array([3. , nan, 0.5])
    """
    present = [part for part in parts if part is not None]
    kinds = {part.dtype.kind for part in present}
    signed = len(present) < len(parts) or "i" in kinds
    unknown = ("", str) if "U" in kinds else (UNKNOWN, np.int8)
    unknown = (np.nan, np.float16) if "f" in kinds else unknown  # the narrowest: others widen it
    joined = []
    for name, part, count in zip(names, parts, rows, strict=True):
        if part is None:
            part = np.full(count, *unknown)
        elif (part.dtype.kind == "U") != (present[0].dtype.kind == "U"):
            words = ("text", "numbers")
            expected, came = words[part.dtype.kind == "U"], words[part.dtype.kind != "U"]
            reject_file(
                name, f"must hold {expected} in label {key!r} as others do, or go without it", came
            )
        elif part.dtype.kind in "iu" and "f" in kinds:
            _reject_large(name, key, part, 2**53, "that fractions can stand beside")
            part = np.where(part == UNKNOWN, np.nan, part.astype(np.float64))
        elif part.dtype == np.uint64 and signed:
            _reject_large(name, key, part, 2**63, "that unknown or negative ones can stand beside")
            part = part.astype(np.int64)
        joined.append(part)
    return np.concatenate(joined)


def _reject_large(name: Any, key: str, column: np.ndarray, limit: int, which: str) -> None:
    bad = (column >= limit) | (column <= -limit) if limit < 2**63 else column >= np.uint64(limit)
    _reject_rows(name, key, f"whole numbers below {limit:,}, {which}", column, bad)


def _reject_rows(name: Any, key: str, expected: str, column: np.ndarray, bad: np.ndarray) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        others = int(bad.sum()) - 1
        reject_file(
            name,
            f"must hold {expected}, in label {key!r}",
            f"{column[row].item()!r} in row {row}"
            + (f" and {others} other rows" if others else ""),
        )

"""Vectors written into cells: JSON, what NumPy prints, bytes, lists → one array of rows."""

import json
import re
from collections.abc import Sequence

import numpy as np

_NUMBERS = re.compile(r"[\s\d.,;+\-eE]*")
_CALL = re.compile(r"(?:np\.|numpy\.|torch\.)?(?:array|tensor)\(")
_FLOATS = {"float32": "<f4", "float16": "<f2", "float64": "<f8"}
_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")


class UnreadCells(Exception):
    """Cells that hold no vectors of one width, and why."""


def rows_of(cells: np.ndarray) -> np.ndarray:
    """One row per cell, as floats.

    Raises:
        UnreadCells: naming the first row that cannot be read.

    Example:

    >>> rows_of(np.array(["[0.5, 1]", "[0.25 2.]"]))
    array([[0.5 , 1.  ],
           [0.25, 2.  ]])
    """
    if cells.dtype.kind in "SV":
        width = cells.dtype.itemsize
        cells = np.ascontiguousarray(cells)
        raw = [bytes(row) for row in cells.view(np.uint8).reshape(len(cells), width)]
    else:
        raw = cells.tolist()
    if not raw:
        raise UnreadCells("no rows")
    if all(isinstance(cell, bytes) for cell in raw):
        return _from_bytes(raw)
    if all(isinstance(cell, np.ndarray | list) for cell in raw):
        return _stacked([np.asarray(cell) for cell in raw])
    return _stacked([_from_text(cell, row) for row, cell in enumerate(raw)])


def looks_like_vectors(cells: np.ndarray) -> bool:
    """Whether the first cell that holds anything holds at least three numbers and nothing else.

    Whole numbers without brackets may be a telephone number or a date.
    """
    first = next((c for c in cells[:1000] if c is not None and len(c)), "")
    if isinstance(first, np.ndarray):
        return True
    text = first.decode("latin-1") if isinstance(first, bytes) else str(first)
    if not re.search(r"[.eE\[(]", text):
        return False
    try:
        return _from_text(text, 0).size >= 3
    except UnreadCells:
        return "..." in text


def _stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        other = next(k for k, row in enumerate(rows) if row.shape != rows[0].shape)
        raise UnreadCells(f"{rows[0].size} numbers in row 0, {rows[other].size} in row {other}")
    return np.stack(rows)


def _from_text(text: object, row: int) -> np.ndarray:
    if not isinstance(text, str) or not text.strip():
        raise UnreadCells(f"nothing in row {row}")
    inner = text.strip()
    call = _CALL.match(inner)
    if call and inner.endswith(")"):
        inner = inner[call.end() : -1]
        if "=" in inner:  # dtype=float32, device='cpu'
            inner = inner[: max(inner.rfind(",", 0, inner.index("=")), 0)]
        inner = inner.strip()
    if "..." in inner:
        raise UnreadCells(f"numbers that NumPy left out when it printed row {row} ('...')")
    opened, closed = inner[:1] in "[(", inner[-1:] in "])"
    if opened != closed:
        raise UnreadCells(f"a cut-off text in row {row}: {inner[-20:]!r}")
    while inner[:1] + inner[-1:] in ("[]", "()"):
        inner = inner[1:-1].strip()
    if not inner or not _NUMBERS.fullmatch(inner):
        raise UnreadCells(f"text that is no list of numbers in row {row}: {text[:40]!r}")
    try:
        if ";" in inner:
            parts = [part.strip() for part in inner.split(";")]
            commas = all(_DECIMAL_COMMA.fullmatch(p) or "," not in p for p in parts)
            return np.array([p.replace(",", ".") if commas else p for p in parts], np.float64)
        if "," not in inner:
            return np.array(inner.split(), np.float64)
        if re.search(r",\s", inner) and re.search(r",\S", inner):
            raise UnreadCells(f"commas of two kinds in row {row}: {text[:40]!r}")
        if not opened and not re.search(r"[.eE]|,\s", inner):
            raise UnreadCells(f"commas that may be decimal ones in row {row}: {text[:40]!r}")
        return _between_commas(inner)
    except (ValueError, RecursionError):
        raise UnreadCells(f"text that is no list of numbers in row {row}: {text[:40]!r}") from None


def _between_commas(inner: str) -> np.ndarray:
    try:
        return np.array(json.loads(f"[{inner}]"), np.float64)
    except ValueError:  # JSON knows no `1.` and `.5`, which Python and NumPy write
        return np.array([_one(part) for part in inner.split(",")], np.float64)


def _one(part: str) -> float:
    if len(part.split()) != 1:
        raise ValueError(part)
    return float(part)


def _from_bytes(raw: Sequence[bytes]) -> np.ndarray:
    """Buffers of floats, if they can be of one kind only; or text."""
    try:
        texts = [cell.rstrip(b"\0").decode("ascii") for cell in raw]
        if all(_NUMBERS.fullmatch(t.strip().strip("[]()")) for t in texts):
            return _stacked([_from_text(text, row) for row, text in enumerate(texts)])
    except UnicodeDecodeError:
        pass
    lengths = {len(cell) for cell in raw}
    if len(lengths) > 1:
        raise UnreadCells(f"bytes of several lengths ({min(lengths)} to {max(lengths)})")
    (length,) = lengths
    together = b"".join(raw)
    likely, unit = {}, {}
    for name, dtype in _FLOATS.items():
        size = np.dtype(dtype).itemsize
        if length < 2 * size or length % size:
            continue
        values = np.frombuffer(together, dtype).reshape(len(raw), -1)
        with np.errstate(all="ignore"):
            wide = values.astype(np.float64)
            middling = np.isfinite(wide) & (np.abs(wide) < 1e4)
            if middling.all() and (np.abs(wide) > 1e-7).mean() > 0.5:
                likely[name] = values
            if np.isfinite(wide).all() and (np.abs(np.vecdot(wide, wide) - 1) < 0.02).all():
                unit[name] = values
    found = unit if len(unit) == 1 else likely
    if len(found) != 1 or (found is likely and "float16" in found):  # many bytes look like halves
        kinds = " or ".join(found) or "nothing that is known"
        raise UnreadCells(f"{length} bytes per row, which may be {kinds}")
    return next(iter(found.values()))


def numbers_of(texts: np.ndarray) -> np.ndarray | None:
    """Text as floats if each is a number; one with a comma is surely no thousand.

    Example:

    >>> numbers_of(np.array(["0,25", "-1,5"])), numbers_of(np.array(["1,234"]))
    (array([ 0.25, -1.5 ]), None)
    """
    values = [str(text).strip() for text in texts.tolist()]
    sure = re.compile(r"[+-]?(?:0,\d+|\d+,(?:\d{1,2}|\d{4,}))(?:[eE][+-]?\d+)?")
    plain = re.compile(r"[+-]?\d+")
    if all(_PLAIN.fullmatch(v) for v in values):
        return np.array(values, np.float64)
    if not all(_DECIMAL_COMMA.fullmatch(v) or plain.fullmatch(v) for v in values):
        return None
    if not any(sure.fullmatch(v) for v in values):
        return None
    return np.array([v.replace(",", ".") for v in values], np.float64)

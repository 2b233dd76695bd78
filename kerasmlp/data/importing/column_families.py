"""Embeddings in pieces: a column per dimension or an array per row, never one for the other."""

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasmlp.data.importing.import_notes import ImportNotes
from kerasmlp.data.importing.vector_cells import numbers_of
from kerasmlp.data.sources.source import DROPPED, SourceArrays
from kerasmlp.utils.checks import reject_file

_NUMBER = re.compile(r"(?:[\[(]|(?<!\d))(\d{1,9})[\])]?\Z")
_POSITIONAL = "arr_"
_DIMENSIONS = ("e", "x", "f", "emb", "feat", "feats", "feature", "features", "dim")
"""Names that number the dimensions, so that arrays of such names are columns, not rows."""
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Family:
    """Columns or arrays that differ in a number at their end.

    Attributes:
        prefix: What precedes the number.
        columns: Their names in the order of the numbers.
        missing: What is wrong with their numbers, or None.
        by_user: Whether the user listed them.
    """

    prefix: str
    columns: tuple[str, ...]
    missing: str | None = None
    by_user: bool = False

    @property
    def name(self) -> str:
        """The prefix as a word: `feat` for feat_0."""
        return _word(self.prefix)

    @property
    def positional(self) -> bool:
        """Whether they are arrays without a name, as `np.savez(f, *rows)` writes them."""
        return self.prefix == _POSITIONAL

    @property
    def whole(self) -> bool:
        return self.missing is None

    def __str__(self) -> str:
        return f"{self.columns[0]} to {self.columns[-1]}"

    def stacked(
        self, path: Any, source: SourceArrays, labels: Mapping[str, Any], notes: ImportNotes
    ) -> np.ndarray:
        """The embeddings that the pieces make up.

        Raises:
            InputError: if one is missing, is no number, or rows cannot be told from columns.
        """
        if self.missing is not None:
            expected = f"must hold the columns {self}"
            reject_file(path, expected, self.missing)
        parts = [source.columns[name].reshape(-1) for name in self.columns]
        lengths = {len(part) for part in parts}
        if len(lengths) > 1:
            came = f"{min(lengths)} to {max(lengths)} values"
            reject_file(path, f"must hold arrays of one length as {self}", came)
        rows = not (source.table or self.by_user) and self._are_rows(path, source, lengths, notes)
        parts = [_numbers(path, name, part) for name, part in zip(self.columns, parts, strict=True)]
        embeddings = _rows(parts) if rows else _transposed(parts)
        dtype = ", ".join(dict.fromkeys(str(part.dtype) for part in parts))
        notes.embedding = {"from": str(self), "shape": list(embeddings.shape), "dtype": dtype}
        return embeddings

    def _are_rows(
        self, path: Any, source: SourceArrays, lengths: set[int], notes: ImportNotes
    ) -> bool:
        """Whether each array is one row; other arrays of the file tell, else it is refused."""
        (length,), count = lengths, len(self.columns)
        others = {
            len(v) for k, v in source.columns.items() if v.ndim == 1 and k not in self.columns
        }
        one_per_row = count in others
        one_per_value = length in others
        maybe_rows = self.positional or (source.items and self.name not in _DIMENSIONS)
        floats = all(source.columns[name].dtype.kind == "f" for name in self.columns)
        if self.positional and one_per_value and not one_per_row:
            came = f"{count} arrays of {length} values, and labels of {length}: transposed?"
            reject_file(path, f"must hold an array per row as {self}", came)
        if self.positional and not floats:
            reject_file(path, "must hold embeddings as one array (rows, width)", f"{self}")
        told = count != length and one_per_row != one_per_value
        if told and (maybe_rows or one_per_value):
            return one_per_row
        if not self.positional:
            came = f"{self}, {count} arrays of {length} values: {count} rows, or columns?"
            reject_file(path, "must hold embeddings as one array (rows, width)", came)
        notes.doubt(f"took {self} as one row each: {count} rows, {length} wide")
        return True


def _word(prefix: str) -> str:
    return prefix.lower().strip("_-. ")


def _rows(parts: list[np.ndarray]) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # the store says which row is infinite
        return np.stack(parts).astype(_dtype(parts), copy=False)


def _transposed(columns: list[np.ndarray]) -> np.ndarray:
    """Columns side by side, a few rows at a time, which stay in the cache meanwhile."""
    embeddings = np.empty((len(columns[0]), len(columns)), _dtype(columns))

    def fill(start: int) -> None:
        block = slice(start, start + _ROWS_AT_ONCE)
        embeddings[block] = _rows([column[block] for column in columns]).T

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(fill, range(0, len(embeddings), _ROWS_AT_ONCE)):
            pass
    return embeddings


def _dtype(parts: list[np.ndarray]) -> np.dtype:
    half = all(part.dtype == np.float16 for part in parts)
    return np.dtype(np.float16 if half else np.float32)


def _numbers(path: Any, name: str, part: np.ndarray) -> np.ndarray:
    if part.dtype.kind in "USO":
        values = numbers_of(part)
        if values is None:
            reject_file(path, "must hold numbers as embeddings", f"text in column {name!r}")
        return values
    if np.ma.isMaskedArray(part):
        return part.astype(np.float32).filled(np.nan)
    return part


def families_of(
    columns: Mapping[str, np.ndarray], left_out: Mapping[str, str] | None = None
) -> list[Family]:
    """All runs of at least two columns that differ in a number, whatever stands before it.

    A member that was not read, or holds more than a number per row, stays a
    member: without it the others would be a narrower embedding.

    Example:

    >>> made = families_of({name: np.zeros(3) for name in ("f_0", "F1", "age", "f_2")})
    >>> made[0].columns, made[0].missing
    (('f_0', 'F1', 'f_2'), None)
    """
    unread = {k: why for k, why in (left_out or {}).items() if why != DROPPED}
    unread |= {k: f"shape {v.shape}" for k, v in columns.items() if v.size != len(v)}
    found: dict[str, list[tuple[int, str]]] = {}
    for key in (k for k in columns if k not in unread):
        if number := _NUMBER.search(key):
            found.setdefault(_word(key[: number.start()]), []).append((int(number[1]), key))
    for key in unread:
        for name in {key, key.rpartition(".")[2]}:  # a field of a table comes with its table
            number = _NUMBER.search(name)
            if number and (word := _word(name[: number.start()])) in found:
                found[word].append((int(number[1]), key))
                break
    return [_family(sorted(members), unread) for members in found.values() if len(members) > 1]


def _family(members: list[tuple[int, str]], unread: Mapping[str, str]) -> Family:
    names = tuple(name for _, name in members)
    prefix = names[0][: _NUMBER.search(names[0]).start()]
    first = min(members[0][0], 1)
    missing = next((f"{name!r}, {unread[name]}" for name in names if name in unread), None)
    if missing:
        return Family(prefix, names, missing)
    for expected, (number, name) in enumerate(members, first):
        if number < expected:  # e1 and e01
            missing = f"{name!r} and another column of its number"
        elif number > expected:
            missing = f"no {prefix}{expected}"
        if missing:
            break
    return Family(prefix, names, missing)


def named_columns(path: Any, source: SourceArrays, listed: str) -> Family:
    """The columns that a list names, `e0,e1` or `e0:e127` from one to another in the file's order.

    Raises:
        InputError: if one is not there, or comes twice.

    Example:

    >>> source = SourceArrays({k: np.zeros(1) for k in ("a", "b", "c")}, table=True)
    >>> named_columns("a.csv", source, "c,a:b").columns
    ('c', 'a', 'b')
    """
    order = list(source.columns)
    places = {name: place for place, name in enumerate(order)}
    chosen: list[str] = []
    for part in (p.strip() for p in listed.split(",")):
        ends = [part] if part in places else [end.strip() for end in part.split(":")]
        if len(ends) > 2 or not all(end in places for end in ends):
            came = ", ".join(order[:20]) + (", …" if len(order) > 20 else "")
            reject_file(path, f"must hold the columns {part!r} (--columns)", came)
        first, last = places[ends[0]], places[ends[-1]]
        chosen += order[first : last + 1]
    if len(set(chosen)) != len(chosen) or not chosen:
        reject_file(path, "must be given each column once, in order (--columns)", repr(listed))
    wide = [name for name in chosen if source.columns[name].ndim != 1]
    if wide:
        came = f"{wide[0]!r} of shape {source.columns[wide[0]].shape}"
        reject_file(path, "must hold one number per row in each of --columns", came)
    return Family("", tuple(chosen), by_user=True)

"""Labels that a person has corrected in `suspects.csv`, back into their store."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from kerasmlp.data.labels import (
    GENDER_NAMES,
    UNKNOWN,
    decode_gender,
    is_unknown,
    is_unknown_word,
    repair_age_group,
    unknown_of,
)
from kerasmlp.data.sources.source import text_encoding
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.label_columns import MAX_AGE_YEARS, way_to_utf8
from kerasmlp.utils.checks import reject, reject_column, reject_file
from kerasmlp.utils.files import what_is

NEEDED = ("row", "column", "label", "corrected", "store_digest")
"""Columns of the table that decide what is changed; the others are for the eye."""

OF_NUMBERS = "scaled_residual"
"""A column that tables of numbers and ages have: there `corrected` may be a new value."""

AGE = "age_years"
_MOST = 2**53  # of which floats have each whole number
_MOST_BYTES = 1 << 28
_SEPARATORS = ",;\t"  # of spreadsheets, in several countries


@dataclass(frozen=True)
class Correction:
    """A line of the table whose `corrected` is filled.

    Attributes:
        place: File and line, for an error.
        row: Of the store.
        column: Label that is corrected.
        label: What it is before, in words.
        corrected: What it shall be, in words.
        any_value: Whether that may be a value that no other row has.
    """

    place: str
    row: int
    column: str
    label: str
    corrected: str
    any_value: bool


def relabel(
    store: EmbeddingStore, paths: Sequence[str | os.PathLike]
) -> tuple[EmbeddingStore, dict[str, int]]:
    r"""Returns a store with the labels that a person has corrected, and how many there are.

    Args:
        store: The one that `doctor` looked at, unchanged.
        paths: Tables of `doctor`. A line whose `corrected` is empty changes nothing; one that
            holds `unknown` takes the label away.

    Returns:
        The store, and counts: lines that `changed` a label, that were `confirmed` (corrected to
        what it was), `empty` ones, and lines `of_other_stores`, which are left alone.

    Raises:
        InputError: naming file and line, if a table is none of `doctor`, is of other stores
            alone, or a line does not fit the store or holds no value that the label can have.

    Example:

    >>> import tempfile
    >>> store = EmbeddingStore(np.eye(2), {"gender": [0, 1]})
    >>> table = f"row,column,label,corrected,store_digest\n1,gender,female,male,{store.digest()}"
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     _ = file.write(table), file.flush()
    ...     corrected, counts = relabel(store, [file.name])
    >>> corrected.labels["gender"], counts["changed"]
    (array([0, 0], dtype=int8), 1)
    """
    if not paths:
        reject("paths", "must name one or more tables of `doctor`", list(paths))
    digest = store.digest()
    counts = dict.fromkeys(("changed", "confirmed", "empty", "of_other_stores"), 0)
    columns: dict[str, _Column] = {}
    for path in paths:
        for correction in _read(path, digest, len(store), counts):
            name = correction.column
            if name not in store.labels:
                requirement = f"must name a label of the store ({', '.join(store.labels)})"
                _refuse(correction, requirement, repr(name))
            if name not in columns:
                columns[name] = _Column(name, store.labels[name])
            changed = columns[name].correct(correction)
            counts["changed" if changed else "confirmed"] += 1
    return _renewed(store, columns.values(), paths), counts


def in_words(column: np.ndarray, key: str) -> list[str]:
    """Values of a label as the table has them; what is unknown is empty.

    Example:

    >>> in_words(np.array([0, 1, -1]), "gender"), in_words(np.array([34.0, 2.5]), "age_years")
    (['male', 'female', ''], ['34', '2.5'])
    """
    unknown = is_unknown(column).tolist()
    values = zip(column.tolist(), unknown, strict=True)
    if key == "gender":
        return ["" if nothing else GENDER_NAMES[value] for value, nothing in values]
    if column.dtype.kind == "f":
        texts = (f"{value:.9g}" for value in column.astype(np.float64).tolist())
        return ["" if nothing else text for text, nothing in zip(texts, unknown, strict=True)]
    return ["" if nothing else str(value) for value, nothing in values]


def _read(
    path: str | os.PathLike, digest: str, rows: int, counts: dict[str, int]
) -> Iterator[Correction]:
    """Yields the corrections of one table that are of this store, and counts the other lines."""
    reader, separator = _table(path)
    own = False
    for number, line in enumerate(_lines(path, reader), 2):
        place = f"{path}, line {number}"
        if None in line or None in line.values():
            reject_file(place, "must have as many cells as the first line", "more or fewer")
        if line["store_digest"].strip().lower() != digest:
            counts["of_other_stores"] += 1
            continue
        own = True
        if not line["corrected"].strip():
            counts["empty"] += 1
            continue
        try:
            row = int(line["row"])
        except ValueError:
            row = -1
        if not 0 <= row < rows:
            reject_file(place, f"must name a row from 0 to {rows - 1}", repr(line["row"][:50]))
        commas = separator != "," and OF_NUMBERS in line
        texts = (line[name].strip() for name in ("label", "corrected"))
        before, after = (text.replace(",", ".") if commas else text for text in texts)
        yield Correction(place, row, line["column"], before, after, OF_NUMBERS in line)
    if not own:
        requirement = f"must be of this store, whose digest is {digest[:12]}…"
        reject_file(path, requirement, "a table of another store, or of this one before a change")


def _lines(path: str | os.PathLike, reader: csv.DictReader) -> Iterator[dict]:
    try:
        yield from reader
    except csv.Error as error:
        reject_file(path, "must be a table of `doctor`", f"a damaged one ({error})")


def _table(path: str | os.PathLike) -> tuple[csv.DictReader, str]:
    if not Path(path).is_file():
        reject_file(path, "must be a table of `doctor`", what_is(path))
    with open(path, "rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        reject_file(path, f"must have at most {_MOST_BYTES} bytes", "more")
    try:
        text = content.decode(text_encoding(content[:4]))
    except UnicodeDecodeError:
        way_out = way_to_utf8(path)
        reject_file(path, f"must be text in UTF-8 or UTF-16{way_out}", "other bytes")
    head = text.partition("\n")[0].rstrip("\r")
    for separator in _SEPARATORS:
        names = next(csv.reader([head], delimiter=separator), [])
        if set(NEEDED) <= set(names):
            break
    else:
        requirement = f"must be a table of `doctor` with the columns {', '.join(NEEDED)}"
        reject_file(path, requirement, f"{head[:80]!r}")
    if len(set(names)) < len(names):
        reject_file(path, "must name each column once", f"{head[:80]!r}")
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=separator), separator


class _Column:
    """A label of the store while it is corrected."""

    def __init__(self, name: str, values: np.ndarray):
        self.name, self.values, self.kind = name, values, values.dtype.kind
        if self.kind == "u" and values.max() >= 1 << 63:
            requirement = "must hold whole numbers below 2**63, to be corrected"
            reject_column(name, requirement, values.max().item())
        self.changes: dict[int, Any] = {}
        self._places: dict[int, str] = {}
        known = np.unique(values[~is_unknown(values)])
        words = in_words(known, name)
        self._words = dict(zip(map(str.strip, words), known.tolist(), strict=True))
        self._words |= dict(zip(words, known.tolist(), strict=True))

    def correct(self, correction: Correction) -> bool:
        """Takes one over; returns whether it says something else than the store."""
        row = correction.row
        if (place := self._places.get(row)) is not None:
            _refuse(correction, f"must correct a row once, as {place} does", f"row {row} again")
        self._places[row] = correction.place
        before = self.values[row].item()
        came = in_words(self.values[row : row + 1], self.name)[0]
        if not _means(correction.label, came):
            requirement = f"must have the label that row {row} of the store has ({came or 'none'})"
            _refuse(correction, requirement, repr(correction.label))
        value = self._value(correction)
        if value == before or (value != value and before != before):
            return False
        self.changes[row] = value
        return True

    def _value(self, correction: Correction) -> Any:
        """What the label shall be, as the column holds it."""
        text = correction.corrected
        for name in (text, repair_age_group(text)):
            if name in self._words:
                return self._words[name]
        if is_unknown_word(text):
            return unknown_of(self.kind)
        if self.name == "gender" and (gender := decode_gender(text, "words")) is not None:
            return int(gender)
        if self.kind == "U" or not (correction.any_value or self.name == AGE):
            words = list(dict.fromkeys(map(str.strip, self._words)))
            listed = ", ".join(words[:20]) + ", …" * (len(words) > 20)
            _refuse(correction, f"must be corrected to {listed}, or `unknown`", repr(text))
        value, limit = _number(text), MAX_AGE_YEARS if self.name == AGE else _MOST
        whole = value is not None and value == int(value)
        if value is None or not (0 if self.name == AGE else -limit) <= value <= limit:
            requirement = f"must be corrected to a number up to {limit:,}, or `unknown`"
            _refuse(correction, requirement, repr(text))
        if self.kind != "f" and not (whole and value != UNKNOWN):
            requirement = "must be corrected to a whole number as others of its label"
            _refuse(correction, requirement, repr(text))
        return value if self.kind == "f" else int(value)

    def corrected(self) -> np.ndarray:
        """The column as it is then."""
        column = self.values.astype(np.int64) if self.kind in "iu" else self.values.copy()
        column[list(self.changes)] = list(self.changes.values())
        return column


def _renewed(
    store: EmbeddingStore, columns: Iterable[_Column], paths: Sequence[str | os.PathLike]
) -> EmbeddingStore:
    """The store with other labels, which says so."""
    columns = [column for column in columns if column.changes]
    found = store.with_labels(store.labels | {c.name: c.corrected() for c in columns})
    before = (store.info.import_report or {}).get("sources", [])
    said = {
        "file": ", ".join(Path(path).name for path in paths)[:200],
        "relabelled": {column.name: len(column.changes) for column in columns},
    }
    sources = [*(before if isinstance(before, list) else [before]), said]
    found.info = replace(store.info, import_report={"sources": sources})
    return found


def _means(text: str, expected: str) -> bool:
    """Whether a cell, which a spreadsheet may have written anew, says the same."""
    if expected.strip() in (text, repair_age_group(text)):
        return True
    numbers = _number(text), _number(expected)
    return None not in numbers and np.isclose(*numbers, rtol=1e-6, atol=0)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _refuse(correction: Correction, requirement: str, came: str) -> NoReturn:
    reject_file(correction.place, requirement, came[:100])

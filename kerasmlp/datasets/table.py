"""A CSV table of images and their labels."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from kerasmlp.checks import reject_file
from kerasmlp.datasets.records import DUPLICATE_ROW, MALFORMED_ROW, MISSING_IMAGE, Record
from kerasmlp.files import what_is
from kerasmlp.labels import Gender, decode_gender, parse_age_years, repair_age_group
from kerasmlp.stores.label_columns import MAX_AGE_YEARS

_UNKNOWN = ("", "nan", "none", "null", "na", "unknown", "u", "?", "-1")
_ALIASES = {"file": "path", "image": "path", "filename": "path", "age_years": "age"}
_OURS = ("det_score",)


def read(source: str | os.PathLike) -> list[Record]:
    """Reads a table with the column `path` and, where known, `age`, `age_group`, `gender`,
    `fold`, `group`; further columns are carried as text.

    Paths count from the table's folder. Labels that are missing are unknown;
    labels that make no sense are an error, before any image is touched.

    Raises:
        InputError: naming the line and column.
    """
    table = Path(source)
    records: list[Record] = []
    seen: set[str] = set()
    for line, row in rows(table, ("path",), _ALIASES):
        key = (row or {}).get("path", "").strip()
        if row is None or not key:
            name = key or f"{table.name}:{line}"
            records.append(Record(key=name, image=None, removed=MALFORMED_ROW))
            continue
        image = table.parent / key
        removed = None
        if key in seen:
            removed = DUPLICATE_ROW
        elif not image.is_file():
            removed = MISSING_IMAGE
        seen.add(key)
        place = f"{table}:{line}"
        records.append(
            Record(
                key=key,
                image=image,
                age_years=_age(place, row.pop("age", "")),
                age_group=_text(repair_age_group(row.pop("age_group", ""))),
                gender=_gender(place, row.pop("gender", "")),
                fold=_fold(place, row.pop("fold", "")),
                group=_text(row.pop("group", "")),
                extra={k: v for k, v in row.items() if k != "path"},
                removed=removed,
            )
        )
    return records


def rows(
    table: Path, required: Sequence[str], aliases: dict[str, str] | None = None, **dialect: object
) -> Iterator[tuple[int, dict[str, str] | None]]:
    """Yields line number and columns of each row, None for a row with too few or too many."""
    if not table.is_file():
        reject_file(table, "must be a table", what_is(table))
    aliases = aliases or {}
    with open(table, newline="", encoding="utf-8-sig", errors="backslashreplace") as file:
        reader = csv.reader(file, **dialect)
        try:
            header = [aliases.get(n, n) for n in (name.strip() for name in next(reader, []))]
            _check_header(table, header, required)
            for values in reader:
                if not values:
                    continue
                fits = len(values) == len(header)
                pairs = zip(header, values, strict=False)
                yield reader.line_num, {k: v for k, v in pairs if k} if fits else None
        except csv.Error as error:
            reject_file(f"{table}:{reader.line_num}", "must be a readable table", f"{error}")


def _check_header(table: Path, header: list[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in header]
    if missing:
        reject_file(table, f"must have the columns {', '.join(required)}", f"{header}")
    named = [name for name in header if name]
    bad = [n for n in named if named.count(n) > 1 or "/" in n or n in _OURS or n == "."]
    if bad:
        reject_file(
            table, "must have columns of different names, without '/' and 'det_score'", f"{bad}"
        )


def _text(value: str) -> str | None:
    value = value.strip()
    return None if value.lower() in _UNKNOWN else value


def _age(place: str, value: str) -> float | None:
    if _text(value) is None:
        return None
    age_years = parse_age_years(value)
    if age_years is None or age_years > MAX_AGE_YEARS:
        reject_file(
            place, f"must hold an age of 0 to {MAX_AGE_YEARS} years or nothing", repr(value)
        )
    return age_years


def _gender(place: str, value: str) -> Gender | None:
    if _text(value) is None:
        return None
    gender = decode_gender(value, "words")
    if gender is None:
        reject_file(
            place,
            "must hold 'male', 'female' or nothing as gender (the numbers 0 and 1 mean "
            "different things in different data sets)",
            repr(value),
        )
    return gender


def _fold(place: str, value: str) -> int | None:
    if _text(value) is None:
        return None
    if not value.strip().isdecimal():
        reject_file(place, "must hold a whole number >= 0 or nothing as fold", repr(value))
    return int(value)

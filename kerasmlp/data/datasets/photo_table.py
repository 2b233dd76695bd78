"""A CSV table of images and their labels."""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from kerasmlp.data.datasets.records import (
    DUPLICATE_ROW,
    MALFORMED_ROW,
    MISSING_IMAGE,
    Record,
    first_reason,
    printable,
)
from kerasmlp.data.labels import (
    UNCLEAR_COMMA,
    Gender,
    decimal_comma,
    decode_gender,
    is_unknown_word,
    parse_age_years,
    repair_age_group,
    says_nothing,
)
from kerasmlp.data.sources.source import text_encoding
from kerasmlp.data.stores.label_columns import MAX_AGE_YEARS
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import what_is

_NAMES = {
    **{name: name for name in ("path", "age", "age_group", "gender", "fold", "group")},
    **dict.fromkeys(("file", "image", "filename", "file_name", "image_path"), "path"),
    "age_years": "age",
}
_OURS = ("det_score",)
_DELIMITERS = ",;\t|"


def read(source: str | os.PathLike) -> list[Record]:
    """Reads a table with the column `path` and, where known, `age`, `age_group`, `gender`,
    `fold`, `group`; further columns are carried as text.

    Columns are parted by commas, semicolons, tabs or bars; capitals in the
    names above do not matter. Paths count from the table's folder, and may
    have backslashes. Labels that are missing are unknown; labels that make no
    sense are an error, before any image is touched, and so are ages whose comma
    may be a decimal one or part the ends of an interval.

    Raises:
        InputError: naming the line and column.
    """
    table = Path(source)
    records: list[Record] = []
    seen: set[str] = set()
    ages: dict[str, str] = {}
    for line, row in rows(table, ("path",), _NAMES):
        name = (row or {}).get("path", "").strip()
        if row is None or not name:
            key = f"{table.name}:{line}"
            records.append(Record(key=key, image=None, removed=MALFORMED_ROW))
            continue
        name, there = _find(table.parent, name)
        removed = first_reason((name in seen, DUPLICATE_ROW), (not there, MISSING_IMAGE))
        seen.add(name)
        place = f"{table}:{line}"
        ages.setdefault(row.get("age", "").strip(), place)
        row = {k: "" if is_unknown_word(v) else printable(v) for k, v in row.items() if k != "path"}
        records.append(
            Record(
                key=printable(name),
                image=table.parent / name,
                age_years=_age(place, row.pop("age", "")),
                age_group=_text(repair_age_group(row.pop("age_group", ""))),
                gender=_gender(place, row.pop("gender", "")),
                fold=_fold(place, row.pop("fold", "")),
                group=_text(row.pop("group", "")),
                extra=row,
                removed=removed,
            )
        )
    comma = decimal_comma(ages)
    if comma and not comma[1]:
        reject_file(ages[comma[0]], UNCLEAR_COMMA, repr(comma[0]))
    return records


def rows(
    table: Path, required: Sequence[str], names: Mapping[str, str] | None = None, **dialect: object
) -> Iterator[tuple[int, dict[str, str] | None]]:
    """Yields line number and columns of each row, None for a row with too few or too many.

    Bytes that are no UTF-8 come as `os.fsdecode` gives them.

    Args:
        names: From names of columns in small letters to those wanted; others stay.
        dialect: Of `csv.reader`; the delimiter is found where it is not given.
    """
    if not table.is_file():
        reject_file(table, "must be a table", what_is(table))
    names = names or {name: name for name in required}
    with open(table, "rb") as file:
        encoding = text_encoding(file.read(4))
    with open(table, newline="", encoding=encoding, errors="surrogateescape") as file:
        try:
            first = file.readline()
            skipped = first[:4].lower() == "sep="  # how Excel is told of the delimiter
            if skipped:
                dialect, first = {"delimiter": first[4:5], **dialect}, file.readline()
            dialect.setdefault("delimiter", _delimiter(first, required, names))
            reader = csv.reader(chain([first], file), **dialect)
            header = _named(next(reader, []), names)
            _check_header(table, header, required)
            for values in reader:
                if not values:
                    continue
                fits = len(values) == len(header)
                pairs = zip(header, values, strict=False)
                line = reader.line_num + skipped
                yield line, {k: v for k, v in pairs if k} if fits else None
        except (csv.Error, TypeError, UnicodeError) as error:  # TypeError: of the delimiter
            reject_file(table, "must be a readable table", f"{error}")


def _delimiter(header: str, required: Sequence[str], names: Mapping[str, str]) -> str:
    columns = {d: _named(next(csv.reader([header], delimiter=d), []), names) for d in _DELIMITERS}
    fit = [d for d, found in columns.items() if set(required) <= set(found)]
    return max(fit, key=lambda d: len(columns[d]), default=_DELIMITERS[0])


def _named(header: Sequence[str], names: Mapping[str, str]) -> list[str]:
    header = [name.strip() for name in header]
    return [names.get(name.lower().replace(" ", "_"), name) for name in header]


def _find(folder: Path, name: str) -> tuple[str, bool]:
    """The name as it is on this disk, and whether it is there."""
    names = [name]
    if printable(name) != name:  # bytes that are no UTF-8, as Windows writes them
        names.append(os.fsencode(name).decode("cp1252", "replace"))
    names += [n.replace("\\", "/") for n in names if "\\" in n]
    found = next((n for n in names if os.path.isfile(folder / n)), None)
    return (names[-1], False) if found is None else (found, True)


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
    return None if says_nothing(value) else value.strip()


def _age(place: str, value: str) -> float | None:
    if says_nothing(value):
        return None
    age_years = parse_age_years(value)
    if age_years is None or age_years > MAX_AGE_YEARS:
        reject_file(
            place, f"must hold an age of 0 to {MAX_AGE_YEARS} years or nothing", repr(value)
        )
    return age_years


def _gender(place: str, value: str) -> Gender | None:
    if says_nothing(value):
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
    if says_nothing(value):
        return None
    number = value.strip().removesuffix(".0")  # in a column with gaps
    if not number.isdecimal():
        reject_file(place, "must hold a whole number >= 0 or nothing as fold", repr(value))
    return int(number)

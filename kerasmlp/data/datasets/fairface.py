"""FairFace: age group, gender and race in a label table."""

import os
from pathlib import Path

from kerasmlp.data.datasets.photo_table import rows
from kerasmlp.data.datasets.records import (
    DUPLICATE_ROW,
    MALFORMED_ROW,
    MISSING_IMAGE,
    Record,
    first_reason,
    printable,
)
from kerasmlp.data.labels import FAIRFACE_GROUPS, decode_gender, repair_age_group
from kerasmlp.utils.checks import reject_file

_COLUMNS = ("file", "age", "gender", "race")


def read(source: str | os.PathLike) -> list[Record]:
    """Reads one label table, or all `*label*.csv` of a folder.

    There are no years, only age groups; what a spreadsheet did to their names
    is undone. A row whose group or gender is none of FairFace's is malformed.

    Raises:
        InputError: if there is no label table or it lacks a column.
    """
    source = Path(source)
    tables = sorted(source.glob("*label*.csv")) if source.is_dir() else [source]
    if not tables:
        reject_file(source, "must hold FairFace's label table", "no file like *label*.csv")
    records = []
    seen: set[str] = set()
    for table in tables:
        for line, row in rows(table, _COLUMNS):
            record = _record(table, line, row, seen)
            seen.add(record.key)
            records.append(record)
    return records


def _record(table: Path, line: int, row: dict[str, str] | None, seen: set[str]) -> Record:
    if row is None or not row["file"].strip():
        return Record(key=f"{table.name}:{line}", image=None, removed=MALFORMED_ROW)
    name = row["file"].strip()
    key = printable(name)
    group = repair_age_group(row["age"])
    gender = decode_gender(row["gender"], "words")
    image = table.parent / name
    return Record(
        key=key,
        image=image,
        age_group=group,
        gender=gender,
        extra={"race": printable(row["race"].strip())},
        removed=first_reason(
            (group not in FAIRFACE_GROUPS or gender is None, MALFORMED_ROW),
            (key in seen, DUPLICATE_ROW),
            (not image.is_file(), MISSING_IMAGE),
        ),
    )

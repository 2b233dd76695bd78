"""UTKFace: age, gender and race are in the file's name."""

import os
import re
from dataclasses import replace
from pathlib import PurePosixPath

from kerasmlp.data.datasets.photos import IMAGE_SUFFIXES
from kerasmlp.data.datasets.records import MALFORMED_NAME, Record, records_below
from kerasmlp.data.labels import decode_gender
from kerasmlp.data.stores.label_columns import MAX_AGE_YEARS

RACES = ("White", "Black", "Asian", "Indian", "other")

_NAME = re.compile(
    rf"(\d{{1,3}})_([01])_([0-4])_\d+({'|'.join(map(re.escape, IMAGE_SUFFIXES))})?(\.chip\.jpg)?",
    re.IGNORECASE | re.ASCII,
)


def parse_name(name: str) -> dict | None:
    """Labels in the name of a file, or None where it is malformed.

    Example:

    >>> parse_name("25_1_4_00017.jpg")
    {'age_years': 25.0, 'gender': <Gender.FEMALE: 1>, 'race': 'other'}
    """
    match = _NAME.fullmatch(name)
    if match is None or int(match[1]) > MAX_AGE_YEARS:
        return None
    gender, race = decode_gender(match[2], "utkface"), RACES[int(match[3])]
    return {"age_years": float(match[1]), "gender": gender, "race": race}


def read(source: str | os.PathLike) -> list[Record]:
    """Reads the names `<age>_<gender>_<race>_<time>.jpg[.chip.jpg]` below a folder.

    The time is digits; other suffixes of images will do, or none.

    Names that lack a part or have one twice are malformed: which part is
    missing cannot be told from the rest.
    """
    records = records_below(source, "the folder of UTKFace")
    return [r if r.removed else labelled(r) for r in records]


def labelled(record: Record) -> Record:
    """The record with the labels of its name, or removed."""
    labels = parse_name(PurePosixPath(record.key).name)
    if labels is None:
        return replace(record, removed=MALFORMED_NAME)
    return replace(record, extra={"race": labels.pop("race")}, **labels)

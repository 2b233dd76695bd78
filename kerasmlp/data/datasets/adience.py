"""Adience: photos from Flickr with age group and gender, in five folds."""

import csv
import os
from pathlib import Path

import numpy as np

from kerasmlp.data.datasets.photo_table import rows
from kerasmlp.data.datasets.records import (
    MALFORMED_ROW,
    MISSING_IMAGE,
    NO_AGE,
    NO_GENDER,
    Record,
    check_folder,
    first_reason,
    printable,
)
from kerasmlp.data.labels import ADIENCE_CENTERS, ADIENCE_GROUPS, decode_gender, parse_age_years
from kerasmlp.utils.checks import reject_file

NUM_FOLDS = 5
_COLUMNS = ("user_id", "original_image", "face_id", "age", "gender")


def read(source: str | os.PathLike) -> list[Record]:
    """Reads the five fold files; images lie in `aligned/` or `faces/`.

    The age is the mean of the numbers given, the group the one with the
    nearest centre, the younger one in a tie. Photos of one user are one
    group: Adience's own folds do not split them either.

    Raises:
        InputError: if a fold file is missing or lacks a column.
    """
    folder = check_folder(source, "the folder of Adience")
    files = [folder / f"fold_{fold}_data.txt" for fold in range(NUM_FOLDS)]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        reject_file(folder, f"must hold the {NUM_FOLDS} fold files", f"no {', '.join(missing)}")
    return [
        _record(folder, path, fold, line, row)
        for fold, path in enumerate(files)
        for line, row in rows(path, _COLUMNS, delimiter="\t", quoting=csv.QUOTE_NONE)
    ]


def age_group(age_years: float) -> str:
    """The group whose centre is nearest.

    Example:

    >>> age_group(28.5), age_group(35), age_group(3)
    ('25-32', '38-43', '0-2')
    """
    return ADIENCE_GROUPS[int(np.abs(np.array(ADIENCE_CENTERS) - age_years).argmin())]


def _record(folder: Path, path: Path, fold: int, line: int, row: dict[str, str] | None) -> Record:
    if row is None:
        return Record(key=f"{path.name}:{line}", image=None, fold=fold, removed=MALFORMED_ROW)
    user, photo, face_id = (row[name].strip() for name in _COLUMNS[:3])
    candidates = (
        f"aligned/{user}/landmark_aligned_face.{face_id}.{photo}",
        f"faces/{user}/coarse_tilt_aligned_face.{face_id}.{photo}",
    )
    key = next((c for c in candidates if os.path.isfile(f"{folder}/{c}")), None)
    age_years = parse_age_years(row["age"])
    gender = decode_gender(row["gender"], "adience")
    return Record(
        key=printable(key or candidates[-1]),
        image=folder / key if key else None,
        age_years=age_years,
        age_group=None if age_years is None else age_group(age_years),
        gender=gender,
        fold=fold,
        group=user,
        removed=first_reason(
            (key is None, MISSING_IMAGE), (age_years is None, NO_AGE), (gender is None, NO_GENDER)
        ),
    )

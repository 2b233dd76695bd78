"""IMDB-WIKI: photos of celebrities, with birth dates and the year of the photo."""

import datetime
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.data.datasets.records import MISSING_IMAGE, NO_AGE, NO_GENDER, Record, first_reason
from kerasmlp.data.labels import decode_gender
from kerasmlp.utils.checks import InputError, reject_file

_FIELDS = ("full_path", "dob", "photo_taken", "gender")
_SCORES = ("face_score", "second_face_score")
_MATLAB_OFFSET = 366  # Matlab counts days from year 0, which Python's calendar lacks


def read(source: str | os.PathLike) -> list[Record]:
    """Reads `imdb.mat` and `wiki.mat`, one of them or a folder that holds them.

    Raises:
        InputError: if no such file is there or it cannot be read.
    """
    source = Path(source)
    if source.is_file():
        files, home = [source], source.parent
    else:
        files = [f for n in ("imdb.mat", "wiki.mat") for f in sorted(source.glob(f"**/{n}"))]
        home = source
    if not files:
        reject_file(source, "must hold imdb.mat or wiki.mat", "neither")
    return [record for path in files for record in _read_mat(path, home)]


def age_years(dob: float, photo_taken: float) -> float | None:
    """Whole years at mid-year of the photo's year, None outside 0..100.

    Example:

    >>> june, july = 366 + 725168, 366 + 725188  # 15 June and 5 July 1986
    >>> age_years(june, 2010), age_years(july, 2010), age_years(0, 2010)
    (24.0, 23.0, None)
    """
    if not (math.isfinite(dob) and math.isfinite(photo_taken)):
        return None
    try:
        born = datetime.date.fromordinal(int(dob) - _MATLAB_OFFSET)
    except (ValueError, OverflowError):
        return None
    age = int(photo_taken) - born.year - (born.month >= 7)
    return float(age) if 0 <= age <= 100 else None


def _read_mat(path: Path, home: Path) -> list[Record]:
    columns = _load(path)
    folder = path.parent
    prefix = folder.relative_to(home)
    records = []
    for i, name in enumerate(columns["full_path"]):
        key = (prefix / str(name)).as_posix()
        image = folder / str(name)
        age = age_years(columns["dob"][i], columns["photo_taken"][i])
        gender = decode_gender(columns["gender"][i], "imdb-wiki")
        person = columns["name"][i] if "name" in columns else ""
        records.append(
            Record(
                key=key,
                image=image,
                age_years=age,
                gender=gender,
                group=person if isinstance(person, str) and person else None,
                extra={k: columns[k][i] for k in _SCORES if k in columns},
                removed=first_reason(
                    (not image.is_file(), MISSING_IMAGE),
                    (age is None, NO_AGE),
                    (gender is None, NO_GENDER),
                ),
            )
        )
    return records


def _load(path: Path) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise InputError(
            "IMDB-WIKI needs scipy: install it with `pip install kerasmlp[faces]`"
        ) from None
    try:
        content = loadmat(path, simplify_cells=True)
    except Exception as error:  # scipy raises a dozen kinds on damaged files
        reject_file(path, "must be a readable Matlab file", f"{error}")
    table = content.get(path.stem)
    if not isinstance(table, dict) or any(name not in table for name in _FIELDS):
        reject_file(
            path, f"must hold a struct {path.stem!r} with {', '.join(_FIELDS)}", f"{list(content)}"
        )
    names = [*_FIELDS, *(k for k in ("name", *_SCORES) if k in table)]
    columns = {k: np.atleast_1d(np.asarray(table[k])).tolist() for k in names}
    if len({len(column) for column in columns.values()}) != 1:
        lengths = {k: len(column) for k, column in columns.items()}
        reject_file(path, "must hold columns of one length", f"{lengths}")
    for key in set(names) - {"full_path", "name"}:
        columns[key] = [_finite(value) for value in columns[key]]
    return columns


def _finite(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan

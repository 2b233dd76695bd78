"""One image of a data set, before any face is looked for."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from kerasmlp.data.datasets.photos import FoundPhotos
from kerasmlp.data.labels import Gender
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import what_is

FAILED_TO_READ = "failed to read image"
NO_AGE = "no age"
NO_GENDER = "no gender"
NO_FACE = "no face"
LOW_DET_SCORE = "low det_score"
SEVERAL_FACES = "more than one face"
NO_EMBEDDING = "no embedding"
MALFORMED_NAME = "malformed name"
MALFORMED_ROW = "malformed row"
MISSING_IMAGE = "missing image"
DUPLICATE_ROW = "duplicate row"
WORKER_CRASHED = "worker crashed"
WORKER_STOOD_STILL = "no answer for a minute or more, twice"
TOO_LARGE = "more pixels than are read"
UNCLEAR_RANGE = "16-bit or float pixels of unclear range"
TRANSPARENT = "wholly transparent"
NO_HEIF = "HEIC, which needs pip install kerasmlp[heif]"
LINKED_AGAIN = "link to a folder read already, or around it"
UNREADABLE_FOLDER = "folder that cannot be listed"
NO_SPLIT = "no train, validation or test folder"
IN_ANOTHER_SPLIT = "the same file in a later split"

REASONS = (
    LINKED_AGAIN, UNREADABLE_FOLDER, MALFORMED_NAME, MALFORMED_ROW, DUPLICATE_ROW, MISSING_IMAGE,
    FAILED_TO_READ, TOO_LARGE, UNCLEAR_RANGE, TRANSPARENT, NO_HEIF, NO_AGE, NO_GENDER, NO_FACE,
    LOW_DET_SCORE, SEVERAL_FACES, NO_EMBEDDING, WORKER_CRASHED, WORKER_STOOD_STILL, NO_SPLIT,
    IN_ANOTHER_SPLIT,
)  # fmt: skip
"""Why an input may be removed, in the order in which the rules apply."""

READ_FIRST = (NO_AGE, NO_GENDER)
"""Reasons that count only if the image can be read, as in the paper's removal table."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One input: an image, what is known about it, and whether it fell out already.

    Args:
        key: Relative path or name; the store keeps it as label `path`.
        image: The file, or None where there is none.
        age_years: Age, or None where unknown.
        age_group: Name of the age group, or None.
        gender: Gender, or None.
        fold: Fold that the data set prescribes, or None.
        group: Inputs of one group (one person) must never be split, or None.
        extra: Further labels, name to text or number.
        removed: One of `REASONS` if the input fell out at parsing.

    Example:

    >>> Record(key="a.jpg", image=None, removed="missing image").removed
    'missing image'
    """

    key: str
    image: Path | None
    age_years: float | None = None
    age_group: str | None = None
    gender: Gender | None = None
    fold: int | None = None
    group: str | None = None
    extra: dict[str, str | float | int] = field(default_factory=dict)
    removed: str | None = None


def printable(path: str | os.PathLike) -> str:
    """The path as text that every file can hold, whatever bytes its name has.

    Example:

    >>> printable(b"caf\\xe9.jpg".decode("utf-8", "surrogateescape"))
    'caf\\\\xe9.jpg'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def check_folder(folder: str | os.PathLike, what: str) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        reject_file(folder, f"must be {what}", what_is(folder))
    return folder


def records_of(found: FoundPhotos, folder: Path) -> list[Record]:
    """Records of the images below a folder, then of linked and unreadable folders, removed."""
    records = [Record(key=printable(p.relative_to(folder)), image=p) for p in found.photos]
    for paths, reason in ((found.links, LINKED_AGAIN), (found.unreadable, UNREADABLE_FOLDER)):
        for path in paths:
            key = f"{printable(path.relative_to(folder))}/"
            records.append(Record(key=key, image=None, removed=reason))
    return records

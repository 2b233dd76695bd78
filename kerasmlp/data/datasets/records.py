"""One image of a data set, before any face is looked for."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.data.datasets.photos import find_photos
from kerasmlp.data.labels import Gender, unknown_of
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
NO_CLASS = "in no folder of a class"
NO_SPLIT = "no train, validation or test folder"
IN_ANOTHER_SPLIT = "the same file in a later split"

REASONS = (
    LINKED_AGAIN, UNREADABLE_FOLDER, MALFORMED_NAME, MALFORMED_ROW, DUPLICATE_ROW, MISSING_IMAGE,
    FAILED_TO_READ, TOO_LARGE, UNCLEAR_RANGE, TRANSPARENT, NO_HEIF, NO_AGE, NO_GENDER, NO_FACE,
    LOW_DET_SCORE, SEVERAL_FACES, NO_EMBEDDING, WORKER_CRASHED, WORKER_STOOD_STILL, NO_CLASS,
    NO_SPLIT, IN_ANOTHER_SPLIT,
)  # fmt: skip
"""Why an input may be removed, in the order in which the rules apply."""

READ_FIRST = (NO_AGE, NO_GENDER)
"""Reasons that count only if the image can be read, as in the paper's removal table."""

_LABELS = ("age_years", "age_group", "gender", "fold")


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


def records_below(source: str | os.PathLike, what: str) -> list[Record]:
    """Records of the images below a folder, then of linked and unreadable folders, removed."""
    folder = check_folder(source, what)
    found = find_photos(folder)
    records = [Record(key=printable(p.relative_to(folder)), image=p) for p in found.photos]
    for paths, reason in ((found.links, LINKED_AGAIN), (found.unreadable, UNREADABLE_FOLDER)):
        for path in paths:
            key = f"{printable(path.relative_to(folder))}/"
            records.append(Record(key=key, image=None, removed=reason))
    return records


def first_reason(*rules: tuple[bool, str]) -> str | None:
    """The reason of the first rule that holds, or None."""
    return next((reason for holds, reason in rules if holds), None)


def needs_image(record: Record) -> bool:
    """Whether its image is to be read: it is kept, or counts as unreadable first."""
    return record.removed is None or record.removed in READ_FIRST


def label_columns(records: Sequence[Record]) -> dict[str, list]:
    """What is known of any of the records, as columns of a store; groups are left to others.

    Example:

    >>> label_columns([Record(key="a.jpg", image=None, age_years=3.0), Record(key="b", image=None)])
    {'path': ['a.jpg', 'b'], 'age_years': [3.0, nan]}
    """
    known = [{name: getattr(r, name) for name in _LABELS} | r.extra for r in records]
    labels = {"path": [record.key for record in records]}
    for name in dict.fromkeys(name for columns in known for name in columns):
        values = [columns.get(name) for columns in known]
        kinds = np.asarray([v for v in values if v is not None]).dtype.kind
        gap = unknown_of("f" if name not in _LABELS and kinds != "U" else kinds)
        if any(v is not None for v in values):
            labels[name] = [gap if v is None else v for v in values]
    return labels


def joined_groups(groups: Sequence[str | None], hashes: Sequence[str]) -> np.ndarray:
    """One number per set of rows that share a person or the very bytes of the image."""
    parents: dict[Any, Any] = {}

    def root(node: Any) -> Any:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = node = parents[parents[node]]
        return node

    for group, digest in zip(groups, hashes, strict=True):
        image = root(("image", digest))
        if group is not None:
            parents[image] = root(("group", group))
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(root(("image", h)), len(numbers)) for h in hashes])

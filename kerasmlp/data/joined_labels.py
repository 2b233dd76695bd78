"""Whether a label means the same in all files of a joined store, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np

from kerasmlp.data.labelled import Labelled, known_parts, parts_of
from kerasmlp.utils.checks import reject_column

_MOST_NAMED = 5


class Head(Protocol):
    """A target of one label."""

    label: str
    is_age: bool
    is_number: bool


def check_same_classes(store: Labelled, label: str) -> None:
    """Rejects classes that are called otherwise in one file than in another.

    Args:
        store: Joined or not.
        label: A column of it that is learned as classes.

    Raises:
        InputError: if two files with two classes each share none, or names differ in
            capital letters or spaces alone.

    Example:

    >>> from kerasmlp import EmbeddingStore, join_stores
    >>> a = EmbeddingStore(np.eye(2), {"sex": ["m", "f"]}, name="a.h5")
    >>> b = EmbeddingStore(np.eye(2), {"sex": ["male", "female"]}, name="b.h5")
    >>> check_same_classes(join_stores([a, b]), "sex")
    Traceback (most recent call last):
        ...
    kerasmlp.utils.checks.InputError: `sex` must hold the same classes in stores that are joined, \
or some. Received: sex="'f', 'm' in a.h5, 'female', 'male' in b.h5"
    """
    classes = _classes(store, label)
    for file, names in classes.items():
        others = [(other, theirs) for other, theirs in classes.items() if other != file]
        for other, theirs in others:
            spelt = {str(name).strip().casefold(): name for name in theirs}
            for name in set(names) - set(theirs):
                if (near := spelt.get(str(name).strip().casefold())) is not None:
                    came = f"{name!r} in {file}, {near!r} in {other}"
                    reject_column(label, "must spell a class alike in stores that are joined", came)
        union = set().union(*(theirs for _, theirs in others))
        if len(names) > 1 and len(union) > 1 and not union & set(names):
            came = ", ".join(f"{_named(theirs)} in {other}" for other, theirs in classes.items())
            requirement = "must hold the same classes in stores that are joined, or some"
            reject_column(label, requirement, came)


def known_in_files(store: Labelled, heads: Sequence[Head]) -> list[str]:
    """Lines on how many rows of each file of a joined store have each label.

    Args:
        store: Of a single one nothing is said.
        heads: Their targets.
    """
    parts, said = parts_of(store), []
    for head in heads if parts else ():
        known = known_parts(store, head.label)
        of = [f"{len(known[f]):,} of {m.sum():,} rows in {f}" for f, m in parts.items()]
        said.append(f"{head.label}: known in {', '.join(of)}")
    return said


def doubts_of_joined(store: Labelled, heads: Sequence[Head]) -> list[str]:
    """Sentences on labels that may mean something else in one file of a joined store.

    Args:
        store: Of a single one nothing is said.
        heads: Their targets.
    """
    said: list[str] = []
    for head in heads if parts_of(store) else ():
        if head.is_number:
            said += _doubts_of_numbers(head.label, known_parts(store, head.label))
        elif not head.is_age and head.label != "gender":
            said += _doubts_of_classes(head.label, _classes(store, head.label))
    return said


def _classes(store: Labelled, label: str) -> dict[str, list]:
    """The classes of each file that has any; of a single store nothing."""
    if not parts_of(store):
        return {}
    found = {file: np.unique(known).tolist() for file, known in known_parts(store, label).items()}
    return {file: names for file, names in found.items() if names}


def _doubts_of_classes(label: str, classes: Mapping[str, list]) -> list[str]:
    said = []
    for file, names in classes.items() if len(classes) > 1 else ():
        others = set().union(*(theirs for other, theirs in classes.items() if other != file))
        if alone := [name for name in names if name not in others]:
            said.append(f"{label}: {_named(alone)} in {file} alone")
    if len(classes) > 1 and not isinstance(next(iter(classes.values()))[0], str):
        said.append(f"{label}: a code is taken to mean the same in {' and '.join(classes)}")
    return said


def _doubts_of_numbers(label: str, known: Mapping[str, np.ndarray]) -> list[str]:
    """Of two files whose numbers do not overlap: they may be in two units."""
    ranges = [(file, *np.percentile(part, (1, 99))) for file, part in known.items() if len(part)]
    ranges.sort(key=lambda one: one[1])
    for (file, low, high), (other, from_, to) in pairwise(ranges):
        if high < from_:
            own, theirs = f"{low:.4g} to {high:.4g}", f"{from_:.4g} to {to:.4g}"
            return [f"{label}: {own} in {file}, {theirs} in {other}: are both in one unit?"]
    return []


def _named(names: Sequence) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(map(repr, names[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")

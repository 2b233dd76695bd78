"""Rows by the values of a column of their store, or of several at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kerasmlp.data.age_columns import age_doubt
from kerasmlp.data.labelled import Labelled
from kerasmlp.data.labels import GENDER_NAMES, UNKNOWN, age_classes, is_unknown
from kerasmlp.data.other_targets import AnyTarget
from kerasmlp.data.targets import ANSWER_GROUPS
from kerasmlp.utils.checks import check_each_once, reject

MOST_VALUES = 50
"""Different values of a column by which rows are still told apart."""
CROSS = "*"
"""Between the names of columns whose values are combined."""


@dataclass(frozen=True, eq=False)
class Grouping:
    """Which rows have which value.

    Attributes:
        column: Name of the column, or of several with `*` between them.
        values: Their names in order.
        codes: The value of each row, -1 where it is unknown.

    Example:

    >>> from kerasmlp import EmbeddingStore
    >>> store = EmbeddingStore(np.eye(3), {"gender": [1, 0, -1], "hair": ["r", "b", "r"]})
    >>> found = Grouping.of(store, "gender")
    >>> found.values, found.codes
    (('male', 'female'), array([ 1,  0, -1]))
    >>> Grouping.of(store, "hair*gender").values
    ('b, male', 'r, female')
    """

    column: str
    values: tuple[str, ...]
    codes: np.ndarray

    @classmethod
    def of(cls, store: Labelled, column: str, target: AnyTarget | None = None) -> Grouping:
        """The rows of a store by a column.

        Args:
            store: Or rows of one.
            column: Of text, of whole numbers or of ages, which fall into groups; or several
                with `*` between them.
            target: Whose age groups are taken, where it has some; else Adience's.

        Raises:
            InputError: if it is not there or has none or more than 50 values.
        """
        names = [column] if column in store.labels else column.split(CROSS)
        check_each_once("by", names)
        for name in names:
            if name not in store.labels:
                listed = ", ".join(store.labels) or "no labels"
                reject("by", f"must name columns of the store ({listed})", name)
        parts = [_of_one(store, name, target) for name in names]
        for name, part in zip(names, parts, strict=True):
            if isinstance(part, str):
                reject("by", _requirement(store, target), f"{name}, {part}")
        whole = replace(parts[0], column=column)
        for part in parts[1:]:
            whole = whole.crossed(part)
        if not 0 < len(whole.values) <= MOST_VALUES:
            requirement = f"must name columns with 1 to {MOST_VALUES} pairs of values"
            reject("by", requirement, f"{column}, {len(whole.values):,} pairs")
        return whole

    def crossed(self, other: Grouping) -> Grouping:
        """The pairs of values of both that are there; unknown where one of them is."""
        known = (self.codes >= 0) & (other.codes >= 0)
        pairs = self.codes[known].astype(np.int64) * len(other.values) + other.codes[known]
        there, found = np.unique(pairs, return_inverse=True)
        codes = np.full(len(known), UNKNOWN)
        codes[known] = found
        both = (divmod(pair, len(other.values)) for pair in there.tolist())
        values = tuple(f"{self.values[i]}, {other.values[j]}" for i, j in both)
        return replace(self, values=values, codes=codes)

    def subset(self, rows: np.ndarray) -> Grouping:
        """Of the rows that an index or boolean array selects, with the same values."""
        return replace(self, codes=self.codes[rows])


def groupings(
    store: Labelled, columns: Sequence[str], target: AnyTarget | None = None
) -> list[Grouping]:
    """A `Grouping` for each of several columns, which are named once."""
    if columns:
        check_each_once("by", columns)
    return [Grouping.of(store, column, target) for column in columns]


def _of_one(store: Labelled, name: str, target: AnyTarget | None) -> Grouping | str:
    """The rows by one column, or why there are none in words."""
    column = store.labels[name]
    known = ~is_unknown(column)
    if not known.any():
        return "known in no row"
    if _are_ages(name, column):
        measured = target is not None and target.is_age and target.classes != "years"
        ages = age_classes(target.classes if measured else ANSWER_GROUPS)
        names, codes = list(ages.class_names), ages.encode(np.where(known, column, np.nan))
    else:
        values, inverse = np.unique(column[known], return_inverse=True)
        if column.dtype.kind == "f" and (values != np.rint(values)).any():
            return "numbers with fractions"
        if len(values) > MOST_VALUES:
            return f"{len(values):,} different values"
        names = values.tolist()
        if column.dtype.kind != "U":
            names = [GENDER_NAMES[int(v)] if name == "gender" else f"{v:.0f}" for v in names]
        codes = np.full(len(column), UNKNOWN)
        codes[known] = inverse
    order = sorted(np.unique(codes[codes >= 0]).tolist(), key=lambda k: _place(names[k], k))
    places = np.full(len(names) + 1, UNKNOWN)  # the last one is of -1
    places[order] = np.arange(len(order))
    return Grouping(name, tuple(names[k] for k in order), places[codes])


def _are_ages(name: str, column: np.ndarray) -> bool:
    if column.dtype.kind == "U":
        return False
    return name == "age_years" or (name == "age" and age_doubt(name, column) is None)


def _place(name: str, code: int) -> tuple[float, int]:
    """By the number that a name begins with, so that 3-9 comes before 10-19; then as it was."""
    number = re.match(r"-?\d{1,15}", name)
    return (int(number[0]) if number else np.inf, code)


def _requirement(store: Labelled, target: AnyTarget | None) -> str:
    """What a column must be, with those of the store that are."""
    possible = [k for k in store.labels if isinstance(_of_one(store, k, target), Grouping)]
    text = f"must name columns of text or whole numbers with at most {MOST_VALUES} values"
    return f"{text}, or of ages (here {', '.join(possible) or 'none'})"

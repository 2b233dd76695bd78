"""What a label column is: years, age groups, gender, classes, or a number; said, never guessed."""

from __future__ import annotations

import re

import numpy as np

from kerasmlp.data.labelled import Columns, Labelled, column_of, known_parts, parts_of
from kerasmlp.data.labels import is_unknown
from kerasmlp.data.tasks import TASKS
from kerasmlp.utils.checks import reject, reject_column

MOST_CLASSES = 100
"""Different whole numbers that are taken for classes; more may be either, and must be told."""

_NUMBER = re.compile(r"\s*[-+]?((0|[1-9]\d{,14})([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?\s*%?\s*")

_FEW = 20
"""Different values of floats, all of them whole, that are taken for classes."""


def kind_of_label(store: Labelled, label: str, task: str | None = None) -> tuple[str, str]:
    """What a column is to be learned as, and why, in words.

    Args:
        store: That holds the column.
        label: Its name.
        task: One of `TASKS`, which decides; None looks at name and values.

    Raises:
        InputError: if there is no such column, nothing in it is known, or it may be either.

    Example:

    >>> from kerasmlp import EmbeddingStore
    >>> store = EmbeddingStore(np.eye(3), {"bmi": [21.5, 30.2, 25.0], "hair": ["b", "r", "b"]})
    >>> kind_of_label(store, "bmi")
    ('number', 'floats, 3 different values')
    >>> kind_of_label(store, "hair")
    ('classes', 'text, 2 different values')
    """
    column = column_of(store, label)
    values = np.unique(column[~is_unknown(column)])
    if not len(values):
        reject_column(label, "must be known in at least one row of the store", "none")
    if task is not None:
        if task not in TASKS:
            reject("task", f"must be one of {', '.join(TASKS)}", task)
        return task, "as --task says"
    _check_one_kind(store, label)
    named = {"age_years": "years", "age_group": "groups", "gender": "gender"}
    if label in named:
        return named[label], "by its name"
    many = f"{len(values)} different value{'s' * (len(values) > 1)}"
    if column.dtype.kind == "U":
        numbers = [v for v in values.tolist() if _NUMBER.fullmatch(v)]
        if len(values) > _FEW and len(numbers) > 0.9 * len(values):
            requirement = (
                f"must hold numbers, or be told by `--task classes` (of several {label}=classes)"
            )
            reject_column(label, requirement, f"text, {many}, such as {numbers[0]!r}")
        return "classes", f"text, {many}"
    whole = column.dtype.kind in "iu" or bool((values == np.rint(values)).all())
    if not whole:
        return "number", f"floats, {many}"
    if column.dtype.kind == "f":
        return ("classes" if len(values) <= _FEW else "number"), f"whole floats, {many}"
    if len(values) > MOST_CLASSES:
        requirement = "must be told by `--task classes` or `--task number`"
        reject_column(label, requirement, f"{many}, all of them whole numbers")
    return "classes", f"whole numbers, {many}"


def _check_one_kind(store: Labelled, label: str) -> None:
    """Rejects a column that one file of a joined store fills with classes, another with numbers."""
    if not parts_of(store):
        return
    parts = {file: known for file, known in known_parts(store, label).items() if len(known)}
    kinds = {
        file: kind_of_label(Columns({label: known}), label)[0] for file, known in parts.items()
    }
    if len(set(kinds.values())) > 1:
        came = ", ".join(f"{kind} in {file}" for file, kind in kinds.items())
        reject_column(label, "must be told by `--task`, as it is not the same in all stores", came)

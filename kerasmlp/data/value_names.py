"""The values of a label column as names, by which rows are told apart."""

import numpy as np

from kerasmlp.data.labels import GENDER_NAMES, is_unknown


def value_names(label: str, column: np.ndarray) -> np.ndarray:
    """The value of each row as text, `(rows,)`; empty where it is not known.

    Args:
        label: Name of the column, of which `gender` holds codes.
        column: `(rows,)`.

    Example:

    >>> value_names("gender", np.array([1, -1, 0])), value_names("race", np.array([3, -1]))
    (array(['female', '', 'male'], dtype='<U6'), array(['3', ''], dtype='<U1'))
    """
    column = np.asarray(column)
    if column.dtype.kind == "O":
        column = column.astype(str)
    values, codes = np.unique(column, return_inverse=True)
    unknown = is_unknown(values).tolist()
    names = [
        "" if nothing else _name(label, value)
        for value, nothing in zip(values.tolist(), unknown, strict=True)
    ]
    return np.array(names, str)[codes] if len(names) else np.empty(0, str)


def _name(label: str, value: str | float | int) -> str:
    """Of one value, whatever the others are: a table with gaps has its whole numbers as floats."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if label == "gender" and value in (0, 1):
        return GENDER_NAMES[int(value)]
    return str(value)


def class_names_of(values: np.ndarray) -> list[str]:
    """Names of the different values of a column, "" of those that say nothing.

    A table with gaps has its whole numbers as floats: there NaN says nothing, and -1 is a class.

    Example:

    >>> class_names_of(np.array([-1.0, 2.0, np.nan])), class_names_of(np.array([-1, 2]))
    (['-1', '2', ''], ['', '2'])
    """
    whole = values.dtype.kind == "f" and bool((np.rint(values) == values)[~np.isnan(values)].all())
    unknown = is_unknown(values).tolist()
    names = [str(int(v) if whole and v == v else v) for v in values.tolist()]
    return ["" if nothing else name for name, nothing in zip(names, unknown, strict=True)]

"""Rows of a store: which of them are meant, and the hash of what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from kerasmlp.utils.checks import reject


def selected_rows(indices: Sequence[int] | np.ndarray, rows: int) -> np.ndarray:
    """The rows that an index or boolean array selects, as indices.

    Raises:
        InputError: if it selects none, or one that is not there.

    Example:

    >>> selected_rows([True, False, True], 3)
    array([0, 2])
    """
    indices = np.asarray(indices)
    if indices.dtype == bool and indices.shape == (rows,):
        indices = np.flatnonzero(indices)
    if indices.size == 0:
        reject("indices", "must select at least one row", indices.tolist())
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        requirement = f"must be whole numbers, or {rows} times True or False"
        reject("indices", requirement, f"shape {indices.shape}, dtype {indices.dtype}")
    if indices.min() < -rows or indices.max() >= rows:
        reject("indices", f"must be rows of a store of {rows}", int(indices.max()))
    return indices


def label_words(labels: Mapping[str, np.ndarray]) -> str:
    """The names of labels, for a store's `repr`."""
    named = ", ".join(list(labels)[:8])
    others = f" and {len(labels) - 8} others" if len(labels) > 8 else ""
    return f"labels {named}{others}" if labels else "no labels"


def digest_of(values: np.ndarray, labels: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of contiguous rows and their labels."""
    digest = hashlib.sha256(repr(values.shape).encode())
    digest.update(values)
    for key in sorted(labels):
        column = labels[key]
        digest.update(key.encode() + column.dtype.kind.encode())
        digest.update(
            repr(column.tolist()).encode()
            if column.dtype.kind == "U"
            else np.ascontiguousarray(column)
        )
    return digest.hexdigest()

"""Columns of labels, also of stores that were joined, each of which may know others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kerasmlp.data.labels import is_unknown
from kerasmlp.utils.checks import reject

JOINED_FROM = "joined_from"
"""The column of stores joined to one that names the file of each row."""


class Labelled(Protocol):
    """A store, or `Examples` of one: what has columns of labels."""

    labels: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Columns:
    """Labels without their rows."""

    labels: Mapping[str, np.ndarray]


def column_of(store: Labelled, label: str) -> np.ndarray:
    """A column of a store, which must be there."""
    if label not in store.labels:
        joined = getattr(getattr(store, "info", None), "joined", None) or {}
        if why := joined.get("left_out", {}).get(label):
            reject("label", f"must be a column that stores have alike: {why}", label)
        known = ", ".join(store.labels) or "no labels"
        reject("label", f"must be a column of the store, which holds {known}", label)
    return store.labels[label]


def has_label(store: Labelled, label: str) -> bool:
    """Whether a column is there and known in any row."""
    return label in store.labels and not is_unknown(store.labels[label]).all()


def parts_of(store: Labelled) -> dict[str, np.ndarray]:
    """The mask of the rows of each file in a store that was joined from several; else nothing.

    Example:

    >>> from kerasmlp import EmbeddingStore, join_stores
    >>> parts = [EmbeddingStore(np.eye(2), name=f"{k}.h5") for k in "ab"]
    >>> parts_of(join_stores(parts))
    {'a.h5': array([ True,  True, False, False]), 'b.h5': array([False, False,  True,  True])}
    """
    files = store.labels.get(JOINED_FROM)
    if files is None:
        return {}
    names, first, codes = np.unique(files, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return {str(names[k]): codes == k for k in order} if len(order) > 1 else {}


def known_parts(store: Labelled, label: str) -> dict[str, np.ndarray]:
    """What each file of a joined store knows of a label; of one store all that it knows as ""."""
    column = column_of(store, label)
    known = ~is_unknown(column)
    masks = parts_of(store) or {"": np.ones(len(column), bool)}
    return {name: column[mask & known] for name, mask in masks.items()}

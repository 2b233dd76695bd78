"""Which rows of a store a run trains on, and which it keeps back."""

from __future__ import annotations

import numpy as np

from kerasmlp.data.labels import UNKNOWN
from kerasmlp.data.splits import grouped_split
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.targets import Target
from kerasmlp.utils.checks import reject, reject_column

VALIDATION_SHARE = 0.1
"""Of the groups of rows, as `train` keeps them back by default."""


def split_rows(
    store: EmbeddingStore, target: Target, group: str | None, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the training rows, the validation rows and the number of rows without the label."""
    labels, rows = labelled_rows(store, target)
    groups = groups_of_rows(store, group)[rows]
    rest, validation = grouped_split(groups, share, seed)
    if len(rest) < 2 or len(np.unique(labels[rows[rest]])) < 2:
        came = f"{len(rest)} rows to train on after the split"
        reject_column(target.label, "must hold two classes on both sides of the split", came)
    return rows[rest], rows[validation], len(store) - len(rows)


def hold_out(
    store: EmbeddingStore, target: Target, group: str | None, share: float, seed: int
) -> tuple[EmbeddingStore, EmbeddingStore]:
    """Returns a store without the rows of a test, and those rows, all with the label.

    Args:
        store: To train on and to test with.
        target: Whose label the rows of the test have.
        group: Column whose rows are never split, as in `groups_of_rows`.
        share: Of the labelled rows, in (0, 1).
        seed: The same seed, the same test.

    Raises:
        InputError: if fewer than two classes or groups are there.
    """
    _, rows = labelled_rows(store, target)
    _, test = grouped_split(groups_of_rows(store, group)[rows], share, seed)
    held_out = np.zeros(len(store), bool)
    held_out[rows[test]] = True
    return store.subset(~held_out), store.subset(held_out)


def labelled_rows(store: EmbeddingStore, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Returns the class of each row, and the rows where it is known.

    Raises:
        InputError: if fewer than two classes are there.
    """
    labels = target.encode(store)
    rows = np.flatnonzero(labels != UNKNOWN)
    present = np.unique(labels[rows])
    if len(present) < 2:
        names = [target.class_names[k] for k in present]
        reject_column(target.label, "must hold at least two classes to be trained on", names)
    return labels, rows


def count_labelled(store: EmbeddingStore, target: Target) -> int:
    """How many rows of a store have the label."""
    return int((target.encode(store) != UNKNOWN).sum())


def groups_of_rows(store: EmbeddingStore, group: str | None) -> np.ndarray:
    """The column of groups that are never split; by default `group`, or each row its own."""
    if group is not None and group not in store.labels:
        reject("group", f"must be a column of the store ({', '.join(store.labels)})", group)
    return store.labels.get(group or "group", np.arange(len(store)))

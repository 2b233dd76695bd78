"""Rows to learn from and to be measured by, whose labels are encoded once for all who ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from kerasmlp.data.labels import NUM_YEARS, is_unknown
from kerasmlp.data.other_targets import AnyTarget, NumberTarget
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.row_store import digest_of
from kerasmlp.data.stores.streamed_rows import AnyRows, some_rows
from kerasmlp.data.targets import Target, around_years, blurred_groups, truth_years
from kerasmlp.utils.checks import reject, reject_column

VALIDATION_SHARE = 0.1
"""Of the groups of rows, as `train` keeps them back by default."""


@dataclass(frozen=True, eq=False)
class Examples:
    """What a model takes of each row, what it should answer, and what else is known.

    Attributes:
        inputs: Embeddings or images, `(rows, …)`; embeddings of a large store are streamed.
        targets: The class of each row, -1 where it is unknown; or a number, NaN where it is.
        labels: All columns of the store.
        target: By which `targets` are encoded, in the classes that are measured; None of
            images.

    Example:

    >>> from kerasmlp.data.targets import choose_target
    >>> store = EmbeddingStore(np.eye(3), {"gender": [1, -1, 0], "age_years": [30, 31, None]})
    >>> rows = Examples.of(store, choose_target(store, "gender"))
    >>> rows.targets, rows.known, rows.years
    (array([ 1, -1,  0]), array([ True, False,  True]), array([30., 31., nan], dtype=float32))
    >>> rows.subset(rows.known).wrong(np.eye(2)[[1, 1]])
    array([False,  True])
    """

    inputs: AnyRows
    targets: np.ndarray
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    target: Target | NumberTarget | None = None

    @classmethod
    def of(cls, store: EmbeddingStore, target: Target | NumberTarget) -> Examples:
        """The rows of a store, also those without the label.

        Raises:
            InputError: if the store does not hold it, or other classes.
        """
        return cls(store.embeddings, target.encode(store), store.labels, target)

    def __len__(self) -> int:
        return len(self.targets)

    def digest(self) -> str:
        """SHA-256 of inputs and labels, as that of a store."""
        return digest_of(self.inputs, self.labels)

    @property
    def known(self) -> np.ndarray:
        """Mask of the rows with the label."""
        return ~is_unknown(self.targets)

    @property
    def years(self) -> np.ndarray:
        """The age of each row, NaN where it is unknown."""
        years = truth_years(self)
        return np.full(len(self), np.nan, np.float32) if years is None else years

    def subset(self, rows: np.ndarray) -> Examples:
        """The rows that an index or boolean array selects."""
        labels = {name: column[rows] for name, column in self.labels.items()}
        inputs = some_rows(self.inputs, rows)
        return replace(self, inputs=inputs, targets=self.targets[rows], labels=labels)

    def by(self, target: Target) -> Examples:
        """The same rows, measured by another target."""
        if target == self.target:
            return self
        return replace(self, target=target, targets=target.encode(self))

    def wrong(self, probabilities: np.ndarray) -> np.ndarray:
        """Mask of the rows whose class is not the likeliest; it is not where it is unknown."""
        return self.target.measured(probabilities).argmax(axis=1) != self.targets

    @property
    def view_starts(self) -> np.ndarray | None:
        """First row of each face where all rows are views, numbered from 0 on in `view`.

        None where no face has two, or the column is something else.
        """
        view = self.labels.get("view")
        if view is None or view.dtype.kind != "i" or not len(view) or not (view > 0).any():
            return None
        first = view == 0
        follows = (view[1:] == view[:-1] + 1) & (self.groups(None)[1:] == self.groups(None)[:-1])
        return np.flatnonzero(first) if first[0] and (first[1:] | follows).all() else None

    def without_views(self) -> Examples:
        """The first view of each face, which is the face as it is."""
        starts = self.view_starts
        return self if starts is None else self.subset(starts)

    def soft_targets(self, sigma_years: float) -> np.ndarray:
        """Target probabilities per row, shape `(rows, num_classes)`, float32; zeros if unknown.

        A head of years gets a normal distribution around the age, cut to
        0..100. Where only the group is known, each of its years counts alike
        (those of the last group fade out) and the edges are blurred. Other
        heads get ones at the class.
        """
        table, kinds = self.kinds_of_targets(sigma_years)
        return table[kinds]

    def kinds_of_targets(self, sigma_years: float) -> tuple[np.ndarray, np.ndarray]:
        """The different `soft_targets` there are, `(kinds, num_classes)`, and that of each row."""
        target, known = self.target, self.known
        column = self.labels.get(target.label)
        if target.head != "years" or sigma_years == 0:
            kinds = self.by(replace(target, classes=target.head)).targets
            table = np.eye(target.num_classes, dtype=np.float32)
        elif column.dtype.kind == "U":
            table, kinds = blurred_groups(target.measured_ages, sigma_years), self.targets
        else:
            years, kinds = np.unique(np.clip(column, 0, NUM_YEARS - 1), return_inverse=True)
            table = around_years(years, sigma_years).astype(np.float32)
        nothing = np.zeros((1, table.shape[1]), np.float32)
        kinds = np.where(known, kinds, len(table)).astype(np.int32)
        return np.concatenate([table, nothing]), kinds

    def groups(self, name: str | None) -> np.ndarray:
        """The column of groups that are never split; by default `group`, or each row its own."""
        if name is not None and name not in self.labels:
            reject("group", f"must be a column of the store ({', '.join(self.labels)})", name)
        return self.labels.get(name or "group", np.arange(len(self)))

    def weights(self, name: str) -> np.ndarray:
        """The column by which rows count, brought to a mean of 1, float32.

        Raises:
            InputError: if it is not there, or holds other than numbers of at least 0.
        """
        if name not in self.labels:
            reject("weight", f"must be a column of the store ({', '.join(self.labels)})", name)
        column = self.labels[name]
        if column.dtype.kind == "U" or not (np.isfinite(column) & (column >= 0)).all():
            reject_column(name, "must hold finite numbers >= 0 in every row", column)
        if not column.any():
            reject_column(name, "must hold a number above 0 among the rows to train on", column)
        shares = column / column.max()
        return (shares / shares.mean()).astype(np.float32)

    def labelled(self) -> np.ndarray:
        """The rows with the label.

        Raises:
            InputError: if fewer than two classes are there.
        """
        rows = np.flatnonzero(self.known)
        self.require_two(rows, "must hold at least two {} to be trained on")
        return rows

    def require_two(self, rows: np.ndarray, requirement: str) -> None:
        """Rejects rows of fewer than two classes, or numbers."""
        present = np.unique(self.targets[rows])
        present = present[~is_unknown(present)]
        if len(present) < 2:
            number = self.target.is_number
            came = present.tolist() if number else [self.target.measured_names[k] for k in present]
            what = "different numbers" if number else "classes"
            reject_column(self.target.label, requirement.format(what), came)


TRAINABLE = "must hold two {} among the rows to train on after the split"


def examples_of(store: EmbeddingStore, target: AnyTarget) -> tuple[Examples, ...]:
    """The rows of a store once for each head of a target."""
    return tuple(Examples.of(store, head) for head in target.heads)


def known_in_any(heads: Sequence[Examples]) -> np.ndarray:
    """Mask of the rows with one of the labels."""
    return np.any([rows.known for rows in heads], axis=0)


def labelled(heads: Sequence[Examples]) -> np.ndarray:
    """The rows with one of the labels, each of which must have two classes, or numbers."""
    for rows in heads:
        rows.labelled()
    return np.flatnonzero(known_in_any(heads))


def count_labelled(store: EmbeddingStore, target: AnyTarget) -> int:
    """How many rows of a store have the label, or one of several."""
    return int(known_in_any(examples_of(store, target)).sum())

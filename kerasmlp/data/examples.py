"""Rows to learn from and to be measured by, whose labels are encoded once for all who ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from kerasmlp.data.labels import NUM_YEARS, is_unknown
from kerasmlp.data.splits import grouped_split
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.row_store import digest_of
from kerasmlp.data.targets import Target, around_years, blurred_groups, truth_years
from kerasmlp.utils.checks import reject, reject_column

VALIDATION_SHARE = 0.1
"""Of the groups of rows, as `train` keeps them back by default."""


@dataclass(frozen=True, eq=False)
class Examples:
    """What a model takes of each row, what it should answer, and what else is known.

    Attributes:
        inputs: Embeddings or images, `(rows, …)`.
        targets: The class of each row, -1 where it is unknown; or a number such as an age.
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

    inputs: np.ndarray
    targets: np.ndarray
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    target: Target | None = None

    @classmethod
    def of(cls, store: EmbeddingStore, target: Target) -> Examples:
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
        return replace(self, inputs=self.inputs[rows], targets=self.targets[rows], labels=labels)

    def by(self, target: Target) -> Examples:
        """The same rows, measured by another target."""
        if target == self.target:
            return self
        return replace(self, target=target, targets=target.encode(self))

    def wrong(self, probabilities: np.ndarray) -> np.ndarray:
        """Mask of the rows whose class is not the likeliest; it is not where it is unknown."""
        return self.target.measured(probabilities).argmax(axis=1) != self.targets

    def soft_targets(self, sigma_years: float) -> np.ndarray:
        """Target probabilities per row, shape `(rows, num_classes)`, float32; all labels known.

        A head of years gets a normal distribution around the age, cut to
        0..100. Where only the group is known, each of its years counts alike
        (those of the last group fade out) and the edges are blurred. Other
        heads get ones at the class.
        """
        target = self.target
        if target.head != "years" or sigma_years == 0:
            classes = self.by(replace(target, classes=target.head)).targets
            return np.eye(target.num_classes, dtype=np.float32)[classes]
        column = self.labels[target.label]
        if column.dtype.kind == "U":
            return blurred_groups(target.measured_ages, sigma_years)[self.targets]
        return around_years(np.clip(column, 0, NUM_YEARS - 1), sigma_years).astype(np.float32)

    def groups(self, name: str | None) -> np.ndarray:
        """The column of groups that are never split; by default `group`, or each row its own."""
        if name is not None and name not in self.labels:
            reject("group", f"must be a column of the store ({', '.join(self.labels)})", name)
        return self.labels.get(name or "group", np.arange(len(self)))

    def labelled(self) -> np.ndarray:
        """The rows with the label.

        Raises:
            InputError: if fewer than two classes are there.
        """
        rows = np.flatnonzero(self.known)
        present = np.unique(self.targets[rows])
        if len(present) < 2:
            names = [self.target.measured_names[k] for k in present]
            requirement = "must hold at least two classes to be trained on"
            reject_column(self.target.label, requirement, names)
        return rows

    def divided(self, share: float, seed: int, group: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Divides the rows with the label by whole groups: most of them, and those of a share.

        Raises:
            InputError: if fewer than two classes or groups are there.
        """
        rows = self.labelled()
        rest, part = grouped_split(self.groups(group)[rows], share, seed)
        return rows[rest], rows[part]

    def hold_out(self, share: float, seed: int, group: str | None) -> tuple[Examples, Examples]:
        """The rows without those of a test, and those, which all have the label; as `divided`."""
        _, test = self.divided(share, seed, group)
        return self.subset(np.delete(np.arange(len(self)), test)), self.subset(test)

    def split(self, share: float, seed: int, group: str | None) -> tuple[Examples, Examples]:
        """The rows to train on and those kept back, as `divided`, all with the label.

        Raises:
            InputError: also if fewer than two classes are left to train on.
        """
        rest, part = self.divided(share, seed, group)
        if len(rest) < 2 or len(np.unique(self.targets[rest])) < 2:
            came = f"{len(rest)} rows to train on after the split"
            requirement = "must hold two classes on both sides of the split"
            reject_column(self.target.label, requirement, came)
        return self.subset(rest), self.subset(part)


def count_labelled(store: EmbeddingStore, target: Target) -> int:
    """How many rows of a store have the label."""
    return int(Examples.of(store, target).known.sum())

"""The rows of a training, divided once, and what each head of the network knows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kerasmlp.data.duplicates.near_copies import NearCopies, near_copies
from kerasmlp.data.examples import TRAINABLE, Examples, examples_of, known_in_any, labelled
from kerasmlp.data.other_targets import AnyTarget
from kerasmlp.data.splits import grouped_split
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.streamed_rows import AnyRows, joined_rows
from kerasmlp.utils.checks import reject, reject_column


@dataclass(frozen=True)
class HeadRows:
    """The rows of a training as one head sees them; of several heads some lack its label.

    Attributes:
        whole: All of them but the test.
        training: To learn from.
        part: Kept back.
        test: Measured on once, or None.
    """

    whole: Examples
    training: Examples
    part: Examples
    test: Examples | None


@dataclass(frozen=True)
class Rows:
    """Rows with their labels, divided; see `HeadRows`."""

    heads: tuple[HeadRows, ...]

    @classmethod
    def of(
        cls,
        store: EmbeddingStore,
        target: AnyTarget,
        test: EmbeddingStore | None,
        settings: Mapping[str, Any],
    ) -> Rows:
        """Divides a store as the settings of `train` say, which names are those of its arguments.

        Raises:
            InputError: if a share is none, or there are too few rows or classes.
        """
        shares = {name: settings.get(name) for name in ("validation_share", "test_share")}
        for name, share in shares.items():
            if share is not None and not 0 < share < 1:
                reject(name, "must be in (0, 1)", share)
        whole = examples_of(store, target)
        held_out: Sequence[Examples | None] = [None] * len(whole)
        if test is not None:
            held_out = [head.without_views() for head in examples_of(test, target)]
        seed, group = settings["seed"], settings["group"]
        if shares["test_share"] is not None:
            _, rows = divided(whole, shares["test_share"], seed, group)
            held_out = [head.subset(rows).without_views() for head in whole]
            rest = np.delete(np.arange(len(whole[0])), rows)
            whole = [head.subset(rest) for head in whole]
        rest, part = divided(whole, shares["validation_share"], seed, group)
        for head in whole:
            head.require_two(rest, TRAINABLE)
        parts = [(head.subset(rest), head.subset(part).without_views()) for head in whole]
        heads = [HeadRows(*h) for h in zip(whole, *zip(*parts, strict=True), held_out, strict=True)]
        for head in heads:
            _require_known(head.part, "rows kept back (--validation-share keeps back more)")
            if head.test is not None:
                _require_known(head.test, "rows of the test")
        return cls(tuple(heads))

    def undivided(self) -> Rows:
        """The same with the rows kept back, in all their views, among those to learn from."""
        rows = labelled([head.whole for head in self.heads])
        return Rows(tuple(replace(head, training=head.whole.subset(rows)) for head in self.heads))

    def learned_from(self, *, refit: bool) -> AnyRows:
        """All embeddings that decide the weights: those kept back say when to stop."""
        if refit:
            return self.undivided().inputs
        return joined_rows([self.inputs, self.part_inputs])

    def near_copies(self, learned_from: AnyRows, *, seed: int) -> dict[str, NearCopies]:
        """How many of the rows held out have a near-duplicate among those learned from.

        Args:
            learned_from: Embeddings that decide the weights.
            seed: Of which rows are looked at, where they are many.

        Returns:
            Of the `validation`, held against the rows trained on, and of the `test`.
        """
        found = {"validation": near_copies(self.part_inputs, self.inputs, seed=seed)}
        if self.test_inputs is not None:
            found["test"] = near_copies(self.test_inputs, learned_from, seed=seed)
        return found

    @property
    def inputs(self) -> AnyRows:
        """Embeddings to learn from."""
        return self.heads[0].training.inputs

    @property
    def view_starts(self) -> np.ndarray | None:
        """As of `training_chunks`."""
        return self.heads[0].training.view_starts

    @property
    def size(self) -> int:
        """Rows of an epoch: one view of each face."""
        starts = self.view_starts
        return len(self.inputs) if starts is None else len(starts)

    @property
    def part_inputs(self) -> AnyRows:
        """Embeddings of the rows kept back."""
        return self.heads[0].part.inputs

    @property
    def test_inputs(self) -> AnyRows | None:
        """Embeddings of the test."""
        test = self.heads[0].test
        return None if test is None else test.inputs

    @property
    def test_digest(self) -> str | None:
        """Of inputs and labels of the test."""
        test = self.heads[0].test
        return None if test is None else test.digest()

    @property
    def test_labelled(self) -> int:
        """Rows of the test with one of the labels."""
        return int(known_in_any([head.test for head in self.heads]).sum())

    @property
    def unlabelled(self) -> int:
        """Rows without any label."""
        return int((~known_in_any([head.whole for head in self.heads])).sum())


def _require_known(rows: Examples, which: str) -> None:
    if not rows.known.any():
        reject_column(
            rows.target.label, f"must be known in one of the {which}", f"{len(rows)} without"
        )


def divided(
    heads: Sequence[Examples], share: float, seed: int, group: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Divides the rows with any of the labels by whole groups: most of them, and those of a share.

    Raises:
        InputError: if fewer than two classes or groups are there.
    """
    rows = labelled(heads)
    rest, part = grouped_split(heads[0].groups(group)[rows], share, seed)
    return rows[rest], rows[part]

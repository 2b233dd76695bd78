"""The rows of stores that a student learns from, and those that say how near it came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kerasmlp.data.examples import VALIDATION_SHARE, Examples, examples_of, known_in_any
from kerasmlp.data.joining import join_stores
from kerasmlp.data.labels import UNKNOWN, is_unknown
from kerasmlp.data.other_targets import NumberTarget
from kerasmlp.data.row_hashes import row_hashes
from kerasmlp.data.splits import group_codes, grouped_split
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.targets import Target
from kerasmlp.training.calibrating import MIN_SPREAD_ROWS, MIN_TEMPERATURE_ROWS
from kerasmlp.training.rows import HeadRows, Rows, divided
from kerasmlp.training.teacher import Teacher
from kerasmlp.utils.checks import reject, reject_file
from kerasmlp.utils.schema import check_object, number, optional, text, whole

MIN_ROWS = 20
"""Of a store, to be divided."""

_DIVIDED = {
    "seed": whole(0, (1 << 31) - 1),
    "validation_share": number(0, 1),
    "test_share": optional(number(0, 1)),
    "group": optional(text()),
}
"""Settings by which a teacher has divided its rows."""

_OF_PEOPLE = ("age_years", "age_group", "gender")
"""Labels by which measures are told apart."""


@dataclass(frozen=True)
class StudentRows(Rows):
    """Rows of all stores; of each head its labelled ones, as far as there are.

    A `part` holds the rows kept back that are new to the teacher, where those with the label
    are enough to fit what comes after the weights; else all that are kept back.

    Attributes:
        kept_back: Embeddings of all rows kept back, with a label or without.
        learned_from: By the labels of the other heads, from how many of the labelled rows kept
            back the teacher has learned.
    """

    kept_back: np.ndarray
    learned_from: Mapping[str, int]

    @classmethod
    def of_stores(
        cls, stores: Sequence[EmbeddingStore], teacher: Teacher, seed: int
    ) -> StudentRows:
        """Divides the stores.

        The store that the teacher has learned from is divided as it was then: what it has
        kept back is so again, and what it held out as a test no student learns from.

        Raises:
            InputError: if a store is of other embeddings than the teacher's, or too small.
        """
        if not stores:
            reject("stores", "must be one store or more", stores)
        stores = _as_learned(stores, teacher)
        for store in stores:
            teacher.check(store.name, store.width, store.info)
            if len(store) < MIN_ROWS:
                reject_file(store.name, f"must hold at least {MIN_ROWS} rows", f"{len(store)}")
        parts = [_divided(store, teacher, seed) for store in stores]
        learned, kept, held_out, new = zip(*parts, strict=True)
        part = _joined(stores, kept, teacher)
        training = _joined(stores, learned, teacher)
        test = _joined(stores, held_out, teacher) if any(map(len, held_out)) else None
        half = teacher.config["normalized"]
        apart = row_hashes(part.embeddings, half=half)
        if test is not None:
            apart = np.union1d(apart, row_hashes(test.embeddings, half=half))
        # Copies of them are not learned from either, whatever store they come in.
        training = training.subset(~np.isin(row_hashes(training.embeddings, half=half), apart))
        is_new = np.concatenate(new) | ~np.isin(row_hashes(part.embeddings), teacher.seen)
        heads, learned_from = [], {}
        for target in teacher.target.heads:
            examples = _examples(part, target)
            least = MIN_SPREAD_ROWS if target.is_number else MIN_TEMPERATURE_ROWS
            if (examples.known & is_new).sum() >= least:
                examples = examples.subset(is_new)
            else:
                learned_from[target.label] = int((examples.known & ~is_new).sum())
            learned_by = _examples(training, target)
            tested = None if test is None else _examples(test, target)
            heads.append(HeadRows(learned_by, learned_by, examples, tested))
        return cls(tuple(heads), part.embeddings, learned_from)

    @property
    def unlabelled(self) -> int:
        """Rows to learn from without any label."""
        return int((~known_in_any([head.training for head in self.heads])).sum())


def _as_learned(stores: Sequence[EmbeddingStore], teacher: Teacher) -> Sequence[EmbeddingStore]:
    """The stores as one where the teacher has learned from them as one."""
    if len(stores) > 1 and teacher.config.get("stores"):
        joined = join_stores(stores, group=teacher.config.get("group"))
        if joined.digest() == teacher.config.get("data_digest"):
            return [joined]
    return stores


def _divided(store: EmbeddingStore, teacher: Teacher, seed: int) -> tuple[np.ndarray, ...]:
    """Rows to learn from, kept back and held out as a test; and which of the second are new to
    the teacher, as it has kept them back, too."""
    before, every = teacher.config, np.arange(len(store))
    check_object(teacher.run / "config.json", before, _DIVIDED, "that of a training")
    own = store.digest() == before.get("data_digest") and "distilled" not in before
    heads = examples_of(store, teacher.target) if own else [_rows_of(store)]
    groups, test = heads[0].groups(before.get("group") if own else None), every[:0]
    if own:
        how = before["seed"], before.get("group")
        rest = every
        if before.get("test_share") is not None:
            _, test = divided(heads, before["test_share"], *how)
            rest = np.delete(every, test)
        _, part = divided([h.subset(rest) for h in heads], before["validation_share"], *how)
        part = rest[part]
    else:
        _, part = grouped_split(groups, VALIDATION_SHARE, seed)
    codes = group_codes(groups)
    learned = every[~np.isin(codes, codes[np.concatenate([part, test])])]
    if not len(learned):
        reject_file(store.name, "must hold rows of more groups", "none to learn from")
    kept, held_out = (_first_views(heads[0], rows) for rows in (part, test))
    new = own and not teacher.recipe.refit and before.get("init") is None
    return learned, kept, held_out, np.full(len(kept), new)


def _first_views(rows: Examples, chosen: np.ndarray) -> np.ndarray:
    starts = rows.view_starts
    return chosen if starts is None else chosen[np.isin(chosen, starts)]


def _rows_of(store: EmbeddingStore) -> Examples:
    return Examples(store.embeddings, np.full(len(store), UNKNOWN), store.labels)


def _joined(
    stores: Sequence[EmbeddingStore], rows: Sequence[np.ndarray], teacher: Teacher
) -> EmbeddingStore:
    """Chosen rows of all stores, with the labels that something is measured by."""
    names = {*_OF_PEOPLE, *(head.label for head in teacher.target.heads)}
    chosen = []
    for store, some in zip(stores, rows, strict=True):
        if len(some):
            labels = {k: v[some] for k, v in store.labels.items() if k in names}
            chosen.append(store.subset(some).with_labels(labels))
    return EmbeddingStore.concatenate(chosen, names=[store.name for store in chosen])


def _examples(store: EmbeddingStore, target: Target | NumberTarget) -> Examples:
    """Rows of a store, which may lack the label: then it is unknown in all of them."""
    column = store.labels.get(target.label)
    if column is not None and not is_unknown(column).all():
        return Examples.of(store, target)
    unknown = np.full(len(store), np.nan if target.is_number else UNKNOWN)
    return Examples(store.embeddings, unknown, store.labels, target)

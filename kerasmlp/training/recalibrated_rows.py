"""New rows with labels for a finished run: what each of its heads can be calibrated on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kerasmlp.data.examples import Examples, known_in_any
from kerasmlp.data.labelled import has_label
from kerasmlp.data.other_targets import NumberTarget
from kerasmlp.data.row_hashes import row_hashes
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.streamed_rows import AnyRows, some_rows
from kerasmlp.data.targets import Target
from kerasmlp.evaluation.measuring import fitting_classes
from kerasmlp.runs.answering_model import AnsweringModel
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.seen import load_seen
from kerasmlp.utils.checks import reject_file

MIN_ROWS = 30
"""With a label: of 30 the share that a limit holds of 90% has a standard deviation of 5%."""
MIN_UNLABELLED_ROWS = 200
"""Without any: then these alone give batch norm its statistics."""


@dataclass(frozen=True)
class NewRows:
    """Rows of a store that a run has not learned from.

    Attributes:
        embeddings: Of all of them.
        learned_from: How many others there were.
        heads: By label all of them, in the classes that they can be measured in.
        lacking: By the other labels how many rows have them.
    """

    embeddings: AnyRows
    learned_from: int
    heads: Mapping[str, Examples]
    lacking: Mapping[str, int]

    @classmethod
    def of(cls, store: EmbeddingStore, run: AnsweringModel) -> NewRows:
        """Looks for them.

        Raises:
            InputError: if too few rows have any of the labels, or a label holds others than the
                classes of the run.
        """
        seen = np.isin(row_hashes(store.embeddings), load_seen(RunFolder(run.path)))
        if seen.all():
            requirement = f"must hold rows that {run.path} has not learned from"
            reject_file(store.name, requirement, f"{len(store)} that it has")
        new = store.subset(~seen)
        found = {label: _labelled(new, target) for label, target in run.trained.items()}
        counts = {k: 0 if v is None else int(v.known.sum()) for k, v in found.items()}
        if max(counts.values()) < MIN_ROWS:
            label = max(counts, key=lambda k: counts[k])
            beside = f"{int(seen.sum())} that {run.path} has learned from"
            requirement = f"must hold at least {MIN_ROWS} rows with {label}, beside {beside}"
            reject_file(store.name, requirement, f"{counts[label]}")
        return cls(
            new.embeddings,
            int(seen.sum()),
            {k: v for k, v in found.items() if counts[k] >= MIN_ROWS},
            {k: count for k, count in counts.items() if count < MIN_ROWS},
        )

    def part(self, label: str) -> Examples:
        """The rows that a head is calibrated on."""
        return self.heads[label].subset(self.heads[label].known)

    @property
    def labelled(self) -> np.ndarray:
        """Mask of the rows that a head is calibrated on."""
        return known_in_any(list(self.heads.values()))

    @property
    def for_batch_norm(self) -> AnyRows:
        """Rows whose statistics are taken: those that calibrate nothing, if they are enough."""
        without = some_rows(self.embeddings, ~self.labelled)
        return without if len(without) >= MIN_UNLABELLED_ROWS else self.embeddings


def _labelled(store: EmbeddingStore, target: Target | NumberTarget) -> Examples | None:
    """The rows with their label, None where the store does not hold it."""
    names = {target.label, *(("age_years", "age_group") if target.is_age else ())}
    if not any(has_label(store, name) for name in names):
        return None
    return Examples.of(store, fitting_classes(target, store, None) if target.is_age else target)

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
from kerasmlp.runs.seen import FILE as SEEN
from kerasmlp.runs.seen import load_seen
from kerasmlp.training.calibrating import MIN_TEMPERATURE_ROWS
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
        hashes = row_hashes(store.embeddings)
        seen = np.isin(hashes, load_seen(RunFolder(run.path)))
        if seen.all():
            requirement = f"must hold rows that {run.path} has not learned from"
            reject_file(store.name, requirement, f"{len(store)} that it has")
        new = store.subset(~seen)
        found = {label: _labelled(new, target) for label, target in run.trained.items()}
        hashes = hashes[~seen]  # copies of a row tell no more than the row
        counts = {k: 0 if v is None else len(np.unique(hashes[v.known])) for k, v in found.items()}
        if max(counts.values()) < MIN_ROWS:
            label = max(counts, key=lambda k: counts[k])
            beside = f"{int(seen.sum())} that {run.path} has learned from"
            requirement = (
                f"must hold at least {MIN_ROWS} different rows with {label}, beside {beside}"
            )
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


def notes_of_rows(run: AnsweringModel, rows: NewRows) -> list[str]:
    """What is kept of a run, and what is not, in sentences."""
    notes = []
    if RunFolder(run.path).read_bytes(SEEN) is None:
        notes.append(f"{run.path} does not tell what it has learned from: it may be these rows")
    if rows.learned_from:
        notes.append(f"{rows.learned_from} rows are left out: {run.path} has learned from them")
    for label in rows.heads:
        part, before = rows.part(label), run.calibrations[label]
        if not part.target.is_number and len(part) < MIN_TEMPERATURE_ROWS:
            few = f"{len(part)} rows, of {MIN_TEMPERATURE_ROWS} that it takes"
            notes.append(f"{label}: the temperature stays as it was: {few}")
        if absent := _absent_classes(part):
            notes.append(f"{label}: no row is {absent}: what is fitted knows nothing of such")
        years = bool(before is not None and getattr(before, "offsets_years", None))
        if years and not np.isfinite(part.years).any():
            notes.append(
                f"{label}: these rows know groups, not years: temperature, sets and abstention "
                f"are of {part.target.measured_in}; intervals in years are the model's own and "
                "promise nothing, nor does --within-years"
            )
    for label, count in rows.lacking.items():
        notes.append(f"{label} stays as it was: {count} new rows hold it, of {MIN_ROWS}")
    if run.reference is None:
        notes.append(
            f"{run.path} holds no reference of its rows: moved ones are told by answers alone"
        )
    return notes


def _absent_classes(part: Examples) -> str:
    """Those measured classes that no row is of, the first five by their names; not single years."""
    if part.target.is_number or part.target.classes == "years":
        return ""
    there = set(part.targets[part.known].tolist())
    absent = [name for k, name in enumerate(part.target.measured_names) if k not in there]
    return ", ".join([*absent[:5], *["…"] * (len(absent) > 5)])


def _labelled(store: EmbeddingStore, target: Target | NumberTarget) -> Examples | None:
    """The rows with their label, None where the store does not hold it."""
    names = {target.label, *(("age_years", "age_group") if target.is_age else ())}
    if not any(has_label(store, name) for name in names):
        return None
    return Examples.of(store, fitting_classes(target, store, None) if target.is_age else target)

"""Whether rows are such as a training kept back: its promises hold for those alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kerasmlp.data.row_hashes import row_hashes
from kerasmlp.data.splits import one_of_each_group
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.runs.predictor import Predictor
from kerasmlp.runs.reference import FILE, MIN_SCORES, answer_scores, words_of_score
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.seen import FILE as SEEN
from kerasmlp.runs.seen import load_seen
from kerasmlp.uncertainty.exchangeability import kolmogorov_smirnov, step_of

FALSE_ALARMS = 0.01
"""The share of stores that are called moved and are not."""
MIN_ROWS = 20
"""Of fewer not even rows of another embedder are surely others."""
MOST_ROWS = 10_000

NO_PROMISE = "what the run promises of coverage and risk is not for such rows"


@dataclass(frozen=True)
class Moved:
    """What a test of rows against those that a run kept back has found.

    Attributes:
        rows: To test, one of each group.
        of: Rows that there were.
        learned_from: Of these, which the run has learned from; None where it does not tell. They
            are left out unless rows repeat (see `Reference.repeats`).
        p_values: Of each score; see `Reference`.
        reason: Why nothing was tested, or None.
    """

    rows: np.ndarray
    of: int
    learned_from: int | None
    p_values: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None

    @property
    def limit(self) -> float:
        """A probability below which rows have moved: all tests share the false alarms."""
        return FALSE_ALARMS / max(len(self.p_values), 1)

    @property
    def noticed(self) -> dict[str, float]:
        """Those of the scores that tell these rows from those kept back, the surest first."""
        below = {k: p for k, p in self.p_values.items() if p < self.limit}
        return dict(sorted(below.items(), key=lambda item: item[1]))

    def to_json(self) -> dict[str, Any]:
        """For a report."""
        tested = self.reason is None
        return {
            "moved": bool(self.noticed) if tested else None,
            "rows": len(self.rows),
            "rows_learned_from": self.learned_from,
            "false_alarms": FALSE_ALARMS,
            "p_values": dict(self.p_values),
            "sentence": self.sentence,
        }

    @property
    def sentence(self) -> str:
        if self.reason is not None:
            return f"whether these rows have moved is not known: {self.reason}"
        few = f" ({len(self.rows)} looked at)" if len(self.rows) < self.of else ""
        rows = f"these {self.of} rows{few}"
        if not self.noticed:
            return f"no sign that {rows} have moved: they are like those that the run kept back"
        name, p = next(iter(self.noticed.items()))
        return (
            f"{rows} have moved: they are not like those that the run kept back, told best by "
            f"{words_of_score(name)} ({shown_p(p)}; {FALSE_ALARMS:.0%} of stores "
            "that have not are called so)"
        )


def look_for_move(
    predictors: Sequence[Predictor],
    embeddings: np.ndarray,
    labels: Mapping[str, np.ndarray],
    *,
    seed: int = 0,
    deterministic: Mapping[str, np.ndarray] | None = None,
) -> Moved:
    """Tests rows, without their labels, against those that a run kept back.

    Each score is tested by itself (Kolmogorov and Smirnov), one row of each group, because
    rows of one group are no draws of their own. Rows that the run has learned from are left out,
    unless rows repeat by their nature: the others would be the rare ones.

    Args:
        predictors: Heads of one run.
        embeddings: Rows as `Predictor.checked` gives them.
        labels: Of theirs: groups are a column.
        seed: Draws the rows of groups, and 10,000 of more.
        deterministic: Answers of the heads to all rows by their labels, where they are known.
    """
    first = predictors[0]
    rows, learned_from = _tested(first, embeddings, labels, seed)
    found = Moved(rows, len(embeddings), learned_from)
    reference = first.reference
    if reference is None:
        why = f"{first.path} holds no {FILE}: it is of an older version, not calibrated, or kept "
        return replace(found, reason=f"{why}back fewer than {MIN_SCORES} rows")
    if len(rows) < MIN_ROWS:
        why = f"it takes {MIN_ROWS} rows of different groups to notice it, and here are {len(rows)}"
        seen = f"the run has learned from {learned_from} of them, and " if learned_from else ""
        return replace(found, reason=f"{seen}{why}")
    some, p_values = embeddings[rows], {}
    for name, scores in reference.of_rows(some).items():
        p_values[f"{name} directions"] = _p_value(reference.scores[name], scores)
    for predictor in predictors:
        if (known := reference.answers.get(predictor.name)) is not None:
            given = (deterministic or {}).get(predictor.label)
            answers = predictor.probabilities(some) if given is None else given[rows]
            scores = answer_scores(predictor.target, answers)
            p_values[f"answers on {predictor.name}"] = _p_value(known, scores)
    if not p_values:
        return replace(found, reason=f"{first.path} has kept no scores of {first.name}")
    return replace(found, p_values=p_values)


def _p_value(known: np.ndarray, scores: np.ndarray) -> float:
    step = step_of(known)
    return kolmogorov_smirnov(np.rint(known / step), np.rint(scores / step))[1]


def _tested(
    predictor: Predictor,
    embeddings: np.ndarray,
    labels: Mapping[str, np.ndarray],
    seed: int,
) -> tuple[np.ndarray, int | None]:
    """Rows to test, drawn, and how many of all the run has learned from."""
    rows, learned_from, run = np.arange(len(embeddings)), None, RunFolder(predictor.path)
    if run.read_bytes(SEEN) is not None:
        seen = np.isin(row_hashes(embeddings), load_seen(run))
        learned_from = int(seen.sum())
        if predictor.reference is None or not predictor.reference.repeats:
            rows = rows[~seen]
    known = [name for name in (predictor.config.get("group"), "group") if name in labels]
    groups = labels[known[0]][rows] if known else np.arange(len(rows))
    if groups.dtype.kind == "f":  # numbers that tell no groups
        groups = np.arange(len(rows))
    return rows[one_of_each_group(groups, seed)][:MOST_ROWS], learned_from


def notes_of_store(
    predictors: Sequence[Predictor], store: EmbeddingStore, seed: int
) -> Iterator[str]:
    """A sentence for each run of which the rows of a store are noticed to have moved."""
    for path in dict.fromkeys(p.path for p in predictors):
        heads = [p for p in predictors if p.path == path]
        moved = look_for_move(heads, store.embeddings, store.labels, seed=seed)
        if moved.noticed:
            yield f"{path}: {moved.sentence}; {NO_PROMISE}"


def shown_p(p: float) -> str:
    """A probability as people read it.

    Example:

    >>> shown_p(0.0312), shown_p(3e-40)
    ('p = 0.031', 'p < 1e-12')
    """
    return "p < 1e-12" if p < 1e-12 else f"p = {p:.2g}"

"""From the rows of a training to the `Reference` by which moved ones are noticed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from kerasmlp.data.splits import one_of_each_group
from kerasmlp.runs.reference import (
    FILE,
    MIN_SCORES,
    MOST_NUMBERS,
    MOST_SCORES,
    Reference,
    answer_scores,
)
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.head_results import HeadResult
from kerasmlp.utils.files import write_json

_MOST_DIRECTIONS = 64
_MOST_COLUMNS = 512
"""Of wider rows so many columns, evenly spaced: directions take time to the third power."""
_MOST_ROWS = 20_000
_LEAST_VARIANCE = 1e-6
"""Of a direction, as a share of the largest: below it is noise of the numbers themselves."""


def directions_of(rows: np.ndarray, seed: int) -> Reference | None:
    """A reference without scores yet: the directions in which rows vary most and least.

    Args:
        rows: To learn from, `(rows, width)`; none of those kept back.
        seed: Draws some of many.

    Returns:
        None of few rows, or where they do not vary.

    Example:

    >>> x, noise = np.random.default_rng(0).normal(size=(2, 1000))
    >>> found = directions_of(np.stack([x, x + 0.1 * noise], axis=1), seed=0)
    >>> scores = found.of_rows(np.array([[2.0, 2.0], [1.0, 0.0]]))
    >>> bool(scores["along"][0] > 3), (scores["across"] > 9).tolist()
    (True, [False, True])
    """
    count, width = rows.shape
    if count < MIN_SCORES:
        return None
    if count > _MOST_ROWS:
        chosen = np.random.default_rng(seed).choice(count, _MOST_ROWS, replace=False)
        rows = rows[np.sort(chosen)]
    columns = np.unique(np.linspace(0, width - 1, _MOST_COLUMNS).round().astype(int))
    some = rows[:, columns].astype(np.float64)
    center, scale = some.mean(axis=0), some.std(axis=0)
    scale[scale == 0] = 1.0
    some = (some - center) / scale
    variances, vectors = np.linalg.eigh(some.T @ some / len(some))
    if variances[-1] <= 0:
        return None
    number = min(len(columns), _MOST_DIRECTIONS, max(MOST_NUMBERS // width, 1))
    along, across = -(-number // 2), number // 2
    kept = [*range(-1, -1 - along, -1), *range(across)]
    deviations = np.sqrt(np.maximum(variances, _LEAST_VARIANCE * variances[-1]))[kept]
    whole = np.zeros((1 + number, width), np.float32)
    whole[0, columns] = center
    whole[1:, columns] = vectors[:, kept].T / deviations[:, None] / scale
    whole = whole.astype(np.float64)  # of the numbers as they are written
    how = {"width": width, "number_along": along, "scores": {}, "answers": {}}
    return Reference(center=whole[0], directions=whole[1:], **how)


def fit_reference(
    directions: Reference | None,
    kept: np.ndarray,
    groups: np.ndarray,
    answers: Mapping[str, tuple[np.ndarray, np.ndarray]],
    seed: int,
) -> Reference | None:
    """The scores of rows kept back, one of each group, as far as they are enough.

    Args:
        directions: As of `directions_of`, or an earlier reference.
        kept: Rows kept back, `(rows, width)`.
        groups: Of theirs.
        answers: Of each head by its name: scores, and the groups of these rows.
        seed: Draws a row of each group.

    Returns:
        None where nothing could be noticed.
    """
    scores: dict[str, np.ndarray] = {}
    if directions is not None and directions.directions is not None:
        rows = _some(groups, seed)
        if len(rows) >= MIN_SCORES:
            scores = {k: _rising(v) for k, v in directions.of_rows(kept[rows]).items()}
    found = {}
    for name, (column, of_column) in answers.items():
        rows = _some(of_column, seed)
        if len(rows) >= MIN_SCORES:
            found[name] = _rising(column[rows])
    if not (scores or found):
        return None
    empty = {"center": None, "directions": None, "number_along": 0} if not scores else {}
    whole = directions or Reference(width=kept.shape[1], scores={}, answers={}, **empty)
    return replace(whole, scores=scores, answers=found, **empty)


def answers_of(
    results: Sequence[HeadResult], group: str | None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What `fit_reference` takes of finished heads."""
    return {
        r.part.target.name: (answer_scores(r.part.target, r.answers), r.part.groups(group))
        for r in results
        if len(r.part)
    }


def save_reference(run: RunFolder, reference: Reference | None) -> None:
    """Writes it, where there is one, into a run that is to hold it: one of an older version that
    is resumed is not."""
    if reference is not None and FILE in run.config()["files"]:
        write_json(run / FILE, reference.to_json())


def _some(groups: np.ndarray, seed: int) -> np.ndarray:
    return one_of_each_group(groups, seed)[:MOST_SCORES]


def _rising(scores: np.ndarray) -> np.ndarray:
    """Sorted, to nine digits."""
    return np.sort([float(f"{score:.9g}") for score in scores])

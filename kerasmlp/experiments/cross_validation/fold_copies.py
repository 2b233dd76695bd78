"""Whether folds hold near-duplicates of each other's rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kerasmlp.data.duplicates.comparisons import MOST_PAIRS, TILE
from kerasmlp.data.duplicates.near_copies import (
    NEAR_COSINE,
    REMEDY,
    can_have_copies,
    looked_at,
    near_cosine,
    nearest_among,
)
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.streamed_rows import AnyRows, some_rows
from kerasmlp.experiments.cross_validation.plan import PlannedRun

_OPERATIONS_PER_RUN = 30_000_000_000
"""Some hundredths of what a training takes."""

_TRIED = 200


def fold_copies(store: EmbeddingStore, runs: Sequence[PlannedRun]) -> dict | None:
    """Counts the rows tested on that have a near-duplicate in the training folds, over all runs.

    Args:
        store: Of all rows.
        runs: Of the plan.

    Returns:
        `rows` of them, of those `looked_at`, `of_rows` tested on, and the `cosine`; None where
        that would say little.
    """
    if not can_have_copies(store.width, normalized=store.info.normalized):
        return None
    x = store.embeddings
    most = _OPERATIONS_PER_RUN * len(runs)
    used = np.union1d(runs[0].training, runs[0].test)
    looked = used[looked_at(len(used), store.width * len(used), runs[0].seed, operations=most)]
    looked, pairs = _pairs(x, looked, used)
    there, rows, tested = np.zeros(len(x), bool), 0, 0
    for run in runs:
        there[:] = False
        there[run.training] = True
        test = looked[np.isin(looked, run.test)]
        known = pairs[np.isin(pairs[:, 0], test)]
        rows += len(np.unique(known[there[known[:, 1]], 0]))
        tested += len(test)
    of_rows = sum(len(run.test) for run in runs)
    return {"rows": rows, "looked_at": tested, "of_rows": of_rows, "cosine": NEAR_COSINE}


def said_of_copies(found: dict | None) -> str | None:
    """A sentence on what was found, if anything was.

    Example:

    >>> said_of_copies({"rows": 3, "looked_at": 200, "of_rows": 900, "cosine": 0.95})
    '1.5% of the rows tested on (200 of 900 looked at) have a near-duplicate (cosine 0.95 or more) \
in the training folds, which flatters the test: `leaks --threshold 0.95 --write-groups` gives such \
rows one group, which no split divides'
    """
    if not found or not found["rows"]:
        return None
    share = f"{found['rows'] / found['looked_at']:.1%} of the rows tested on"
    if found["looked_at"] < found["of_rows"]:
        share += f" ({found['looked_at']:,} of {found['of_rows']:,} looked at)"
    near = f"a near-duplicate (cosine {found['cosine']:g} or more) in the training folds"
    return f"{share} have {near}, which flatters the test: {REMEDY}"


def _pairs(x: AnyRows, looked: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that were looked at, and their pairs with all that are used, `(pairs, 2)`."""
    some = looked[np.linspace(0, len(looked) - 1, _TRIED).astype(int)]
    least = near_cosine(nearest_among(x[some], some_rows(x, np.setdiff1d(used, some))))
    found, count = [np.empty((0, 2), np.int64)], 0
    for start in range(0, len(looked), TILE):
        rows = looked[start : start + TILE]
        for first in range(0, len(used), TILE):
            others = used[first : first + TILE]
            a, b = np.nonzero(x[rows] @ x[others].T >= least)
            found.append(np.stack([rows[a], others[b]], axis=1))
            count += len(a)
        if count > MOST_PAIRS:  # enough is known
            looked = looked[: start + TILE]
            break
    return looked, np.concatenate(found)

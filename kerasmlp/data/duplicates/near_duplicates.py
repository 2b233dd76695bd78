"""Finds rows that are nearly the same, in one store and across several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kerasmlp.data.duplicates.comparisons import nearest_cosines, pairs_above
from kerasmlp.data.duplicates.duplicate_rows import NearDuplicates
from kerasmlp.data.duplicates.opened import Store, first_views, known_groups, opened_rows
from kerasmlp.data.duplicates.row_access import RowAccess
from kerasmlp.data.duplicates.row_search import RowSearch
from kerasmlp.data.duplicates.valley import DUPLICATE_COSINE, valley_threshold
from kerasmlp.utils.checks import check_int, is_number, reject


def near_duplicates(
    stores: Store | Sequence[Store],
    *,
    threshold: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> NearDuplicates:
    """Finds rows that are nearly the same: other copies of one photo, cut or compressed anew.

    Their cosine is near 1, that of most neighbours is not, and the threshold lies in the
    valley between the two (`valley_threshold`). Where there is none, only equal rows are
    pairs. Files are read a range of rows at a time. Up to 50,000 rows each is compared with
    each; of more, each is compared with those that are near the same pivots (`Cells`).

    Args:
        stores: One or more, of one embedder.
        threshold: Cosine from which two rows are a pair, instead of that of the valley.
        seed: Of the pivots.
        progress: Show bars.

    Returns:
        Pairs, groups and the threshold.

    Raises:
        InputError: if a store cannot be read or is of another embedder, or if there are more
            than 5,000,000 pairs of different rows.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(500, 64))
    >>> x = np.concatenate([x, x[:30] + 0.05 * rng.normal(size=(30, 64))])
    >>> x /= np.linalg.norm(x, axis=1, keepdims=True)
    >>> found = near_duplicates(EmbeddingStore(x))
    >>> pairs, cosines = found.pairs()
    >>> len(pairs), bool((pairs[:, 1] == pairs[:, 0] + 500).all()), cosines.min() > 0.98
    (30, True, True)

    Reference: Barz and Denzler, "Do We Train on Test Data? Purging CIFAR of Near-Duplicates",
    Journal of Imaging, 2020.
    """
    check_int("seed", seed, minimum=0)
    if threshold is not None and not (is_number(threshold) and 0 < threshold <= 1):
        reject("threshold", "must be in (0, 1]", threshold)
    parts = opened_rows(stores)
    rows = np.flatnonzero(np.concatenate([first_views(part) for part in parts]))
    first, kinds = _kinds(np.concatenate([part.hashes for part in parts])[rows])
    access, derived = RowAccess(parts, rows[first]), threshold is None
    cosine = DUPLICATE_COSINE if threshold is None else threshold
    search = RowSearch(access, cosine, seed=seed, progress=progress)
    nearest = nearest_cosines(len(access), search.tiles())
    near, cosines = np.empty((0, 2), np.int64), np.empty(0, np.float32)
    if threshold is None:
        threshold = valley_threshold(nearest[nearest > -1])
    if threshold is not None:
        near, cosines = pairs_above(threshold, len(access), search.among(nearest >= threshold))
        cosine = threshold
    nearest[np.bincount(kinds) > 1] = 1
    starts = np.cumsum([0, *map(len, parts)])
    of_rows, kind_of = np.full(starts[-1], np.nan, np.float32), np.full(starts[-1], -1)
    of_rows[rows], kind_of[rows] = nearest[kinds], kinds
    return NearDuplicates(
        names=tuple(str(part.name) for part in parts),
        starts=starts,
        threshold=threshold,
        derived=derived,
        recall=search.recall_at(cosine),
        nearest=of_rows,
        kinds=kind_of,
        near=near,
        cosines=cosines,
        known=known_groups(parts),
    )


def _kinds(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each hash, rising, and for each row which of them has the same."""
    _, first, same = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[same]

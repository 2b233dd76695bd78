"""Which rows train and which measure: indices only, and no group on both sides."""

from collections.abc import Sequence

import numpy as np

from kerasmlp.data.labels import is_unknown
from kerasmlp.utils.checks import check_int, is_number, reject


def grouped_split(
    groups: Sequence | np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits rows in two, by whole groups drawn at random.

    Groups are drawn until the part is as close to `fraction` of the rows as
    whole groups allow in the drawn order; each side holds at least one group.

    Args:
        groups: Group of each row, integers or text. Unknown (-1 or "") is a
            group of its own.
        fraction: Share of the rows for the part, in (0, 1).
        seed: The same seed, the same split.

    Returns:
        `(rest, part)`: sorted row indices.

    Raises:
        InputError: if there are fewer than two groups.

    Example:

    >>> rest, part = grouped_split(["ann", "ann", "bob", "cid", "", ""], 0.3, seed=0)
    >>> len(rest), len(part), set(rest) & set(part)
    (4, 2, set())
    """
    if not is_number(fraction) or not 0 < fraction < 1:
        reject("fraction", "must be in (0, 1)", fraction)
    codes, sizes = _codes_and_sizes(groups, minimum=2)
    order = _shuffled(sizes, seed)
    taken = np.cumsum(sizes[order])
    target = fraction * len(codes)
    count = int(np.abs(taken[:-1] - target).argmin()) + 1
    in_part = np.isin(codes, order[:count])
    return np.flatnonzero(~in_part), np.flatnonzero(in_part)


def grouped_folds(groups: Sequence | np.ndarray, num_folds: int, seed: int) -> list[np.ndarray]:
    """Splits rows into folds of about equal size, by whole groups.

    Large groups are placed first, each into the smallest fold so far; groups
    of one size in random order.

    Args:
        groups: As in `grouped_split`.
        num_folds: At least 2.
        seed: The same seed, the same folds.

    Returns:
        Sorted row indices of each fold; together all rows, each once.

    Raises:
        InputError: if there are fewer groups than folds.

    Example:

    >>> [fold.tolist() for fold in grouped_folds([7, 7, 8, 9, 9, 9], 3, seed=0)]
    [[3, 4, 5], [0, 1], [2]]
    """
    check_int("num_folds", num_folds, minimum=2)
    codes, sizes = _codes_and_sizes(groups, minimum=num_folds)
    order = _shuffled(sizes, seed)
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of_group = np.empty(len(sizes), int)
    filled = [0] * num_folds
    for group, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        fold = filled.index(min(filled))
        fold_of_group[group] = fold
        filled[fold] += size
    fold_of_row = fold_of_group[codes]
    return [np.flatnonzero(fold_of_row == fold) for fold in range(num_folds)]


def group_codes(groups: Sequence | np.ndarray) -> np.ndarray:
    """Group of each row as 0..n-1; every unknown group is one of its own.

    Example:

    >>> group_codes(["ann", "ann", "bob", "", ""])
    array([0, 0, 1, 2, 3])
    """
    groups = np.asarray(groups)
    if groups.ndim != 1 or groups.dtype.kind not in "iuU":
        reject("groups", "must be one integer or text per row", f"{groups.dtype} {groups.shape}")
    unknown = is_unknown(groups)
    codes = np.unique(groups, return_inverse=True)[1]
    codes[unknown] = len(groups) + np.arange(unknown.sum())
    return np.unique(codes, return_inverse=True)[1]


def one_of_each_group(groups: Sequence | np.ndarray, seed: int) -> np.ndarray:
    """A row of each group, drawn at random, in random order.

    Args:
        groups: As in `grouped_split`.
        seed: The same seed, the same rows.

    Example:

    >>> sorted(one_of_each_group(["ann", "ann", "bob", ""], seed=0).tolist())[1:]
    [2, 3]
    """
    order = np.random.default_rng(check_int("seed", seed, minimum=0)).permutation(len(groups))
    first = np.unique(group_codes(groups)[order], return_index=True)[1]
    return order[np.sort(first)]


def _codes_and_sizes(groups: Sequence | np.ndarray, minimum: int) -> tuple[np.ndarray, np.ndarray]:
    codes = group_codes(groups)
    sizes = np.bincount(codes)
    if len(sizes) < minimum:
        reject("groups", f"must hold at least {minimum} different groups", f"{len(sizes)} groups")
    return codes, sizes


def _shuffled(sizes: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(check_int("seed", seed, minimum=0)).permutation(len(sizes))

"""Whether rows are such as a model has learned from, by their norms."""

import numpy as np

from kerasmlp.data.stores.streamed_rows import AnyRows, blocks_of

_SURELY_NORMALISED = 1e-3
"""Norms no farther from 1 than those of half-precision rows that were normalised."""
_CHANCE = 1e-6


def norm_1_share(embeddings: AnyRows) -> float:
    """The share of rows of norm 1, never quite 0 or 1: of a few rows nobody knows it better.

    Example:

    >>> norm_1_share(np.eye(3)), norm_1_share(np.full((3, 2), 9.0))
    (0.8, 0.2)
    """
    return float((_of_norm_1(embeddings).sum() + 1) / (len(embeddings) + 2))


def are_others(embeddings: AnyRows, share: float) -> bool:
    """Whether rows are all of norm 1, which so many of a share would hardly ever be by chance.

    Example:

    >>> rows = np.eye(4)
    >>> are_others(rows, 0.001), are_others(rows[:1], 0.001), are_others(rows, 0.9)
    (True, False, False)
    """
    return bool(_of_norm_1(embeddings).all() and share ** len(embeddings) < _CHANCE)


def _of_norm_1(embeddings: AnyRows) -> np.ndarray:
    blocks = [
        np.zeros(0, np.float32),
        *(np.vecdot(block, block) for _, block in blocks_of(embeddings)),
    ]
    return np.abs(np.sqrt(np.concatenate(blocks)) - 1) <= _SURELY_NORMALISED

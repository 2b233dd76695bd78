"""Which rows hang together, by any number of pairs between them."""

import numpy as np


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """The lowest number of each of `count` things with which pairs connect it.

    Args:
        count: Of all, also of those in no pair.
        pairs: `(pairs, 2)` numbers below `count`.

    Example:

    >>> components(6, np.array([[4, 5], [1, 3], [3, 5]]))
    array([0, 1, 2, 1, 1, 1])
    """
    lowest = np.arange(count)
    a, b = pairs.T
    while True:
        low = np.minimum(lowest[a], lowest[b])
        if (lowest[a] == low).all() and (lowest[b] == low).all():
            return lowest
        for end in (a, b):  # also what the end was called before is called so
            np.minimum.at(lowest, lowest[end], low)
            np.minimum.at(lowest, end, low)
        while (lowest[lowest] != lowest).any():
            lowest = lowest[lowest]
